"""Chosen files out of an archive that is not trusted, tgz or zip."""

import gzip
import tarfile
import zipfile
from stat import S_IFMT, S_IFREG

LARGEST_UNPACKED = 2**31  # bytes of all members together, chosen or not
MOST_MEMBERS = 100_000
LARGEST_READ = 2**27  # bytes at once, of a member or of what tar says about one


class ArchiveError(Exception):
    """Not an archive, or a damaged one."""


def members(path, chosen, largest):
    """Yield (name, bytes) of the regular files whose names are in `chosen`.

    Links, devices, files of more than `largest` bytes and all other names are passed over. Nothing
    is written, so a member's name never becomes a path.
    """
    begins = head(path)
    if not begins.startswith((b"PK", b"\x1f\x8b")):
        raise ArchiveError(f"neither a tgz nor a zip archive; it begins with {begins!r}")
    entries = _zip_entries if begins.startswith(b"PK") else _tgz_entries
    unpacked = 0
    try:
        for count, (name, size, regular, take) in enumerate(entries(path), 1):
            unpacked += size
            if count > MOST_MEMBERS:
                raise ArchiveError(f"an archive of more than {MOST_MEMBERS} members")
            if unpacked > LARGEST_UNPACKED:
                raise ArchiveError(f"an archive that unpacks to more than {LARGEST_UNPACKED} bytes")
            if regular and name in chosen and size <= largest:
                yield name, take()
    except ArchiveError:
        raise
    except Exception as error:  # what is damaged raises nearly anything
        raise ArchiveError(f"a damaged archive: {error}") from error


def head(path):
    """The first bytes of a file, enough to recognise what it is."""
    with open(path, "rb") as file:
        return file.read(16)


class _Unpacking(gzip.GzipFile):
    """A tar's names and attributes can be as long as its sender likes: reads of them are bounded, too."""

    def read(self, size=-1):
        if not 0 <= size <= LARGEST_READ or self.tell() + size > 2 * LARGEST_UNPACKED:
            raise ArchiveError(f"an archive of which {size} bytes would have to be unpacked at once")
        return super().read(size)


def _tgz_entries(path):
    with _Unpacking(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            yield info.name, info.size, info.isreg(), lambda info=info: archive.extractfile(info).read()


def _zip_entries(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # The upper half holds the file's Unix mode, or 0 if the archive comes from elsewhere.
            regular = S_IFMT(info.external_attr >> 16) in (0, S_IFREG) and not info.is_dir()
            # Only these two are unpacked piece by piece.
            regular &= info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            yield info.filename, info.file_size, regular, lambda info=info: _taken(archive, info)


def _taken(archive, info):
    """As many bytes as the directory says, however many more there are."""
    with archive.open(info) as file:
        return file.read(info.file_size)
