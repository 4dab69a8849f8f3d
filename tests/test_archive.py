"""Archives that were made to do harm cost no memory and leave no file, whatever they say of themselves."""

import gzip
import io
import re
import tarfile
import tracemalloc

import numpy as np
import pytest

from gmmlib.data import archive
from tests.test_datasets import INSIDE, PHOTOGRAPHS, everything, inside, tgz
from tests.test_download import hostile_tgz


def peak_of(function):
    tracemalloc.start(1)
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header(name, size=0, kind=tarfile.REGTYPE):
    """One block of a tar that says what it likes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def extension(kind, data):
    return header("x", len(data), kind) + data + bytes(-len(data) % 512)


def pax(count):
    """Attributes as `size key=value`, the size included."""
    return b"".join(b"%d k%05d=v\n" % (12, n) for n in range(count))


def one_endless_name():
    yield header("x", 2**26, tarfile.GNUTYPE_LONGNAME) + bytes(2**26)


def many_attributes():
    yield extension(tarfile.XHDTYPE, pax(99_999))


def many_global_attributes():
    for _ in range(900):
        yield extension(tarfile.XGLTYPE, pax(100))


def many_long_names():
    for n in range(300):
        yield extension(tarfile.GNUTYPE_LONGNAME, b"%d" % n + b"x" * 2**17) + header("x")


def many_members():
    for n in range(4_000):
        yield header(f"{n}")


def a_map_of_holes():
    attributes = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n20 GNU.sparse.name=x\n"
    yield extension(tarfile.XHDTYPE, attributes)
    yield extension(tarfile.REGTYPE, b"2000000\n" + b"0\n" * 2_000_000)


@pytest.mark.parametrize(
    "bomb",
    [
        one_endless_name,
        many_attributes,
        many_global_attributes,
        many_long_names,
        many_members,
        a_map_of_holes,
    ],
)
def test_headers_cost_no_memory_however_many_and_long_they_are(tmp_path, bomb):
    with gzip.open(tmp_path / "bomb", "wb", compresslevel=1) as file:
        for piece in bomb():
            file.write(piece)
        file.write(header("a", 1) + bytes(1536))
    taken = []
    assert peak_of(lambda: taken.extend(archive.members(tmp_path / "bomb", {"a"}, 2**20))) < 2**20
    assert taken == [("a", b"\0")]


def test_attributes_and_long_names_of_an_honest_archive_are_passed_over(tmp_path):
    name = INSIDE + "val/3.jpg"
    with tarfile.open(tmp_path / "archive", "w:gz", format=tarfile.PAX_FORMAT) as packed:
        for n, other in enumerate(["d" * 90 + "/" + "f" * 150, "BSR/\u00e9", name, "BSR/" + "y" * 300]):
            info = tarfile.TarInfo(other)
            info.pax_headers, info.mtime, info.size = {"SCHILY.xattr.com.apple": "v" * 500}, 1.5, 700 + n
            packed.addfile(info, io.BytesIO(bytes([n]) * info.size))
    assert list(archive.members(tmp_path / "archive", {name}, 2**20)) == [(name, b"\2" * 702)]


def test_a_member_that_is_too_large_is_passed_over(tmp_path):
    (tmp_path / "archive").write_bytes(tgz({"a": bytes(2000), "b": bytes(1000)}))
    assert list(archive.members(tmp_path / "archive", {"a", "b"}, 1000)) == [("b", bytes(1000))]


def negative():
    block = bytearray(header("a"))
    block[124:136] = b"\xff" * 12
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


REFUSED = {
    "an archive that unpacks to more than 10000 bytes": tgz({"other": bytes(20_000)}),
    "a damaged archive: Compressed file ended before": tgz({"other": bytes(9_000)})[:60],
    "an archive of more than 10 members": tgz({f"{n}": b"" for n in range(11)}),
    "an archive that was cut short": gzip.compress(header("a", 4000) + bytes(1000)),
    "an archive with a member of -1 bytes": negative(),
    "no tgz archive; it begins with b'PK...'": b"PK...",
}


@pytest.mark.parametrize("says", REFUSED)
def test_an_archive_that_cannot_be_used_is_refused_with_the_reason(tmp_path, monkeypatch, says):
    monkeypatch.setattr(archive, "LARGEST_UNPACKED", 10_000)
    monkeypatch.setattr(archive, "MOST_MEMBERS", 10)
    (tmp_path / "archive").write_bytes(REFUSED[says])
    with pytest.raises(archive.ArchiveError, match=f"^{re.escape(says)}"):
        list(archive.members(tmp_path / "archive", {"b"}, 2**20))


@pytest.mark.parametrize("cases", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_random_damage_to_an_archive_is_an_archive_error_or_harmless(tmp_path, cases):
    """Bytes changed, ends cut off: what comes out was chosen, and nothing else happens."""
    rng = np.random.default_rng(cases)
    path = tmp_path / "archive"
    wholes = [hostile_tgz(), gzip.compress(gzip.decompress(hostile_tgz()), 0)]
    chosen = set(inside(PHOTOGRAPHS))
    taken = 0
    for case in range(cases):
        whole = bytearray(wholes[case % 2])
        for place in rng.integers(len(whole), size=rng.integers(1, 6)):
            whole[place] = rng.integers(256)
        path.unlink(missing_ok=True)
        path.write_bytes(whole[: rng.integers(len(whole))] if case % 4 == 0 else whole)
        try:
            for name, data in archive.members(path, chosen, 2**20):
                assert name in chosen
                assert len(data) <= 2**20
                taken += 1
        except archive.ArchiveError:
            pass
    assert taken > cases / 10
    assert everything(tmp_path) == ["archive"]
