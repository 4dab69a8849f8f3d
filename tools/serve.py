"""Show a folder of pages to the browsers of this machine."""

import errno
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
LAST = 65535
TRIED = 100  # ports, from the wanted one upwards


class NoPort(Exception):
    """Pages cannot be shown at a port; the text says why."""


class Server(ThreadingHTTPServer):
    """A server that leaves it alone when a browser goes away in the middle of an answer."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def port(text):
    """The number of a port as a person writes it.

    Raises
    ------
    NoPort
    """
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LAST:
        return int(text[:9])
    raise NoPort(f"PORT: expected a number from 1 to {LAST}, got {text!r}; make serve PORT={PORT}")


def listen(wanted, folder):
    """A server at the wanted port of this machine or, if another program has it, at the next free one.

    It answers from `folder`, which need not be there yet, once its `serve_forever` runs.

    Raises
    ------
    NoPort
    """
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    tried = range(wanted, min(wanted + TRIED, LAST + 1))
    for number in tried:
        try:
            return Server(("127.0.0.1", number), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise NoPort(
                    f"port {number} cannot be used: {error.strerror}; another: make serve PORT={PORT}"
                ) from error
    raise NoPort(
        f"ports {wanted} to {tried[-1]} are taken by other programs; free one, or make serve PORT=<another>"
    )
