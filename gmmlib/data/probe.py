"""Ask mirrors whether they answer, and put what goes wrong with them into words."""

import errno
import os
import time
from concurrent.futures import Future, as_completed
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

import requests

# A gzip file must arrive as it lies on the server, not unpacked on the way.
HEADERS = {"Accept-Encoding": "identity"}
# What this machine lacks to ask anybody; other errors of a connection are the mirror's, or the network's.
LACKING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EACCES, errno.EPERM}


class Answer(NamedTuple):
    """What a mirror says to a HEAD request."""

    status: int | None  # None: there was no answer
    reason: str  # empty if all is well


def ask(url, timeout):
    """Send a HEAD request from a thread of its own; return the Future of the Answer.

    A name look-up can hang for longer than any timeout of `requests`, so the caller sets the
    deadline, and the daemon thread does not keep the program alive.
    """
    future = Future()

    def run():
        try:
            reply = requests.head(url, timeout=timeout, allow_redirects=True, headers=HEADERS)
            future.set_result(Answer(reply.status_code, "" if reply.ok else _status(reply)))
        except OSError as error:  # those of requests are, too
            future.set_result(Answer(None, reason(error, timeout)))
        except Exception as error:  # a name that cannot be encoded, say; the caller must not wait for it
            future.set_result(Answer(None, str(error)))

    Thread(target=run, daemon=True).start()
    return future


def answer(future, deadline, timeout):
    """The Answer, or a note that none came before `deadline` on the monotonic clock."""
    try:
        return future.result(timeout=max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return Answer(None, f"did not answer within {timeout:g} s")


def await_one(futures, deadline):
    """Wait until a mirror has answered well, all have failed, or the time is up."""
    with suppress(TimeoutError):
        for future in as_completed(futures, timeout=max(0.0, deadline - time.monotonic())):
            if not future.result().reason:
                return


def first_url(dataset, mirror):
    """The address that stands for a mirror in a probe: its archive, or the first of its files."""
    return mirror.url if mirror.inside is not None else mirror.url + min(dataset.files)


def _status(reply):
    return f"answered {reply.status_code} {reply.reason}".rstrip()


def reason(error, timeout):
    """What went wrong, in words that follow the address."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in LACKING:
            return f"could not be asked by this machine: {os.strerror(cause.errno)}"
    if isinstance(error, requests.HTTPError):
        return _status(error.response)
    if isinstance(error, requests.Timeout):
        return f"did not answer within {timeout:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"has no certificate that this machine accepts: {error}"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"could not be reached through the proxy: {error}"
    if isinstance(error, requests.ConnectionError):
        return "could not be reached"
    return f"failed: {error}"


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
