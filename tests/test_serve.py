"""The port at which pages are shown: the wanted one, the next free one, or a line that says why not."""

import contextlib
import errno
import socket
import threading
import urllib.request

import pytest

from tools import book, serve, site


@contextlib.contextmanager
def taken():
    """A port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "index.html").write_text("A book")
    return tmp_path


@contextlib.contextmanager
def answering(listening):
    thread = threading.Thread(target=listening.serve_forever)
    with listening:
        thread.start()
        yield f"http://localhost:{listening.server_port}/"
        listening.shutdown()
    thread.join()


def test_pages_come_from_the_folder(pages, capfd):
    with taken() as free:
        pass
    with answering(serve.listen(free, pages)) as address:
        assert urllib.request.urlopen(address).read() == b"A book"
    assert "Traceback" not in capfd.readouterr().err


def test_a_taken_port_gives_the_next_free_one(pages):
    with taken() as port, answering(serve.listen(port, pages)) as address:
        assert port < int(address.split(":")[2][:-1]) < port + serve.TRIED
        assert urllib.request.urlopen(address).read() == b"A book"


@pytest.mark.parametrize(
    "text", ["", "x", "80 80", "-1", "0", "65536", "8000.0", "8_000", "９０００", "9" * 5000]
)
def test_what_is_no_port_is_refused(text):
    with pytest.raises(serve.NoPort) as caught:
        serve.port(text)
    assert str(caught.value) == f"PORT: expected a number from 1 to 65535, got {text!r}; make serve PORT=8000"


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("8000", 8000), ("65535", 65535), ("0080", 80)])
def test_what_is_a_port_is_taken(text, number):
    assert serve.port(text) == number


def refused(monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "No")

    monkeypatch.setattr(serve, "Server", refuse)
    with pytest.raises(serve.NoPort) as caught:
        serve.listen(65530, "x")
    return str(caught.value)


def test_a_port_that_is_not_allowed(monkeypatch):
    assert refused(monkeypatch, errno.EACCES) == (
        "port 65530 cannot be used: No; another: make serve PORT=8000"
    )


def test_no_free_port_at_all(monkeypatch):
    assert refused(monkeypatch, errno.EADDRINUSE) == (
        "ports 65530 to 65535 are taken by other programs; free one, or make serve PORT=<another>"
    )


def test_the_command_refuses_a_wrong_port_before_it_renders(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site, "render", None)
    assert book.main(["--root", str(tmp_path), "serve", "--port", "many"]) == 1
    assert capsys.readouterr().err == (
        "PORT: expected a number from 1 to 65535, got 'many'; make serve PORT=8000\n"
    )


def test_the_command_says_where_it_shows_them_instead(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site, "render", lambda *_: None)
    monkeypatch.setattr(serve.Server, "serve_forever", lambda self: None)
    with taken() as port:
        assert book.main(["--root", str(tmp_path), "serve", "--port", str(port)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"port {port} is taken by another program; make serve PORT=... chooses one"
    assert second.startswith("at http://localhost:")
    assert second.endswith(", until Ctrl-C")
    assert str(port) not in second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["book", "--scale", "small"], "argument --scale: invalid choice: 'small' (choose from"),
        (["boook"], "argument command: invalid choice: 'boook' (choose from"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        book.main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert line.endswith("(make help lists the commands)")


def test_chapters_that_there_are_not_are_named(tmp_path, capsys):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "one.md").write_text("---\nkernelspec: {name: python3}\n---\n")
    assert book.main(["--root", str(tmp_path), "reproducible", "two"]) == 1
    told = "CHAPTERS: expected names or numbers of chapters, got two; there are one\n"
    assert capsys.readouterr().err == told
