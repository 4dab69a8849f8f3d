"""Run the sample-scale book again under other circumstances, and compare every digit with the first run.

The circumstances are those in which machines differ and results should not: the kernels that OpenBLAS
picks for a processor, the loops that numpy and the C library pick, the processor that numba compiles for,
the number of threads, the rows handled at a time, whether compiled code comes from the cache, and nothing
at all.  What this machine cannot try is left out, and said.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from numpy._core import _multiarray_umath as umath

from tools import colophon, figures, kernels, moved, notebooks, provenance, run, site

EPOCH = "1000000000"  # any moment: without a clock, equal runs are equal in every byte
BLAS = ("Haswell", "SkylakeX", "Zen", "Nehalem")  # the last has neither AVX nor FMA
C_FEATURES = ("AVX", "AVX2", "AVX512F", "FMA", "FMA4", "AVX2_Usable", "FMA_Usable")  # by old and new names
# Every model hands its rows out in chunks through one class.
OTHER_CHUNKS = (
    "from gmmlib.em.workers import Workers as W; W.__init__ = lambda self, size, block, old=W.__init__: "
    "old(self, 3 * size, block); del W"
)


class Circumstance(NamedTuple):
    """Under which a run should give the same digits."""

    variables: dict  # of the environment
    first: str = ""  # a line of code before each chapter


def circumstances(threads=2):
    """Each circumstance by name, and in words what this machine cannot try."""
    found = {
        "first run": {},
        "again": {},
        "1 thread": dict.fromkeys(kernels.THREADS, "1"),
        f"{threads} threads": dict.fromkeys(kernels.THREADS, str(threads)),
    }
    left_out = []
    for kernel in BLAS:
        if multiplies(variables := {"OPENBLAS_CORETYPE": kernel}):
            found[kernel] = variables
        else:
            left_out.append(f"{kernel}: OpenBLAS has no such kernel that runs on this processor")
    found["no cached code"] = {"NUMBA_CACHE_DIR": tempfile.mkdtemp(prefix="gmmlib-numba-")}
    plain = {
        "plain C library": plain_c_library(),
        "plain numpy": plain_numpy(),
        "plain numba": plain_numba(),
        "plain BLAS": found.get(BLAS[-1], f"left out, as {BLAS[-1]} is"),
    }
    together = {}
    for name, variables in plain.items():
        if isinstance(variables, str):
            left_out.append(f"{name}: {variables}")
        else:
            together |= variables
    found |= {name: plain[name] for name in list(plain)[:-1] if not isinstance(plain[name], str)}
    everything = {name: Circumstance(variables) for name, variables in found.items()}
    everything["all plain"] = Circumstance(together)
    everything["other chunks"] = Circumstance({}, OTHER_CHUNKS)
    everything["all plain, other chunks"] = Circumstance(together, OTHER_CHUNKS)
    return everything, left_out


def plain_c_library():
    """Variables that leave the C library's mathematics without FMA and AVX2, or why there are none."""
    if platform.libc_ver()[0] != "glibc" or platform.machine() not in ("x86_64", "AMD64"):
        return "only glibc on x86 has other mathematics to choose from"
    return {"GLIBC_TUNABLES": f"glibc.cpu.hwcaps={','.join(f'-{name}' for name in C_FEATURES)}"}


def plain_numpy():
    """Variables that leave numpy without its wide loops, or why there are none."""
    chosen = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    if not chosen:
        return "numpy has no loops for this processor beside its plain ones"
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(chosen)}


