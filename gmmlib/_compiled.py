"""How the kernels are compiled, and how compiled code is kept from one process to the next.

numba keeps it in files and trusts whatever stands there: an emptied file ends the first call with an
EOFError, and changed machine code would be run.  Here each file ends in a digest of what stands before it.
What is damaged, unreadable or missing counts as never kept, and the source, which is at hand, is compiled
again; where nothing can be written, nothing is kept.  All this happens once for each kernel and
signature; a call costs what it did.
"""

import contextlib
import hashlib
import io

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

LENGTH = hashlib.sha256().digest_size


class SealedFiles(IndexDataCacheFile):
    """Index and data files that end in a digest; unpickling stops before it."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath):
        content = io.BytesIO()
        yield content
        with super()._open_for_write(filepath) as file:
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _load_index(self):
        return super()._load_index() if is_whole(self._index_path) else {}

    def _load_data(self, name):
        if not is_whole(self._data_path(name)):
            raise OSError("damaged")  # what numba takes for a file that was removed
        return super()._load_data(name)


def is_whole(path):
    """Whether a file can be read and ends in the digest of what stands before it."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return False
    return hashlib.sha256(content[:-LENGTH]).digest() == content[-LENGTH:]


class KeptCode(FunctionCache):
    """The compiled forms of one function on the disk."""

    def __init__(self, function):
        super().__init__(function)
        files = self._cache_file
        self._cache_file = SealedFiles(self._cache_path, self._impl.filename_base, files._source_stamp)

    def load_overload(self, sig, target_context):
        try:
            kept = super().load_overload(sig, target_context)
        except Exception:  # whatever is wrong with it, it can be compiled again
            return None
        # Processes that compile at the same time can give two signatures one file.
        return kept if kept is not None and kept.signature.args == tuple(sig) else None

    def save_overload(self, sig, data):
        with contextlib.suppress(OSError):  # no room, or no permission: the next process compiles, too
            super().save_overload(sig, data)


def compiled(function):
    """Compile a kernel for the types it is called with, to code that releases the interpreter lock."""
    kernel = njit(nogil=True, error_model="numpy")(function)
    if kernel is not function:  # NUMBA_DISABLE_JIT leaves it as it is
        with contextlib.suppress(RuntimeError):  # no folder that can be written to
            kernel._cache = KeptCode(function)
    return kernel
