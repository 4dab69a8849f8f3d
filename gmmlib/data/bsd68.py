"""BSD68: the photographs on which denoisers are compared, and their grey levels as they are circulated.

They are 68 of the validation photographs of BSDS500, first used by Roth and Black (2009, Int. J. Comput.
Vision 82, 205-229).  Published numbers are of grey levels of 8 bits made by the weights below.
"""

import io

import numpy as np

from gmmlib._extras import extra

with extra("data"):
    from PIL import Image

# In the order of the circulated files, test001 to test068: by their names, compared as text.
NAMES = """
    101085 101087 102061 103070 105025 106024 108005 108070 108082 109053 119082 12084 123074 126007 130026
    134035 14037 143090 145086 147091 148026 148089 157055 159008 160068 16077 163085 167062 167083 170057
    175032 175043 182053 189080 19021 196073 197017 208001 210088 21077 216081 219090 220075 223061 227092
    229036 236037 24077 241004 241048 253027 253055 260058 271035 285079 291000 295087 296007 296059 299086
    300091 302008 304034 304074 306005 3096 33039 351093
""".split()
WEIGHTS = 2989, 5870, 1140  # ten thousandths of red, green and blue


def grey(encoded):
    """Grey levels (H, W) of an encoded photograph, whole multiples of 1/255."""
    with Image.open(io.BytesIO(encoded)) as image:
        colours = np.asarray(image.convert("RGB")).astype(np.int64)
    return np.rint(colours @ np.array(WEIGHTS) / 10_000) / 255
