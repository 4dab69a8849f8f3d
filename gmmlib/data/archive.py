"""Chosen files out of a tgz archive that is not trusted."""

import gzip
import itertools
import tarfile
import zlib

LARGEST_UNPACKED = 2**31  # bytes of all members together, chosen or not
MOST_MEMBERS = 100_000
MAGIC = b"\x1f\x8b"  # of gzip


class ArchiveError(Exception):
    """Not a tgz archive, a damaged one, or one that is too large."""


def members(path, chosen, largest):
    """Yield (name, bytes) of the regular files of at most `largest` bytes whose names are in `chosen`.

    Nothing is written, so a name never becomes a path. Memory holds one member: Python's own reader (and with
    it pooch's Untar) keeps every header, and believes those that announce long names, attributes or maps of
    holes. Here these are members like others; the names that are looked for fit into a plain header.
    """
    with open(path, "rb") as file:
        begins = file.read(16)
    if not begins.startswith(MAGIC):
        raise ArchiveError(f"no tgz archive; it begins with {begins!r}")
    try:
        with gzip.open(path) as file:
            yield from _chosen(file, chosen, largest)
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise ArchiveError(f"a damaged archive: {error}") from error


def _chosen(file, chosen, largest):
    for count in itertools.count(1):
        block = file.read(tarfile.BLOCKSIZE)
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):
            return
        end = file.tell() + info.size
        if info.size < 0:
            raise ArchiveError(f"an archive with a member of {info.size} bytes")
        if count > MOST_MEMBERS:
            raise ArchiveError(f"an archive of more than {MOST_MEMBERS} members")
        if end > LARGEST_UNPACKED:
            raise ArchiveError(f"an archive that unpacks to more than {LARGEST_UNPACKED} bytes")
        regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if regular and info.name in chosen and info.size <= largest:
            yield info.name, file.read(info.size)
        if file.seek(end) < end:
            raise ArchiveError("an archive that was cut short")
        file.seek(end + -end % tarfile.BLOCKSIZE)
