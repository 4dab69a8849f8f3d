"""Products with triangular matrices, by the BLAS and LAPACK that scipy brings.

They do half the work of general products, in place.  scipy's own wrappers of them keep the interpreter
locked, so that chunks could not run side by side; called by address, they do not.

Every function reads and writes the lower triangle of its matrix alone.  So two matrices of one size share
a rectangle one row longer, one in the lower triangle and one, transposed, in the upper: see `allocate`.
"""

import ctypes
from functools import lru_cache

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

ONE = ctypes.byref(ctypes.c_double(1.0))
NOTHING = ctypes.byref(ctypes.c_double(0.0))


# Where scipy keeps a routine for other compiled code: by name, the name being the text of its signature.
_signature = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _routine(module, name, n_arguments):
    """A Fortran routine by address: all its arguments are pointers, to 32-bit integers and doubles."""
    capsule = module.__pyx_capi__[name]
    address = _address_of(capsule, _signature(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(address)


_dgemm = _routine(cython_blas, "dgemm", 13)
_dsyrk = _routine(cython_blas, "dsyrk", 10)
_dtrmm = _routine(cython_blas, "dtrmm", 11)
_dpotrf = _routine(cython_lapack, "dpotrf", 5)
_dtrtri = _routine(cython_lapack, "dtrtri", 6)


def allocate(count, size):
    """Room for triangular matrices (size, size), as the rectangles that `member` looks into."""
    return np.zeros(shape(count, size))


def shape(count, size):
    """Sides of these rectangles."""
    return (count + 1) // 2, size + 1, size


def member(rectangles, k):
    """The k-th matrix; what lies above its diagonal belongs to another."""
    rectangle = rectangles[k // 2]
    return rectangle[:-1].T if k % 2 else rectangle[1:]


def add_gram(matrix, rows, fresh=False):
    """matrix += rows' rows, (D, D) from (n, D); with `fresh`, what was there before is forgotten."""
    uplo, _, order = _form(matrix)
    n_rows, size = rows.shape
    _dsyrk(
        uplo, b"N", _integer(size), _integer(n_rows), ONE, *_address(rows), NOTHING if fresh else ONE,
        matrix.ctypes.data, order,
    )  # fmt: skip


def cholesky(matrix):
    """matrix <- its Cholesky factor; numpy.linalg.LinAlgError if it is not positive definite."""
    uplo, _, order = _form(matrix)
    info = ctypes.c_int()
    _dpotrf(uplo, _integer(len(matrix)), matrix.ctypes.data, order, ctypes.byref(info))
    if info.value or not np.isfinite(matrix.diagonal()).all():
        raise np.linalg.LinAlgError("the matrix is not positive definite")


def invert(matrix):
    """matrix <- its inverse, of a lower triangular matrix without a zero on its diagonal."""
    uplo, _, order = _form(matrix)
    info = ctypes.c_int()
    _dtrtri(uplo, b"N", _integer(len(matrix)), matrix.ctypes.data, order, ctypes.byref(info))


def multiply(matrix, rows):
    """rows <- rows matrix', (n, D), for a lower triangular matrix (D, D)."""
    uplo, transposed, order = _form(matrix)
    n_rows, size = rows.shape
    _dtrmm(
        b"L", uplo, transposed, b"N", _integer(size), _integer(n_rows), ONE, matrix.ctypes.data, order,
        *_address(rows),
    )  # fmt: skip


def add_product(out, rows, block):
    """out += rows block', (n, d) from (n, D) and (d, D), for a block of any member."""
    (n_rows, width), depth = out.shape, rows.shape[1]
    transposed = b"T" if block.strides[1] == block.itemsize else b"N"
    order = max(block.strides) // block.itemsize
    _dgemm(
        transposed, b"N", _integer(width), _integer(n_rows), _integer(depth), ONE, block.ctypes.data,
        _integer(order), *_address(rows), ONE, *_address(out),
    )  # fmt: skip


@lru_cache
def _integer(value):
    return ctypes.byref(ctypes.c_int(value))


def _address(rows):
    """Where rows of numbers lie and how far apart they start, as Fortran sees them: columns."""
    return rows.ctypes.data, _integer(max(rows.strides[0] // rows.itemsize, 1))


def _form(matrix):
    """How Fortran sees a lower triangle: which one it is, how to transpose it back, its leading dimension."""
    if matrix.strides[1] == matrix.itemsize:
        return b"U", b"T", _integer(max(matrix.strides[0] // matrix.itemsize, 1))
    return b"L", b"N", _integer(max(matrix.strides[1] // matrix.itemsize, 1))
