"""Chosen files out of an archive that is not trusted, tgz or zip."""

import tarfile
import zipfile
from stat import S_IFMT, S_IFREG

LARGEST_UNPACKED = 2**31  # bytes of all members together, chosen or not


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
        for name, size, regular, take in entries(path):
            unpacked += size
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


def _tgz_entries(path):
    with tarfile.open(path, "r:gz") as archive:
        for info in archive:
            yield info.name, info.size, info.isreg(), lambda info=info: archive.extractfile(info).read()


def _zip_entries(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # The upper half holds the file's Unix mode, or 0 if the archive comes from elsewhere.
            regular = S_IFMT(info.external_attr >> 16) in (0, S_IFREG) and not info.is_dir()
            yield info.filename, info.file_size, regular, lambda info=info: archive.read(info)
