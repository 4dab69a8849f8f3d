"""Chosen files out of an archive that is not trusted, tgz or zip."""

import gzip
import io
import os
import tarfile
import zipfile
from stat import S_IFMT, S_IFREG

from gmmlib.data import catalogue

LARGEST_UNPACKED = 2**31  # bytes of all members together, chosen or not
MOST_MEMBERS = 100_000
LARGEST_DIRECTORY = 2**21  # bytes of the list of members in a zip; each of them costs 20 times as many


class ArchiveError(Exception):
    """Not an archive, or a damaged one."""


def members(path, chosen, largest):
    """Yield (name, bytes) of the regular files whose names are in `chosen`.

    Links, devices, files of more than `largest` bytes and all other names are passed over. Nothing
    is written, so a member's name never becomes a path. Memory holds one member and, of a zip, the list
    of members, whatever the headers say. What the system says while reading (too many open files) is
    passed on.
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
    except (ArchiveError, MemoryError):
        raise
    except Exception as error:  # what is damaged raises nearly anything
        if catalogue.is_of_the_system(error):
            raise
        raise ArchiveError(f"a damaged archive: {error}") from error


def head(path):
    """The first bytes of a file, enough to recognise what it is."""
    with open(path, "rb") as file:
        return file.read(16)


def _tgz_entries(path):
    """The members of a tgz, one header after the other.

    Python's own reader keeps every header and believes those that announce long names, attributes or maps
    of holes. Here these are members like others, and are passed over: the names that are looked for fit
    into a plain header.
    """
    with gzip.open(path) as file:
        while header := file.read(tarfile.BLOCKSIZE):
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:
                return
            if info.size < 0:
                raise ArchiveError(f"an archive with a member of {info.size} bytes")
            end = file.tell() + info.size
            regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            yield info.name, info.size, regular, lambda size=info.size: file.read(size)
            if file.seek(end) < end:
                raise ArchiveError("an archive that was cut short")
            file.seek(end + -end % tarfile.BLOCKSIZE)


class _Directory(io.FileIO):
    """A zip file whose list of members is refused if it is long, before it is read and parsed."""

    limit = LARGEST_DIRECTORY

    def read(self, size=-1):
        if size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > self.limit:
            raise ArchiveError(f"an archive with a list of members of {size} bytes")
        return super().read(size)


def _zip_entries(path):
    with _Directory(path) as file, zipfile.ZipFile(file) as archive:
        file.limit = LARGEST_UNPACKED  # from here on members are read, and their sizes have been judged
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
