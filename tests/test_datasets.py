"""The data sets: found, downloaded from a server on this machine, verified."""

import builtins
import errno
import gzip
import hashlib
import io
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image

from gmmlib import datasets
from gmmlib.data import catalogue, download, pictures
from gmmlib.data.catalogue import DATASETS, Mirror
from gmmlib.data.datasets import DatasetError, load_bsds, load_mnist

REAL = os.environ.get("GMMLIB_DATA")
SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A machine without data: an empty cache folder, no GMMLIB_DATA, no proxy to this machine."""
    folder = tmp_path / "cache"
    monkeypatch.delenv("GMMLIB_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(catalogue, "cache_folder", lambda: folder)
    monkeypatch.setattr(download, "RETRIES", 0)  # pooch waits a second before it tries again
    return folder


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def idx(values):
    """The idx format, after which the MNIST files are named."""
    values = np.asarray(values, dtype=np.uint8)
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


TRAIN_PIXELS = np.arange(3 * 784).reshape(3, 28, 28) % 256
CONTENT = {
    "train-images-idx3-ubyte.gz": idx(TRAIN_PIXELS),
    "train-labels-idx1-ubyte.gz": idx([7, 0, 9]),
    "t10k-images-idx3-ubyte.gz": idx(TRAIN_PIXELS[:2, ::-1]),
    "t10k-labels-idx1-ubyte.gz": idx([1, 2]),
}
GZIPPED = {name: gzip.compress(data, mtime=0) for name, data in CONTENT.items()}
PHOTOGRAPHS = {f"{name}.jpg": jpeg(i) for i, name in enumerate(["train/9", "train/10", "val/3", "test/5"])}
INSIDE = "BSR/BSDS500/data/images/"


@pytest.fixture
def tiny(monkeypatch):
    """Pin a tiny data set of either kind, without mirrors."""
    mnist = {name: sha256(data) for name, data in CONTENT.items()}
    containers = {name: sha256(data) for name, data in GZIPPED.items()}
    bsds = {name: sha256(data) for name, data in PHOTOGRAPHS.items()}
    for name, changes in {
        "mnist": {"files": mnist, "containers": containers},
        "bsds": {"files": bsds},
    }.items():
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(mirrors=(), **changes))


@pytest.fixture
def mirrors(monkeypatch, tiny):
    """A function that gives a data set other mirrors."""

    def replace(name, *values):
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(mirrors=values))

    return replace


@pytest.fixture
def folder(tmp_path, tiny):
    """The tiny data sets in a folder of the user's."""
    root = tmp_path / "mine"
    for folder, files in (("mnist", GZIPPED), ("bsds500", PHOTOGRAPHS)):
        for name, data in files.items():
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


