"""The command line: picture files restored one by one."""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

from gmmlib import storage
from gmmlib._extras import progress_bar
from gmmlib.data.catalogue import DatasetError
from gmmlib.restore import files, images, prior_commands, shipped
from gmmlib.restore.picture import PictureError
from gmmlib.restore.priors import prior_of
from gmmlib.restore.terminal import line, say

EQUAL = 1e-20  # a mean squared error that counts as none: 200 dB, since JSON has no infinity
WHITE = 255  # of --sigma and of the levels that are reported, whatever the depth of a file
DESCRIPTION = """\
Restore photographs by a mixture of patches: PNG, JPEG and TIFF, of 8 and 16 bits per channel or (TIFF) of
floats from 0 to 1; grey or RGB, with alpha, which stays as it is. The output has the name, kind, depth,
channels, orientation, colour profile and resolution of the input; palettes become RGB, and JPEG is written
with quality 95. No file is replaced without --overwrite, and an input never.
"""
TRAIN = """\
Train a mixture of 200 full covariances on patches of photographs, and keep it in the cache folder as the
prior full. BSDS500, on which it is trained, is fetched if it is not on this machine.
"""
OF_PRIORS = {"train": prior_commands.train, "priors": prior_commands.show}
EPILOG = """\
exit status: 0 if every file was restored, 1 if any was not, 2 for a wrong call, 130 if interrupted
"""


def main(arguments=None):
    """Run the command line; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command in OF_PRIORS:
        run = OF_PRIORS[options.command]
    else:
        _check(parser, options)
        run = _restore
    try:
        return run(options)
    except DatasetError as error:
        say(str(error), sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; files that were not finished have not been written", sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 1


def _parser():
    layout = argparse.RawDescriptionHelpFormatter
    common = {"formatter_class": layout, "epilog": EPILOG}
    parser = argparse.ArgumentParser(prog="python -m gmmlib.restore", description=DESCRIPTION, **common)
    commands = parser.add_subparsers(dest="command", required=True)
    denoise = commands.add_parser("denoise", help="remove white noise", description=DESCRIPTION, **common)
    inpaint = commands.add_parser("inpaint", help="fill gaps", description=DESCRIPTION, **common)
    for command in (denoise, inpaint):
        command.add_argument("inputs", nargs="+", metavar="IN", help="a picture file")
    denoise.add_argument(
        "--sigma",
        type=_sigma,
        default="auto",
        metavar="auto|X",
        help="standard deviation of the noise in grey levels of 0 to 255, whatever the depth of the file; by "
        "default it is estimated: of grey, or of luminance and two differences of colours",
    )
    inpaint.add_argument(
        "--mask",
        required=True,
        help="a picture of the same height and width, white (above half) where a pixel is missing, or a "
        "folder of them with the names of the inputs",
    )
    for command in (denoise, inpaint):
        command.add_argument(
            "-o",
            "--output",
            required=True,
            metavar="DIR",
            help="folder of the outputs, made if it is not there",
        )
        command.add_argument(
            "--prior", default="fast", metavar="fast|full|FILE", help="mixture of patches (default: fast)"
        )
        command.add_argument(
            "--reference",
            metavar="R",
            help="the clean picture of a single input, or a folder of clean pictures with the names of the "
            "inputs: the PSNR before and after is printed, in dB, of what the files hold",
        )
        command.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
        command.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    train = commands.add_parser(
        "train", help="train the prior full", description=TRAIN, formatter_class=layout
    )
    train.add_argument(
        "--images", metavar="DIR", help="a folder of clean photographs, instead of those of BSDS500"
    )
    train.add_argument("-o", "--output", metavar="FILE", help="the model file, instead of the prior full")
    train.add_argument("--overwrite", action="store_true", help="replace a prior that is there")
    commands.add_parser("priors", help="say what the priors were trained on, and under which terms")
    return parser


def _sigma(text):
    if text == "auto":
        return text
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 <= sigma <= WHITE:
        raise argparse.ArgumentTypeError(
            f"must be auto or a number from 0 to {WHITE}, in grey levels of 0 to {WHITE}; got {text!r}"
        )
    return sigma


def _check(parser, options):
    """Refuse calls that cannot be meant."""
    if options.reference and len(options.inputs) > 1 and os.path.isfile(options.reference):
        parser.error(
            f"--reference must be a folder if there are several inputs; got the file "
            f"{line(options.reference)!r}"
        )


def _restore(options):
    """Restore all files; return the exit status."""
    prior, trouble = _prior(options.prior)
    if trouble:
        say(trouble, sys.stderr)
    results, taken = [], {}
    inputs = {mark for name in _read_files(options) if (mark := _mark(name))}
    bar = progress_bar(total=len(options.inputs), unit="file", disable=not sys.stderr.isatty(), leave=False)
    try:
        for name in options.inputs:
            result = {"input": name, "output": None, "status": "error", "error": trouble or None}
            result |= {"sigma": None, "seconds": None, "psnr_before": None, "psnr_after": None, "notes": []}
            if not trouble:
                _try(result, options, prior, inputs, taken)
            results.append(result)
            bar.clear()
            if not trouble:
                _report(result, options.json)
            bar.update()
    finally:
        bar.close()
        if options.json:
            say(json.dumps({"files": results}, indent=1, allow_nan=False), sys.stdout, as_is=True)
    return 0 if all(result["status"] == "ok" for result in results) else 1


def _prior(name):
    """The mixture of a name, and None; or None, and what is wrong with it."""
    try:
        prior = shipped.prior(name)
        prior_of(prior)
    except (ValueError, DatasetError) as error:
        return None, f"--prior {name}: {error}"
    except FileNotFoundError as error:
        why = "there is no such file; name a model file, fast or full" if error.strerror else str(error)
        return None, f"--prior {name}: {why}"
    except (OSError, MemoryError) as error:
        return None, f"--prior {name}: cannot be read ({type(error).__name__}: {error})"
    return prior, None


def _read_files(options):
    """The files that the call reads and must not write: inputs, and single masks and references."""
    others = (getattr(options, "mask", None), options.reference)
    return [*options.inputs, *filter(None, others)]


def _mark(path):
    """Which file a path leads to, whatever its name; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _try(result, options, prior, inputs, taken):
    """Restore one file, and write into its result what came of it."""
    began = time.perf_counter()
    try:
        _one(result, options, prior, inputs, taken)
        result["status"] = "ok"
    except (PictureError, MemoryError, ValueError) as error:
        words = "needs more memory than there is" if isinstance(error, MemoryError) else str(error)
        result["error"] = f"{result['input']}: {words}"
    except Exception as error:  # one file must not stop the others, whatever is wrong with it
        result["error"] = f"{result['input']}: {type(error).__name__}: {error}"
    result["seconds"] = round(time.perf_counter() - began, 3)


