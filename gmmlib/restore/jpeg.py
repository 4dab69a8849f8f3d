"""JPEG files of grey levels or colours, with their notes, profile and resolution."""

import io

import numpy as np

from gmmlib._extras import extra
from gmmlib.restore.picture import Picture, PictureError, check_size, known_orientation

with extra("data"):
    from PIL import ExifTags, Image, JpegImagePlugin

QUALITY = 95
FULL_COLOUR = 0  # Pillow's number of 4:4:4
KEPT = ("exif", "icc_profile", "xmp", "dpi", "comment")


def read(data):
    """Decode bytes to a `Picture`; PictureError for CMYK, and what Pillow raises for damage."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
        check_size(*image.size)
        if image.mode not in ("L", "RGB"):
            raise PictureError(f"has colours {image.mode}; expected grey or RGB. Convert it to RGB.")
        image.load()
        info, frames = image.info, getattr(image, "n_frames", 1)
        sampling = JpegImagePlugin.get_sampling(image)
        extras = {name: info[name] for name in KEPT if name in info}
        extras["progressive"] = bool(info.get("progressive"))
        extras["subsampling"] = sampling if sampling in (0, 1, 2) else FULL_COLOUR
        notes = (f"the first of its {frames} pictures alone",) if frames > 1 else ()
        try:
            orientation = known_orientation(image.getexif().get(ExifTags.Base.Orientation))
        except Exception:  # damaged notes, of any kind, beside pixels that are whole
            orientation = None
        return Picture(np.array(image), "JPEG", orientation, extras, notes)


def write(picture):
    """Encode a `Picture` to bytes, of quality 95 and the colours as fine as they were."""
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "JPEG", quality=QUALITY, **picture.extras)
    return file.getvalue()
