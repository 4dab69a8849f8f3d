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
import pytest
from PIL import Image

from gmmlib import datasets
from gmmlib.data import catalogue, download, pictures
from gmmlib.data.catalogue import DATASETS, Mirror
from gmmlib.data.datasets import DatasetError, load_bsd68, load_bsds, load_mnist

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
    """No file can be opened: those below 3 are open, and stay so, whatever other threads close meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
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
    levels = [np.rint(image * 255).astype(np.uint8) for image in load_bsd68()]
    digest = hashlib.sha256(b"".join(level.tobytes() for level in levels)).hexdigest()
    assert digest == "0e36a36b7d12f59571dbc5b578799a0ac41f107379e494de819b7ca54115c3cd"