class Server(ThreadingHTTPServer):
    """Serve `routes`: path -> bytes, or a function of the request handler that answers a GET itself."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.routes = {}
        self.gets = []

    def folder(self, at, files):
        """Serve a folder of files; return the mirror."""
        self.routes.update({f"/{at}/{name}": data for name, data in files.items()})
        return Mirror(f"{self.url}/{at}/")

    def archive(self, name, data):
        self.routes[f"/{name}"] = data
        return Mirror(f"{self.url}/{name}", inside=INSIDE)


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path in self.server.routes else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.gets.append(self.path)
        answer = self.server.routes.get(self.path)
        if answer is None:
            self.send_error(404)
        elif callable(answer):
            answer(self)
        else:
            self.send(answer, len(answer))

    def send(self, data, announced):
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def refusing():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def hanging():
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def halved(data):
    """Announce all of `data`, send half and hang up."""

    def answer(handler):
        handler.send(data[: len(data) // 2], len(data))
        handler.close_connection = True

    return answer


def tgz(files, *others):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for info in others:
            packed.addfile(info, io.BytesIO(b"x" * info.size))
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return file.getvalue()


def inside(files):
    return {INSIDE + name: data for name, data in files.items()}


def everything(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# --- arguments and digests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_mnist("val"), "split: expected one of 'train', 'test', got 'val'"),
        (lambda: load_bsds("all", "sample"), "split: expected one of 'train', 'val', 'test', got 'all'"),
        (lambda: load_mnist("train", "full"), "scale: expected one of 'paper', 'sample', got 'full'"),
        (lambda: load_bsds("train", None), "scale: expected one of 'paper', 'sample', got None"),
        (lambda: datasets.digest("cifar", "paper"), "name: expected one of 'mnist', 'bsds', got 'cifar'"),
        (lambda: datasets.digest("bsds", "big"), "scale: expected one of 'paper', 'sample', got 'big'"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_the_table_of_photographs_is_complete():
    names = list(DATASETS["bsds"].files)
    assert [sum(name.startswith(f"{split}/") for name in names) for split in SPLITS] == [200, 100, 200]
    assert len(set(DATASETS["bsds"].files.values())) == 500


def test_paper_digests_need_no_data_and_follow_the_table(monkeypatch):
    assert (
        datasets.digest("mnist", "paper")
        == "c390bcee1236a2a6211f4d600786a26bf26d9afdb38c41fb1ff4901f9f93343d"
    )
    pinned = "eaae4240cb921a9a77b3a87ade9a6a517588996ac105d7fb25c57c21256f856c"
    assert datasets.digest("bsds", "paper") == pinned
    files = DATASETS["bsds"].files | {"train/100075.jpg": "0" * 64}
    monkeypatch.setitem(DATASETS, "bsds", DATASETS["bsds"]._replace(files=files))
    assert datasets.digest("bsds", "paper") != pinned


# --- a folder of the user's -------------------------------------------------------------------------


def test_paper_loaders_read_the_named_folder(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    images, labels = load_mnist("train")
    assert images.dtype == np.float64
    np.testing.assert_array_equal(images, TRAIN_PIXELS / 255)
    assert labels.dtype == np.int64
    assert labels.tolist() == [7, 0, 9]
    assert load_mnist("test")[1].tolist() == [1, 2]
    first, second = load_bsds("train")  # in the order of their names
    np.testing.assert_array_equal(first, pictures.grey(io.BytesIO(PHOTOGRAPHS["train/10.jpg"])))
    np.testing.assert_array_equal(second, pictures.grey(io.BytesIO(PHOTOGRAPHS["train/9.jpg"])))


def test_the_named_folder_lacks_many_files_though_the_cache_has_them(folder, cache, monkeypatch):
    folder.rename(cache)
    folder.mkdir()
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    with pytest.raises(DatasetError) as caught:
        load_bsds("train")
    assert str(caught.value) == (
        f"GMMLIB_DATA={folder} lacks 4 of the 4 files of BSDS500: bsds500/test/5.jpg, bsds500/train/10.jpg, "
        "bsds500/train/9.jpg and 1 more; add them, or unset GMMLIB_DATA to download the data"
    )


def test_a_named_folder_that_is_none_is_refused(tmp_path, monkeypatch, capsys):
    place = tmp_path / "file"
    place.write_text("in the way")
    said = "is not a folder; point it at one that holds mnist/ and bsds500/, or unset it to download the data"
    for value in (place, place / "below", tmp_path / "nowhere", "~nobody-of-this-name/data"):
        monkeypatch.setenv("GMMLIB_DATA", str(value))
        for command in ("status", "fetch"):
            assert datasets.main([command]) == 1
            assert capsys.readouterr() == ("", f"GMMLIB_DATA={value} {said}\n")


def test_a_file_with_other_content_is_never_used(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    path = folder / "bsds500" / "val" / "3.jpg"
    path.write_bytes(PHOTOGRAPHS["test/5.jpg"])
    with pytest.raises(DatasetError) as caught:
        load_bsds("val")
    assert str(caught.value) == (
        f"{path} is not the BSDS500 file: expected sha256 {sha256(PHOTOGRAPHS['val/3.jpg'])}, "
        f"found {sha256(PHOTOGRAPHS['test/5.jpg'])}; remove it and get it again"
    )
    assert len(load_bsds("test")) == 1


def test_a_damaged_gzip_file_is_never_used(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    path = folder / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError) as caught:
        load_mnist("train")
    assert str(caught.value) == (
        f"{path} is not the MNIST file: it is damaged: Compressed file ended before the end-of-stream "
        "marker was reached; remove it and get it again"
    )


def test_the_same_content_in_another_gzip_container_is_fine(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    name = "train-labels-idx1-ubyte.gz"
    (folder / "mnist" / name).write_bytes(gzip.compress(CONTENT[name], 0, mtime=1))
    assert load_mnist("train")[1].tolist() == [7, 0, 9]


def test_a_gzip_bomb_is_cut_short(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    monkeypatch.setattr(catalogue, "LARGEST", 1000)
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte.gz is not the MNIST file: expected"):
        load_mnist("train")


# --- data that cannot be read: what the system says is told, and nothing against the file ------------


def failing(monkeypatch, module, name, part, error):
    """Let a function fail where its first argument names `part`."""
    real = getattr(module, name)

    def call(path, *arguments, **keywords):
        if part in str(path):
            raise error
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(module, name, call)


def system_error(name):
    code = getattr(errno, name)
    return OSError(code, os.strerror(code))


@contextmanager
def few_files():
    """No more files can be opened than are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as last:
        lowest_free = last.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def unreadable(path, reason):
    return f"{path} cannot be read: {reason}; what it holds may be right: mend that and try again"


