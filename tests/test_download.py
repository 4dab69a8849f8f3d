"""Downloads: from mirror to mirror, whatever servers do; whole files or none, in no file's place."""

import gzip
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pooch
import pytest

from gmmlib import datasets
from gmmlib.data import catalogue, download
from gmmlib.data.catalogue import DATASETS, Mirror
from gmmlib.data.datasets import DatasetError, load_bsds, load_mnist
from tests import test_datasets
from tests.test_datasets import (
    GZIPPED,
    INSIDE,
    PHOTOGRAPHS,
    SPLITS,
    everything,
    inside,
    sha256,
    system_error,
    tgz,
)

cache, tiny, mirrors, folder = (
    test_datasets.cache,
    test_datasets.tiny,
    test_datasets.mirrors,
    test_datasets.folder,
)
server, refusing, hanging = test_datasets.server, test_datasets.refusing, test_datasets.hanging


def halved(data):
    """Announce all of `data`, send half and hang up."""

    def answer(handler):
        handler.send(data[: len(data) // 2], len(data))
        handler.close_connection = True

    return answer


def test_digits_are_downloaded_once(server, mirrors, cache, capfd):
    mirrors("mnist", server.folder("mnist", GZIPPED))
    assert load_mnist("train")[1].tolist() == [7, 0, 9]
    assert load_mnist("test")[1].tolist() == [1, 2]
    assert len(server.gets) == 4
    assert everything(cache) == sorted(f"mnist/{name}" for name in GZIPPED)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "100%" in printed.err  # the progress bar


def test_only_what_is_missing_is_downloaded(server, mirrors, folder, cache):
    folder.rename(cache)
    (cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    (cache / "bsds500" / "val" / "3.jpg").unlink()
    mirrors("mnist", server.folder("mnist", GZIPPED))
    mirrors("bsds", server.archive("bsds.tgz", tgz(inside(PHOTOGRAPHS))))
    datasets.fetch()
    assert server.gets == ["/mnist/t10k-labels-idx1-ubyte.gz", "/bsds.tgz"]
    assert len(everything(cache)) == 8


def test_a_file_that_came_to_be_there_during_a_download_stays(server, mirrors, cache):
    """Even if it is a wrong one: it is not ours."""
    path, data = cache / "bsds500" / "val" / "3.jpg", tgz(inside(PHOTOGRAPHS))

    def answer(handler):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        handler.send(data, len(data))

    mirrors("bsds", server.archive("bsds.tgz", answer))
    assert len(load_bsds("train")) == 2
    assert path.read_bytes() == b"mine"


def test_the_next_mirror_is_tried(server, mirrors, refusing):
    page = b"<!DOCTYPE html><title>Log in</title>"
    wrong = GZIPPED | {"train-images-idx3-ubyte.gz": gzip.compress(b"other")}
    mirrors(
        "mnist",
        Mirror(f"{refusing}/"),
        Mirror(f"{server.url}/gone/"),
        server.folder("page", dict.fromkeys(GZIPPED, page)),
        server.folder("wrong", wrong),
        server.folder("right", GZIPPED),
    )
    assert load_mnist("train")[1].tolist() == [7, 0, 9]
    # What the fourth mirror had right is kept; the fifth brings the rest.
    assert [path for path in server.gets if path.startswith("/right/")] == [
        "/right/train-images-idx3-ubyte.gz",
        "/right/train-labels-idx1-ubyte.gz",
    ]


def test_mirrors_that_do_not_deliver_are_named_with_the_reason(
    server, mirrors, cache, refusing, hanging, monkeypatch
):
    monkeypatch.setattr(download, "TIMEOUTS", (0.3, 0.3))
    first = "t10k-images-idx3-ubyte.gz"
    mirrors(
        "mnist",
        Mirror(f"{refusing}/"),
        Mirror(f"{hanging}/"),
        Mirror(f"{server.url}/gone/"),
        server.folder("page", {first: b"<!DOCTYPE html><title>Log in</title>"}),
    )
    with pytest.raises(DatasetError) as caught:
        load_mnist("train")
    start, *reasons, end = str(caught.value).splitlines()
    assert start == "MNIST could not be downloaded:"
    for line, text in zip(
        reasons,
        [
            f"  {refusing}/ failed: Connection refused",
            f"  {hanging}/ failed: timed out",
            f"  {server.url}/gone/ failed: 404 Client Error: Not Found for url: ",
            f"  {server.url}/page/ failed: SHA256 hash of downloaded file ({first}) does not match the known",
        ],
        strict=True,
    ):
        assert line.startswith(text)
    assert end == (
        "Try again later, or set GMMLIB_DATA to a folder that holds mnist/ (t10k-images-idx3-ubyte.gz, ...), "
        'or use scale="sample", which needs no download.'
    )
    assert everything(cache) == []


def stalled(data):
    """Announce all of `data`, send half and say no more, but keep the connection."""

    def answer(handler):
        handler.send(data[: len(data) // 2], len(data))
        time.sleep(0.7)

    return answer


def reset(data):
    """Announce all of `data`, send half and break the connection, as a machine that restarts does."""

    def answer(handler):
        handler.send(data[: len(data) // 2], len(data))
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return answer


def answering(status, location=None, length="0"):
    def answer(handler):
        handler.send_response(status)
        if location:
            handler.send_header("Location", location)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.close_connection = True

    return answer


WHOLE = tgz(inside(PHOTOGRAPHS) | {"BSR/noise": np.random.default_rng(0).bytes(300_000)})
MISBEHAVIOUR = {
    "stalls": (stalled(WHOLE), "failed: timed out"),
    "hangs up": (halved(WHOLE), "failed: IncompleteRead("),
    "restarts": (reset(WHOLE), "failed: Connection reset by peer"),
    "is overloaded": (answering(503), "failed: 503 Server Error: Service Unavailable for url: "),
    "goes in circles": (answering(302, "/first"), "failed: Exceeded 30 redirects."),
    "counts in words": (answering(200, length="many"), "failed: invalid literal for int()"),
    "sends to nowhere": (answering(302, "http://[nowhere"), "failed: "),
    "wants a log-in": (b"<html>Log in</html>", "sent no tgz archive; it begins with b'<html>Log"),
    "cuts the archive": (WHOLE[:-100], "sent a damaged archive: "),
    "lacks photographs": (
        tgz(inside({"val/3.jpg": PHOTOGRAPHS["val/3.jpg"]})),
        "sent an archive that lacks 3 files, the first test/5.jpg",
    ),
    "has another photograph": (
        tgz(inside({"val/3.jpg": b"?"})),
        f"sent a wrong val/3.jpg: expected sha256 {sha256(PHOTOGRAPHS['val/3.jpg'])}, found {sha256(b'?')}",
    ),
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_a_mirror_that_misbehaves_is_left_for_the_next(server, mirrors, cache, monkeypatch, kind):
    monkeypatch.setattr(download, "TIMEOUTS", (0.3, 0.3))
    misbehaving, reason = MISBEHAVIOUR[kind]
    first = server.archive("first", misbehaving)
    mirrors("bsds", first)
    with pytest.raises(DatasetError, match=re.escape(f"{first.url} {reason}")):
        load_bsds("val")
    assert everything(cache) == []

    mirrors("bsds", first, server.archive("second", WHOLE))
    assert len(load_bsds("val")) == 1
    assert everything(cache) == sorted(f"bsds500/{name}" for name in PHOTOGRAPHS)
    assert [len(load_bsds(split)) for split in SPLITS] == [2, 1, 1]
    assert server.gets.count("/second") == 1


def test_a_transfer_that_breaks_off_once_is_repeated(server, mirrors, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    mirrors("mnist", server.folder("mnist", GZIPPED))
    path = "/mnist/t10k-labels-idx1-ubyte.gz"

    def once(handler):
        server.routes[path] = GZIPPED["t10k-labels-idx1-ubyte.gz"]
        halved(server.routes[path])(handler)

    server.routes[path] = once
    assert load_mnist("test")[1].tolist() == [1, 2]
    assert server.gets.count(path) == 2


def test_a_mirror_that_has_moved_is_followed_and_what_it_says_beside_is_not_read(server, mirrors):
    data, written = tgz(inside(PHOTOGRAPHS)), []

    def moved(handler):
        handler.send_response(302)
        handler.send_header("Location", f"{server.url}/new")
        handler.end_headers()
        try:
            for _ in range(2**10):  # a gigabyte
                handler.wfile.write(bytes(2**20))
                written.append(2**20)
        except OSError:
            pass  # the other side has heard enough
        handler.close_connection = True

    server.archive("new", data)
    mirrors("bsds", server.archive("old", moved))
    assert len(load_bsds("val")) == 1
    assert server.gets == ["/old", "/new"]
    assert sum(written) < 2**26


@pytest.mark.parametrize("length", [None, "5000"])
def test_a_file_without_end_is_refused(server, mirrors, monkeypatch, length):
    monkeypatch.setattr(download, "LARGEST_ARCHIVE", 1000)

    def answer(handler):
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(b"\0" * 5000)
        handler.close_connection = True

    mirrors("bsds", server.archive("bsds.tgz", answer))
    with pytest.raises(DatasetError, match=r"/bsds\.tgz sent more than 1000 bytes\n"):
        load_bsds("train")


def test_members_with_hostile_names_and_kinds_are_ignored(server, mirrors, tmp_path):
    mirrors("bsds", server.archive("bsds.tgz", hostile_tgz()))
    load_bsds("val")
    assert everything(tmp_path) == sorted(f"cache/bsds500/{name}" for name in PHOTOGRAPHS)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not Path("/tmp/gmmlib-escaped").exists()


def hostile_tgz():
    def member(name, kind, link=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = 1 if kind == tarfile.REGTYPE else 0
        return info

    return tgz(
        inside(PHOTOGRAPHS),
        member("../escaped", tarfile.REGTYPE),
        member(INSIDE + "../../../../escaped", tarfile.REGTYPE),
        member("/tmp/gmmlib-escaped", tarfile.REGTYPE),
        member(INSIDE + "val/3.jpg", tarfile.SYMTYPE, "/etc/hostname"),
        member(INSIDE + "val", tarfile.SYMTYPE, "/tmp"),
        member(INSIDE + "test/5.jpg", tarfile.LNKTYPE, "../escaped"),
        member(INSIDE + "train/9.jpg", tarfile.CHRTYPE),
        member(INSIDE + "train/10.jpg", tarfile.FIFOTYPE),
    )


def test_an_interrupted_download_leaves_nothing(server, mirrors, cache, monkeypatch):
    mirrors("mnist", server.folder("mnist", GZIPPED))

    def interrupted(self, url, output_file, pooch):
        output_file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_mnist("train")
    assert list(cache.iterdir()) == []
    assert load_mnist("train")[1].tolist() == [7, 0, 9]


KILLED = """
import sys
from pathlib import Path
from gmmlib.data import download
from gmmlib.data.catalogue import DATASETS, Mirror

download.download(DATASETS["mnist"]._replace(mirrors=(Mirror(sys.argv[1]),)), Path(sys.argv[2]))
"""


def test_a_killed_download_leaves_no_file_under_a_final_name(server, mirrors, cache):
    mirror = server.folder("mnist", GZIPPED)
    first, sent, release = "/mnist/t10k-images-idx3-ubyte.gz", threading.Event(), threading.Event()

    def stall(handler):
        handler.send(bytes(2**17), 2**20)
        sent.set()
        release.wait(300)

    server.routes[first] = stall
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, mirror.url, cache], stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert sent.wait(300)
            deadline = time.monotonic() + 300
            while not any(path.stat().st_size for path in cache.rglob("*") if path.is_file()):
                assert time.monotonic() < deadline, "nothing arrived before the kill"
                time.sleep(0.01)
        finally:
            process.kill()
    release.set()
    (left,) = cache.iterdir()
    assert left.name.startswith(".arriving-")

    server.routes[first] = GZIPPED["t10k-images-idx3-ubyte.gz"]
    os.utime(left, (0, 0))  # a day later
    mirrors("mnist", mirror)
    assert load_mnist("train")[1].tolist() == [7, 0, 9]
    assert [path.name for path in cache.iterdir()] == ["mnist"]


def test_two_downloads_at_once_both_end_well(server, mirrors, cache):
    both = threading.Barrier(2, timeout=300)
    data = tgz(inside(PHOTOGRAPHS))

    def together(handler):
        both.wait()
        handler.send(data, len(data))

    mirrors("bsds", server.archive("bsds.tgz", together))
    failures = []

    def run():
        try:
            download.download(DATASETS["bsds"], cache)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert failures == []
    assert len(server.gets) == 2
    assert everything(cache) == sorted(f"bsds500/{name}" for name in PHOTOGRAPHS)


def test_nothing_is_asked_when_another_process_was_quicker(folder):
    download.download(DATASETS["bsds"], folder)  # there is no mirror to ask


def test_a_cache_folder_that_cannot_be_written(mirrors, cache):
    cache.write_text("in the way")
    with pytest.raises(DatasetError) as caught:
        load_mnist("train")
    message = str(caught.value)
    assert message.startswith(f"MNIST cannot be stored in {cache}: ")
    assert message.endswith("or set GMMLIB_DATA to a folder that holds the data")


@pytest.mark.parametrize("error", [system_error("EIO"), system_error("EMFILE"), MemoryError()])
def test_an_archive_that_cannot_be_read_is_not_called_damaged(server, mirrors, cache, monkeypatch, error):
    """Nor is it asked of the next mirror, who cannot help."""
    data = tgz(inside(PHOTOGRAPHS))
    mirrors("bsds", server.archive("first", data), server.archive("second", data))
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(DatasetError) as caught:
        load_bsds("val")
    assert str(caught.value) == (
        f"BSDS500 cannot be stored in {cache}: {catalogue.reason(error)}; make room or allow writing there, "
        "or set GMMLIB_DATA to a folder that holds the data"
    )
    assert server.gets == ["/first"]
    assert everything(cache) == []
