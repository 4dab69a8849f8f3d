"""Download a data set with pooch: from mirror to mirror, verified, put in place by a rename.

Everything arrives in a hidden folder beside its destination and is verified there, so a download that is
interrupted, killed or overtaken by another process never leaves half a file under a final name; at worst it
leaves the hidden folder, which a later download sweeps away.
"""

import os
import shutil
import tempfile
import time
from concurrent.futures import Future, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Thread

from gmmlib._extras import extra
from gmmlib.data import archive, catalogue
from gmmlib.data.catalogue import DatasetError, WrongContentError

TIMEOUTS = 5.0, 30.0  # seconds to connect, and between two pieces of a transfer
RETRIES = 1  # of a transfer that fails
LARGEST_ARCHIVE = 512 * 2**20  # bytes
STAGE = ".arriving-"


class MirrorError(Exception):
    """One mirror sent what cannot be used; the next may not."""


def download(dataset, root):
    """Download what the folder `root` lacks of a data set, or say by a DatasetError why this fails."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        missing = catalogue.absent(dataset, root)
        if not missing:  # another process was quicker
            return
        with tempfile.TemporaryDirectory(dir=root, prefix=STAGE, ignore_cleanup_errors=True) as stage:
            _fill(dataset, Path(stage), missing)
            for name in missing:
                target = root / dataset.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():  # what has come to be there meanwhile stays
                    os.replace(Path(stage) / name, target)
    except (OSError, MemoryError) as error:
        raise DatasetError(
            f"{dataset.title} cannot be stored in {root}: {catalogue.reason(error)}; make room or allow "
            f"writing there, or set {catalogue.VARIABLE} to a folder that holds the data"
        ) from error


def _sweep(root):
    """Remove what downloads that were killed have left; one still running is younger than a day."""
    for old in root.glob(f"{STAGE}*"):
        with suppress(FileNotFoundError):  # its own process has just tidied up
            if time.time() - old.stat().st_mtime > 86400:
                shutil.rmtree(old, ignore_errors=True)


def _fill(dataset, stage, missing):
    """Bring the missing files into `stage` from the first mirror that has them right."""
    reasons = []
    for mirror in dataset.mirrors:
        try:
            if mirror.inside is not None:
                return _from_archive(dataset, mirror, stage, missing)
            for name in missing:  # what an earlier mirror brought is kept
                _get(mirror.url + name, stage / name, dataset.containers[name], catalogue.LARGEST)
            return
        except (OSError, ValueError, MirrorError) as error:  # a header can be nonsense
            if catalogue.is_of_the_system(error):
                raise
            reasons.append(f"  {mirror.url} {_what_failed(error)}")
    raise DatasetError(
        f"{dataset.title} could not be downloaded:\n" + "\n".join(reasons) + "\n"
        f"Try again later, or set {catalogue.VARIABLE} to a folder that holds {dataset.folder}/ "
        f'({min(dataset.files)}, ...), or use scale="sample", which needs no download.'
    )


def _from_archive(dataset, mirror, stage, missing):
    """Fetch the archive and take out the expected files, nothing else."""
    arriving = stage / "archive.tgz"
    arriving.unlink(missing_ok=True)  # that of an earlier mirror
    _get(mirror.url, arriving, None, LARGEST_ARCHIVE)
    wanted = {mirror.inside + name: name for name in missing}
    try:
        for member, data in archive.members(arriving, wanted, catalogue.LARGEST):
            # A second member of the same name, which no honest archive has, is checked like the first.
            name = wanted[member]
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_bytes(catalogue.verified(data, dataset.files[name]))
    except WrongContentError as error:
        raise MirrorError(f"sent a wrong {name}: {error}") from error
    except archive.ArchiveError as error:
        raise MirrorError(f"sent {error}") from error
    if lacking := [name for name in missing if not (stage / name).is_file()]:
        raise MirrorError(f"sent an archive that lacks {len(lacking)} files, the first {lacking[0]}")


def _get(url, path, digest, limit):
    """Fetch one file, unless it is there; verified, with a progress bar, and tried again if it fails."""
    fetch = _pooch().HTTPDownloader(
        progressbar=True,
        chunk_size=2**16,
        timeout=TIMEOUTS,
        headers={"Accept-Encoding": "identity"},  # a gzip file must arrive as it lies on the server
        # What comes beside a redirect is left unread: requests would keep all of it in memory.
        hooks={"response": lambda answer, **_: answer.close() if answer.is_redirect else None},
    )

    def bounded(url, path, puller):
        with open(path, "wb") as file:
            fetch(url, _Bounded(file, limit), puller)

    files = _pooch().Pooch(path.parent, "", {path.name: digest}, {path.name: url}, RETRIES, False)
    files.fetch(path.name, downloader=bounded)


def _pooch():
    # Late: imported in a notebook it warns about progress bars, whether one is drawn or not.
    with extra("data"):
        import pooch
    return pooch


class _Bounded:
    """A file that refuses to grow beyond a limit."""

    def __init__(self, file, limit):
        self.file, self.limit, self.flush = file, limit, file.flush

    def write(self, data):
        if self.file.tell() + len(data) > self.limit:
            raise MirrorError(f"sent more than {self.limit} bytes")
        return self.file.write(data)


def ask(dataset, timeout):
    """Ask all mirrors at once whether they have a data set: {Future of what is wrong, or "": address}.

    A name look-up can take longer than any timeout, so the caller waits no longer than it likes, and the
    daemon threads do not keep the program alive.
    """
    asked, downloader = {}, _pooch().HTTPDownloader(timeout=timeout)

    def look(url, future):
        try:
            there = downloader(url, None, None, check_only=True)
            future.set_result("" if there else "does not have it")
        except Exception as error:  # whatever it is, somebody waits for the answer
            future.set_result(_what_failed(error))

    for mirror in dataset.mirrors:
        url = mirror.url if mirror.inside else mirror.url + min(dataset.files)
        asked[future := Future()] = mirror.url
        Thread(target=look, args=(url, future), daemon=True).start()
    return asked


def answer(asked, deadline):
    """The address of a mirror that has the data set by a monotonic time, or None and the complaints."""
    with suppress(TimeoutError):
        for future in as_completed(asked, timeout=max(0.0, deadline - time.monotonic())):
            if not future.result():
                return asked[future], []
    return None, [f"{url} {f.result() if f.done() else 'did not answer'}" for f, url in asked.items()]


def _what_failed(error):
    """Words that follow an address: what lies at the bottom of an error of a connection."""
    if isinstance(error, MirrorError):
        return str(error)
    while cause := error.__cause__ or error.__context__:
        error = cause
    return f"failed: {catalogue.reason(error)}"