@pytest.mark.parametrize("name", ["EACCES", "EMFILE", "EIO"])
@pytest.mark.parametrize(
    ("load", "file"),
    [(load_mnist, "mnist/t10k-images-idx3-ubyte.gz"), (load_bsds, "bsds500/test/5.jpg")],
)
def test_a_file_that_cannot_be_opened_is_not_called_wrong(folder, monkeypatch, load, file, name):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    failing(monkeypatch, builtins, "open", file, system_error(name))
    with pytest.raises(DatasetError) as caught:
        load("test")
    assert str(caught.value) == unreadable(folder / file, os.strerror(getattr(errno, name)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(system_error("EIO"), "Input/output error"), (MemoryError(), "there is not enough memory")],
)
def test_a_file_that_fails_in_the_middle_is_not_called_wrong(folder, monkeypatch, capsys, error, reason):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    monkeypatch.setattr(gzip.GzipFile, "read", lambda *_: (_ for _ in ()).throw(error))
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    with pytest.raises(DatasetError) as caught:
        load_mnist("test")
    assert str(caught.value) == unreadable(path, reason)
    assert datasets.main(["status"]) == 1
    said = capsys.readouterr().out
    assert unreadable(path, reason) in said
    assert "remove" not in said


def test_with_too_many_open_files_nothing_is_called_wrong(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    for load in (load_mnist, load_bsds):
        load("test")  # what is imported late is imported
        with few_files(), pytest.raises(DatasetError) as caught:
            load("test")
        assert re.search(
            r"cannot be read: Too many open files; what it holds may be right", str(caught.value)
        )
        load("test")


def test_a_folder_that_may_not_be_entered_is_told_from_one_that_lacks_files(folder, monkeypatch, capsys):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    failing(monkeypatch, os, "stat", "/mnist/", system_error("EACCES"))
    first = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    for call in (lambda: load_mnist("train"), datasets.fetch, datasets.available):
        with pytest.raises(DatasetError) as caught:
            call()
        assert str(caught.value) == unreadable(first, "Permission denied")
    assert datasets.main(["status"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"data folder: GMMLIB_DATA={folder}",
        "data set       files  verified  where",
        f"MNIST            ?/4  no        {folder}/mnist",
        f"BSDS500          4/4  yes       {folder}/bsds500",
        unreadable(first, "Permission denied"),
    ]


def test_a_cache_folder_that_may_not_be_entered_is_not_downloaded_again(server, mirrors, cache, monkeypatch):
    mirrors("mnist", server.folder("mnist", GZIPPED))
    failing(monkeypatch, os, "stat", f"{cache}/mnist", system_error("EACCES"))
    with pytest.raises(DatasetError, match=r"cannot be read: Permission denied; "):
        load_mnist("train")
    assert server.gets == []


@pytest.mark.skipif(not shutil.which("setpriv") and os.geteuid() == 0, reason="root reads anything")
@pytest.mark.parametrize("place", ["mnist/t10k-images-idx3-ubyte.gz", "mnist"])
def test_real_files_and_folders_without_permission(folder, place):
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    (folder / place).chmod(0)
    run = subprocess.run(
        [*drop, sys.executable, "-m", "gmmlib.data", "status"],
        env=os.environ | {"GMMLIB_DATA": str(folder)},
        capture_output=True,
        text=True,
    )
    (folder / place).chmod(0o755)
    assert (run.returncode, run.stderr) == (1, "")
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    assert unreadable(path, "Permission denied") in run.stdout.splitlines()


def test_a_name_that_no_folder_can_have_is_told_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setenv("GMMLIB_DATA", "/" + "x" * 300)
    assert datasets.main(["status"]) == 1
    assert "cannot be read: File name too long" in capsys.readouterr().err
    monkeypatch.setattr(catalogue, "named_folder", lambda: Path("a\0b"))
    with pytest.raises(DatasetError, match="cannot be read: .*null"):
        load_mnist("test")


def test_a_folder_in_the_place_of_a_file_is_never_called_wrong(server, mirrors, cache):
    path = cache / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.mkdir(parents=True)
    mirrors("mnist", server.folder("mnist", GZIPPED))
    with pytest.raises(DatasetError) as caught:
        load_mnist("test")
    assert str(caught.value) == unreadable(path, "Is a directory")


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


def test_a_machine_that_cannot_ask_does_not_blame_the_mirrors(server, mirrors):
    mirrors("mnist", server.folder("mnist", GZIPPED))
    mirrors("bsds", server.archive("bsds", tgz(inside(PHOTOGRAPHS))))
    datasets.available()
    with few_files():
        ok, reason = datasets.available()
    assert not ok
    assert reason == (
        f"no download: {server.url}/mnist/ failed: Too many open files; "
        f"{server.url}/bsds failed: Too many open files"
    )
    assert datasets.available().ok


# --- downloads --------------------------------------------------------------------------------------


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
    first, page = "t10k-images-idx3-ubyte.gz", b"<!DOCTYPE html><title>Log in</title>"
    mirrors(
        "mnist",
        Mirror(f"{refusing}/"),
        Mirror(f"{hanging}/"),
        Mirror(f"{server.url}/gone/"),
        server.folder("page", {first: page}),
        server.folder("short", {first: halved(GZIPPED[first])}),
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
            f"  {server.url}/short/ failed: IncompleteRead(",
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
    "sends to a file": (answering(302, "file:///etc/hostname"), "failed: No connection adapters were found"),
    "wants a log-in": (b"<html>Log in</html>", "sent no tgz archive; it begins with b'<html>Log"),
    "sends nothing": (b"", "sent no tgz archive; it begins with b''"),
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


# --- availability and the command line --------------------------------------------------------------


def test_available_in_the_named_folder(folder, monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    assert datasets.available() == (
        True,
        f"MNIST found in GMMLIB_DATA={folder}, BSDS500 found in GMMLIB_DATA={folder}",
    )


def test_available_from_cache_and_network(server, mirrors, folder, cache, hanging):
    folder.rename(cache)
    (cache / "bsds500" / "val" / "3.jpg").unlink()
    mirrors("bsds", Mirror(f"{hanging}/bsds.tgz", INSIDE), server.archive("bsds.zip", b"PK"))
    start = time.monotonic()
    assert datasets.available(timeout=300.0) == (
        True,
        f"MNIST found in {cache}, BSDS500 can be downloaded from {server.url}/bsds.zip",
    )
    assert time.monotonic() - start < 100
    assert server.gets == []


def test_available_without_an_answer(mirrors, hanging, refusing):
    mirrors("mnist", Mirror(f"{hanging}/"))
    mirrors("bsds", Mirror(f"{refusing}/bsds.tgz", INSIDE))
    ok, reason = datasets.available(timeout=0.5)
    assert not ok
    assert re.fullmatch(
        f"no download: {hanging}/ (did not answer|failed: timed out); "
        f"{refusing}/bsds.tgz failed: Connection refused",
        reason,
    )


def test_available_when_a_name_look_up_hangs(mirrors, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(300))
    mirrors("mnist", Mirror("http://mirror.invalid/"))
    mirrors("bsds", Mirror("http://mirror.invalid/bsds.tgz", INSIDE))
    before = set(threading.enumerate())
    start = time.monotonic()
    ok, reason = datasets.available(timeout=0.5)
    assert time.monotonic() - start < 100
    hung = set(threading.enumerate()) - before
    release.set()
    assert [thread.daemon for thread in hung] == [True, True]  # or Python could not end
    assert not ok
    assert reason.startswith("no download: http://mirror.invalid/ did not answer; ")


def test_available_when_the_mirror_has_moved(server, mirrors, folder, cache):
    folder.rename(cache)
    (cache / "bsds500" / "val" / "3.jpg").unlink()
    mirrors("bsds", Mirror(f"{server.url}/gone.tgz", INSIDE))
    assert datasets.available() == (False, f"no download: {server.url}/gone.tgz does not have it")


def test_status_of_a_whole_folder(folder, monkeypatch, capsys):
    monkeypatch.setenv("GMMLIB_DATA", str(folder))
    assert datasets.main(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"data folder: GMMLIB_DATA={folder}",
        "data set       files  verified  where",
        f"MNIST            4/4  yes       {folder}/mnist",
        f"BSDS500          4/4  yes       {folder}/bsds500",
    ]


def test_status_of_a_cache_with_gaps(folder, cache, capsys):
    folder.rename(cache)
    for name in GZIPPED:
        (cache / "mnist" / name).unlink()
    (cache / "bsds500" / "val" / "3.jpg").write_bytes(b"")
    assert datasets.main(["status"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"data folder: {cache}",
        "data set       files  verified  where",
        f"MNIST            0/4  -         {cache}/mnist",
        f"BSDS500          4/4  no        {cache}/bsds500",
        "MNIST: 4 files missing, the first t10k-images-idx3-ubyte.gz",
        f"{cache}/bsds500/val/3.jpg is not the BSDS500 file: expected sha256 "
        f"{sha256(PHOTOGRAPHS['val/3.jpg'])}, found {sha256(b'')}; remove it and get it again",
    ]


def test_fetch_command(server, mirrors, capsys):
    mirrors("mnist", server.folder("mnist", GZIPPED))
    mirrors("bsds", server.archive("bsds.tgz", tgz(inside(PHOTOGRAPHS))))
    assert datasets.main(["fetch"]) == 0
    assert capsys.readouterr().out.count("  4/4  yes ") == 2


def test_fetch_command_says_what_went_wrong_without_a_traceback(tmp_path):
    environment = os.environ | {"GMMLIB_DATA": str(tmp_path / "nowhere")}
    run = subprocess.run(
        [sys.executable, "-m", "gmmlib.data", "fetch"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        f"GMMLIB_DATA={tmp_path}/nowhere is not a folder; point it at one that holds mnist/ and bsds500/, "
        "or unset it to download the data\n"
    )


# --- the real thing ---------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="GMMLIB_DATA is not set: the paper-scale data are not checked")
def test_the_paper_scale_data(monkeypatch):
    monkeypatch.setenv("GMMLIB_DATA", REAL)
    images, labels = load_mnist("train")
    assert images.shape == (60000, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert (images.min(), images.max()) == (0.0, 1.0)
    images, labels = load_mnist("test")
    assert images.shape == (10000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    for split, count in zip(SPLITS, (200, 100, 200), strict=True):
        photographs = load_bsds(split)
        assert len(photographs) == count
        assert {image.shape for image in photographs} == {(321, 481), (481, 321)}
