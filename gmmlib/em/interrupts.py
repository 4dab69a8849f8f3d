"""Ctrl-C between two steps of a fit, not inside one."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def deferred():
    """Note the first SIGINT, and let the second raise; yields a function that says whether one came."""
    # Where Python would not raise KeyboardInterrupt (outside the main thread, or under a handler of somebody
    # else's) nothing is changed.
    came = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came.is_set
        return

    def note(number, frame):
        came.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
