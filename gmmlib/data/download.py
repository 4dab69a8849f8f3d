"""Download a data set: from mirror to mirror, verified, put in place by a rename.

Everything arrives in a hidden folder beside its destination and is verified there. A download that is
interrupted, killed or overtaken by another process therefore never leaves half a file under a final
name; at worst it leaves the hidden folder, which a later download sweeps away.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from gmmlib.data import archive, catalogue, probe
from gmmlib.data.catalogue import DatasetError, WrongContentError

PATIENCE = 8.0  # seconds for the first answer of a mirror, name look-up included
TIMEOUTS = 5.0, 30.0  # seconds to connect, and between two pieces of a transfer
TRIES = 2  # of a transfer that breaks off
LARGEST_ARCHIVE = 512 * 2**20  # bytes
LARGEST_REDIRECT = 2**16  # bytes
STAGE = ".arriving-"


class MirrorError(Exception):
    """One mirror failed; the next may not."""


def download(dataset, root):
    """Download what the folder `root` lacks of a data set.

    Raises
    ------
    DatasetError
        If no mirror delivers, with the reason of each, or if `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        missing = catalogue.absent(dataset, root)
        if not missing:  # another process was quicker
            return
        with tempfile.TemporaryDirectory(dir=root, prefix=STAGE, ignore_cleanup_errors=True) as stage:
            _fill(dataset, Path(stage), missing)
            _put_in_place(Path(stage) / dataset.folder, root / dataset.folder)
    except (OSError, MemoryError) as error:
        reason = "there is not enough memory" if isinstance(error, MemoryError) else error
        raise DatasetError(
            f"{dataset.title} cannot be stored in {root}: {reason}; make room or allow writing there, "
            f"or set {catalogue.VARIABLE} to a folder that holds the data"
        ) from error


def _sweep(root):
    """Remove what downloads that were killed have left; one still running is younger than a day."""
    for old in root.glob(f"{STAGE}*"):
        try:
            abandoned = time.time() - old.stat().st_mtime > 86400
        except FileNotFoundError:  # its own process has just tidied up
            continue
        if abandoned:
            shutil.rmtree(old, ignore_errors=True)


def _fill(dataset, stage, missing):
    """Bring the missing files into `stage` from the first mirror that has them right."""
    deadline = time.monotonic() + PATIENCE
    asked = [probe.ask(probe.first_url(dataset, mirror), PATIENCE) for mirror in dataset.mirrors]
    reasons = []
    for mirror, future in zip(dataset.mirrors, asked, strict=True):
        try:
            reply = probe.answer(future, deadline, PATIENCE)
            if reply.status is None:
                raise MirrorError(reply.reason)
            bring = _from_folder if mirror.inside is None else _from_archive
            return bring(dataset, mirror, stage, missing)
        except MirrorError as error:
            reasons.append(f"  {mirror.url} {error}")
    raise DatasetError(
        f"{dataset.title} could not be downloaded:\n" + "\n".join(reasons) + "\n"
        f"Try again later, or set {catalogue.VARIABLE} to a folder that holds {dataset.folder}/ "
        f'({min(dataset.files)}, ...), or use scale="sample", which needs no download.'
    )


def _from_folder(dataset, mirror, stage, missing):
    """Fetch file after file; what an earlier mirror brought is kept."""
    arriving = stage / "arriving.gz"
    for name in missing:
        target = stage / dataset.folder / name
        if target.exists():
            continue
        _get(mirror.url + name, arriving, catalogue.LARGEST, name)
        try:
            if name in dataset.containers:
                catalogue.verified(arriving.read_bytes(), dataset.containers[name])
            catalogue.verified(catalogue.content(arriving), dataset.files[name])
        except WrongContentError as error:
            begins = archive.head(arriving)  # a web page, say, or nothing
            raise MirrorError(f"sent a wrong {name}: {error}; it begins with {begins!r}") from error
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(arriving, target)


def _from_archive(dataset, mirror, stage, missing):
    """Fetch the archive and take out the expected files, nothing else."""
    arriving = stage / "archive"
    _get(mirror.url, arriving, LARGEST_ARCHIVE, dataset.title)
    wanted = {mirror.inside + name: name for name in missing}
    try:
        for member, data in archive.members(arriving, wanted, catalogue.LARGEST):
            # A second member of the same name, which no honest archive has, is checked like the first.
            name = wanted[member]
            target = stage / dataset.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(catalogue.verified(data, dataset.files[name]))
    except WrongContentError as error:
        raise MirrorError(f"sent a wrong {name}: {error}") from error
    except archive.ArchiveError as error:
        raise MirrorError(f"sent {error}") from error
    lacking = [name for name in missing if not (stage / dataset.folder / name).is_file()]
    if lacking:
        raise MirrorError(f"sent an archive that lacks {len(lacking)} files, the first {lacking[0]}")


def _put_in_place(staged, final):
    """Rename the folder; if there is one already, add to it what it lacks, file by file."""
    try:
        os.rename(staged, final)
    except OSError:
        for source in sorted(path for path in staged.rglob("*") if path.is_file()):
            target = final / source.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.replace(source, target)


class _Bounded:
    """A file that refuses to grow beyond a limit."""

    def __init__(self, file, limit):
        self.file, self.limit, self.size = file, limit, 0
        self.failed = None

    def write(self, data):
        self.size += len(data)
        if self.size > self.limit:
            raise MirrorError(f"sent more than {self.limit} bytes")
        try:
            return self.file.write(data)
        except OSError as error:
            self.failed = error
            raise

    def flush(self):
        self.file.flush()


class _Bar(tqdm):
    """A bar that also counts when the length is unknown, as it is of an archive made on request."""

    def __bool__(self):  # pooch asks whether there is a bar; tqdm says no if it has no length
        return True

    def reset(self, total=None):  # pooch does so at the end, to fill a bar of known length
        if self.total:
            super().reset(total)


def _short_redirect(response, **_):
    """Refuse an answer that sends elsewhere at length: requests would keep all of it in memory."""
    size = 0
    for piece in response.iter_content(LARGEST_REDIRECT) if response.is_redirect else ():
        size += len(piece)
        if size > LARGEST_REDIRECT:
            raise MirrorError(f"sent more than {LARGEST_REDIRECT} bytes beside a redirect")


def _get(url, path, limit, title):
    """Download one file with a progress bar; a transfer that breaks off is tried once more."""
    import pooch  # late: imported in a notebook it warns about progress bars, whether one is drawn or not

    for last in [False] * (TRIES - 1) + [True]:
        with open(path, "wb") as file, _Bar(desc=title, unit="B", unit_scale=True) as bar:
            sink = _Bounded(file, limit)
            try:
                fetch = pooch.HTTPDownloader(
                    progressbar=bar,
                    chunk_size=2**16,
                    timeout=TIMEOUTS,
                    headers=probe.HEADERS,
                    hooks={"response": _short_redirect},
                )
                return fetch(url, sink, None)
            except (OSError, ValueError) as error:  # a header can be nonsense
                if error is sink.failed:  # no fault of the mirror's
                    raise
                broken = bar.total is not None  # pooch sets it when the transfer begins
                if last or not broken:  # one that never began will not begin a second later either
                    raise MirrorError("broke off" if broken else probe.reason(error, TIMEOUTS[1])) from error