def _one(result, options, prior, inputs, taken):
    name = Path(result["input"]).name
    if name in taken:
        raise PictureError(
            f"has the name of {taken[name]}, and both would be written to one file. Restore it to "
            "another folder."
        )
    taken[name] = result["input"]
    data = files.contents(result["input"])
    output = _output(Path(options.output), name, options.overwrite, inputs)
    picture = files.decoded(data)
    clean = _beside(files.reference, "--reference", options.reference, name, picture)
    if options.command == "denoise":
        pixels = _denoised(picture.pixels, options.sigma, prior, result)
    else:
        mask = _beside(files.mask, "--mask", options.mask, name, picture)
        pixels = _filled(picture.pixels, mask, prior, result)
    if pixels is not None:
        result["notes"] += picture.notes
        data = files.encoded(picture._replace(pixels=pixels))
    if clean is not None:
        result["psnr_before"] = _psnr(files.levels(picture), clean)
        result["psnr_after"] = _psnr(files.levels(files.decoded(data)), clean)
    files.save(data, _output(Path(options.output), name, options.overwrite, inputs))
    result["output"] = str(output)


def _output(folder, name, overwrite, inputs):
    """Where an output goes, its folder made; PictureError if it must not go there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = storage.target(folder / name, "-o")
    except OSError as error:
        if not error.strerror:
            raise PictureError(str(error)) from error
        raise PictureError(
            f"cannot be written: -o must name a folder that can be made; got {folder} ({error.strerror}). "
            "Name another."
        ) from error
    if _mark(path) in inputs:
        raise PictureError(f"would be written onto {path}, which this call reads. Name another folder by -o.")
    if os.path.lexists(path) and not overwrite:
        raise PictureError(f"{path} is there already. Remove it, name another folder, or pass --overwrite.")
    if not os.access(path.parent, os.W_OK):
        raise PictureError(
            f"cannot be written: the folder {path.parent} may not be written to. Name another by -o."
        )
    return path


def _beside(read, option, place, name, picture):
    """What is read of the file that an option names, or of that with the name of the input in its folder."""
    if place is None:
        return None
    path = Path(place) / name if os.path.isdir(place) else place
    try:
        return read(path, picture)
    except PictureError as error:
        raise PictureError(f"{option} {path} {error}") from error


def _denoised(pixels, sigma, prior, result):
    """Pixels without noise, or None if there is none to remove."""
    colours, alpha = _parts(pixels)
    unit = files.WHITE.get(pixels.dtype, 1) / WHITE
    levels = images.noise_levels(colours) / unit if sigma == "auto" else np.full(_planes(colours), sigma)
    result["sigma"] = [round(float(level), 4) for level in levels]
    if sigma == 0:
        result["notes"].append("no noise to remove: the file was copied as it is")
        return None
    given = None if sigma == "auto" else sigma * unit
    return _joined(images.denoise(colours, given, prior=prior), alpha)


def _filled(pixels, mask, prior, result):
    """Pixels without gaps, or None if there are none."""
    if not mask.any():
        result["notes"].append("the mask hides nothing: the file was copied as it is")
        return None
    colours, alpha = _parts(pixels)
    return _joined(images.inpaint(colours, mask, prior=prior), alpha)


def _parts(pixels):
    """What `images` restores, and the alpha of grey levels, which it does not take."""
    grey = pixels.ndim == 3 and pixels.shape[2] == 2
    return (pixels[:, :, 0], pixels[:, :, 1]) if grey else (pixels, None)


def _joined(colours, alpha):
    return colours if alpha is None else np.stack([colours, alpha], axis=2)


def _planes(colours):
    return 1 if colours.ndim == 2 else 3


def _psnr(found, clean):
    """Peak signal-to-noise ratio in dB, of a peak of 1; 200 if the levels are equal."""
    error = max(((found - clean) ** 2).mean(), EQUAL)
    return round(float(-10 * np.log10(error)), 3)


def _report(result, as_json):
    """One line about a file: an error on standard error, else on standard output unless that is for JSON."""
    if result["status"] == "error":
        say(result["error"], sys.stderr)
    elif not as_json:
        told = [f"{result['seconds']:.1f} s"]
        if result["sigma"] is not None:
            told.insert(0, "sigma " + ", ".join(f"{level:.2f}" for level in result["sigma"]))
        if result["psnr_before"] is not None:
            told.append(f"PSNR {result['psnr_before']:.2f} -> {result['psnr_after']:.2f} dB")
        say(f"{result['input']} -> {result['output']}: " + "; ".join(told + result["notes"]))
