"""The parts of the command line that train a prior, and say what the priors were trained on."""

import os
import sys
from pathlib import Path

from gmmlib import storage
from gmmlib._extras import progress_bar
from gmmlib.data import datasets
from gmmlib.restore import shipped, training
from gmmlib.restore.terminal import say

SIDE, BATCHES = 8, 60


def train(options):
    """Train a mixture of full covariances and keep it; return the exit status."""
    path = Path(options.output) if options.output else shipped.place("full")
    if os.path.lexists(path) and not options.overwrite:
        say(
            f"{path} is there already. Pass --overwrite to replace it, or name another file by -o.",
            sys.stderr,
        )
        return 1
    try:
        if not options.output:
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.target(path, "-o")
        photographs, source = _photographs(options.images)
        bar = progress_bar(total=BATCHES, unit="batch", disable=not sys.stderr.isatty(), leave=False)
        with bar:
            model = training.full(photographs, side=SIDE, n_batches=BATCHES, callback=bar.update)
        model.save(path, note=source)
    except (OSError, ValueError) as error:
        say(f"no prior was written: {error}", sys.stderr)
        return 1
    say(f"{path}: trained on {source}")
    return 0


def _photographs(folder):
    """Photographs to learn from, and what is to be said of them."""
    if folder is None:
        found = datasets.load_bsds("train")
        return found, f"{len(found)} photographs of BSDS500, for non-commercial research and education only"
    found = datasets.load_folder(folder, min_side=SIDE).images
    return found, f"{len(found)} photographs of the folder {folder}, under their terms"


def show(options):
    """Say where the priors are, and what they were trained on; return the exit status."""
    for name in ("fast", "full"):
        path = shipped.place(name)
        if not path.is_file():
            say(f"{name}: not on this machine; python -m gmmlib.restore train makes it in some minutes")
            continue
        try:
            say(f"{name}: {path}, trained on {storage.note(path)}")
        except storage.ModelFileError as error:
            say(f"{name}: {error}", sys.stderr)
            return 1
    return 0
