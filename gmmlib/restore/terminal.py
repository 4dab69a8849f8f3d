"""What the command line says, whatever is in the names of files and wherever it goes."""

import sys
import unicodedata


def line(text):
    """A text in one line: what a terminal would not show as a letter is written out."""
    return "".join(
        repr(letter)[1:-1] if unicodedata.category(letter)[0] == "C" else letter for letter in text
    )


def say(text, stream=None, as_is=False):
    """Print a text, in one line unless it is to be printed as it is; by default on standard output."""
    stream = sys.stdout if stream is None else stream
    text = text if as_is else line(text)
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