def plain_numba():
    """Variables that let numba compile for any processor of this kind, into a cache of its own."""
    return {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": tempfile.mkdtemp(prefix="gmmlib-numba-")}


def multiplies(variables):
    """Whether a process with these variables can multiply: one with instructions unknown here is killed."""
    command = [sys.executable, "-c", "import numpy as np; np.ones((99, 99)) @ np.ones((99, 99))"]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode == 0


@contextmanager
def surroundings(variables):
    """Environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(variables, SOURCE_DATE_EPOCH=EPOCH)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def differences(nb, reference, source):
    """What differs between two runs of a chapter, rows for each cell in which something does.

    Measured times are left out.
    """
    found = []
    pairs = zip(notebooks.code_cells(nb), notebooks.code_cells(reference), strict=True)
    for cell, expected in pairs:
        rows = moved.rows(reference, expected, source, cell.outputs)
        faults = figures.figure_faults(cell.outputs, expected.outputs)
        place = moved.place(reference, expected, source)
        rows += [moved.Row(*place, "figures", fault) for fault in faults]
        if rows:
            found.append(rows)
    return found


def run_book(project, sources, circumstance, folder):
    """Run chapters at the sample scale under a circumstance; {stem: notebook}, also stored."""
    parameters = provenance.parameters("sample")

    def one(source):
        nb = notebooks.convert(source)
        nb = run.execute(nb, project.book, parameters, project.library, circumstance.first)
        notebooks.write(nb, folder / f"{source.stem}.ipynb")
        return source.stem, nb

    with (
        surroundings(circumstance.variables),
        kernels.plain_settings(run.AT_ONCE, project.root),
        ThreadPoolExecutor(run.AT_ONCE) as pool,
    ):
        return dict(pool.map(one, sources))


def check(project, sources):
    """Print a table of all circumstances; True if nothing moved anywhere in these chapters."""
    references = project.references("sample")
    whole = len(sources) == len(notebooks.chapters(project.book))
    sources = sorted(
        sources, key=lambda path: run.expected_seconds(references / f"{path.stem}.ipynb"), reverse=True
    )
    first, rows, tables = None, [], []
    everything, left_out = circumstances()
    print("".join(f"left out: {line}\n" for line in left_out), end="", flush=True)
    for name, circumstance in everything.items():
        start = time.monotonic()
        folder = project.build("reproducible") / name.replace(" ", "_")
        runs = run_book(project, sources, circumstance, folder)
        first = first or runs
        found = []
        for source in sorted(sources):
            found += differences(runs[source.stem], first[source.stem], source)
        same_bytes = sum(
            notebooks.to_bytes(nb) == notebooks.to_bytes(first[stem]) for stem, nb in runs.items()
        )
        rows.append((name, len(found), same_bytes, time.monotonic() - start))
        print(f"{name}: {len(found)} cells differ, {rows[-1][3]:.0f} s", flush=True)
        if found:
            tables.append(f"\n{name}\n{moved.table(sum(found, []))}")
    print(table(rows, len(sources)), *tables, sep="\n")
    return not tables and rows[1][2] == len(sources) and (not whole or same_pages(project))


def same_pages(project):
    """Whether the first run and the second give the same pages, byte for byte; says which do not."""
    contents = []
    with surroundings({}):
        for name in ("first_run", "again"):
            folder = project.build("reproducible") / name
            page = site.render(project, recorded(project, folder), f"reproducible/{name}_pages", "sample")
            contents.append(provenance.file_digests(page.parent, "*"))
    first, second = contents
    other = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    print(f"{len(first)} files of pages, {len(other)} differ between two runs", *other)
    return not other


def recorded(project, folder):
    """The runs in a folder with the record that pages show, as `make book` writes it; in a new folder."""
    target = folder.with_name(f"{folder.name}_recorded")
    for source in notebooks.chapters(project.book):
        nb = notebooks.read(folder / f"{source.stem}.ipynb")
        made_from = provenance.key(project, source, "sample")
        provenance.record(nb, made_from, colophon.occasion(project.root, 0))
        notebooks.write(nb, target / f"{source.stem}.ipynb")
    return target


def table(rows, count):
    """Circumstance, cells with another digit or figure, and notebooks that agree in every byte."""
    lines = [
        f"{'circumstance':24s}{'cells that differ':>18s}{'notebooks equal in every byte':>31s}{'seconds':>9s}"
    ]
    for name, cells, same, seconds in rows:
        lines.append(f"{name:24s}{cells:18d}{f'{same} of {count}':>31s}{seconds:9.0f}")
    return "\n".join(lines)
