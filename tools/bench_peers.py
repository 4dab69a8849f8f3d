"""Mixtures of other packages beside the library's: the same data, start and number of EM iterations.

`make peers` installs the packages into a folder of their own; one that is missing or fails has a row that
says why. What is timed are the iterations alone, not the start, the Fourier transform or the compilation.
"""

import ctypes
import importlib
import json
import os
import platform
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from gmmlib import ConvolutionalGMM, patches
from gmmlib.em.algorithm import Algorithm
from gmmlib.kmeans import kmeans
from gmmlib.spectrum import fold, full_plane, unfold
from gmmlib.stationary import steps
from tools import bench_convolutional, bench_data, bench_full
from tools.project import REPOSITORY

N_PATCHES, ITERATIONS, ROUNDS = 20_000, 5, 5
RIDGE = 1e-5
FOLDER = REPOSITORY / "_build" / "peers"  # where make leaves what pip complains of


class Peer(NamedTuple):
    """One line of the table: times and memory of an alternating pair, medians of all pairs."""

    what: str
    theirs: float  # seconds an iteration
    ours: float
    least: float  # ratio of these seconds, pair by pair
    ratio: float
    most: float
    their_cpu: float  # CPU seconds an iteration, of all threads
    our_cpu: float
    their_memory: float  # peak beyond what the process held before, bytes
    our_memory: float
    agreement: str

    def __str__(self):
        ratios = f"{self.least:>7.2f} {self.ratio:>7.2f} {self.most:>7.2f}"
        cpu = f"{self.their_cpu:>8.3g} {self.our_cpu:>8.3g}"
        memory = f"{self.their_memory / 1e6:>7.0f} {self.our_memory / 1e6:>7.0f}"
        seconds = f"{self.theirs:>8.3g} {self.ours:>8.3g}"
        return f"{self.what:<62} {seconds} {ratios} {cpu} {memory}   {self.agreement}"


class Absent(NamedTuple):
    """The line of a peer that could not be timed."""

    what: str
    reason: str

    def __str__(self):
        return f"{self.what:<62} not timed: {self.reason}"


class Lap(NamedTuple):
    """What some iterations took, and where they led."""

    seconds: float
    cpu: float
    memory: float
    log_likelihood: float  # a sample, nats


def resident(key):
    """Memory of this process, bytes: "VmRSS" now, "VmHWM" at its peak; nan where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        return np.nan


def forget_peak():
    """Let the peak of the memory count from now, where the system can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would be used first, and not be seen
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError, TypeError):
        pass


def lap(start):
    """Run the iterations that ``start()`` prepares; preparing them is not timed."""
    iterations = start()
    forget_peak()
    held, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    log_likelihood = iterations()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Lap(wall, cpu, resident("VmHWM") - held, float(log_likelihood))


def race(what, theirs, ours, more="", warm_up=True):
    """Their iterations and ours in turn, always from the start, after one run of each that does not count.

    `theirs` and `ours` prepare a run: a function that makes the iterations and returns the last
    log-likelihood. `more` is said of the agreement beside it. Without `warm_up` their first run counts:
    nothing compiles in it.
    """
    lap(ours)
    if warm_up:
        lap(theirs)
    laps = np.array([(lap(theirs), lap(ours)) for _ in range(ROUNDS)])  # (rounds, 2, a Lap)
    (seconds, our_seconds), (cpu, our_cpu), (memory, our_memory), (reached, we_reached) = np.median(
        laps, axis=0
    ).T
    ratios = laps[:, 0, 0] / laps[:, 1, 0]
    apart = abs(reached - we_reached) / abs(we_reached)
    return Peer(
        what,
        seconds / ITERATIONS,
        our_seconds / ITERATIONS,
        ratios.min(),
        np.median(ratios),
        ratios.max(),
        cpu / ITERATIONS,
        our_cpu / ITERATIONS,
        memory,
        our_memory,
        f"log-likelihoods {we_reached:.6f}, {apart:.0e} apart{more}",
    )


def attempt(package, what, *timing):
    """The row that ``timing[0](name, *timing[1:])`` makes, or one that says why there is none.

    Its name begins with the package and its version.
    """
    try:
        name = f"{package} {metadata.version(package)} {what}"
    except metadata.PackageNotFoundError:
        return Absent(f"{package} {what}", complaint(package))
    function, *arguments = timing
    try:
        return function(name, *arguments)
    # Whatever goes wrong in another's code is for its row to say; the other rows go on.
    except Exception as error:
        return Absent(name, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def complaint(package):
    """Why a package is not installed: the last error of pip, if it was tried."""
    try:
        lines = (FOLDER / f"{package}.log").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    errors = [line for line in lines if line.startswith("ERROR")]
    return "not installed" + (f" ({errors[-1]})" if errors else "")


def iterated(step):
    """Call ``step()``, an object with the log-likelihood of its last E-step, for each iteration."""

    def iterations():
        for _ in range(ITERATIONS):
            step()
        return step.log_likelihood

    return iterations


def ours_full(X, labels, n_components):
    """Prepare our iterations of full covariances."""
    return lambda: iterated(bench_full.Ours(X, labels, n_components, RIDGE))


def scikit_learn(name, X, labels, n_components, dtype):
    """Scikit-learn's full covariances."""

    def theirs():
        return iterated(bench_full.Theirs(X.astype(dtype), labels, n_components, RIDGE))

    return race(name, theirs, ours_full(X, labels, n_components), warm_up=False)


def gmmx(name, X, labels, n_components, dtype):
    """The full covariances of gmmx, whose iterations are one compiled loop."""
    jax, package = importlib.import_module("jax"), importlib.import_module("gmmx")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        data = jax.numpy.asarray(X, dtype=dtype)
        resp = jax.nn.one_hot(labels, n_components, dtype=dtype)[:, :, None, None]
        start = package.GaussianMixtureModelJax.from_responsibilities(data[:, None, :, None], resp, RIDGE)
        fitter = package.EMFitter(max_iter=ITERATIONS, tol=0.0, reg_covar=RIDGE)

        def iterations():
            return float(fitter.fit(data, start).log_likelihood)  # a number has been waited for

        return race(name, lambda: iterations, ours_full(X, labels, n_components))
    finally:
        jax.config.update("jax_enable_x64", before)


def cplx_gmm(name, X, n_components):
    """The block-circulant covariances of cplx-gmm beside ours.

    Its density is that of complex images. On real ones it is, up to a constant, the square of ours: each
    frequency counts twice, and with multiplicities doubled our iterations are the same computation.
    """
    package = importlib.import_module("cplx_gmm")
    shape, weight = X.shape[1:], np.ones(len(X))
    n_dimensions = X[0].size
    layout = fold(shape)
    doubled = layout._replace(multiplicity=2 * layout.multiplicity)
    P = bench_convolutional.all_powers(X, layout)
    # Theirs adds a ridge and ours has a floor, which are not the same: neither has any here.
    start = steps.random_start(P, layout.multiplicity, n_components, weight, 0.0, np.random.default_rng(0))
    model = ConvolutionalGMM(n_components, variance_floor=0.0)

    def plane(spectra):
        whole = np.fft.ifftshift(full_plane(unfold(spectra, layout), shape), axes=(-2, -1))
        return whole.reshape(len(spectra), -1)

    learned = {}

    def ours():
        def iterations():
            parameters = start
            with model._workers(layout) as workers:
                for _ in range(ITERATIONS):
                    algorithm = Algorithm("em", len(X), None)
                    total, reached = model._e_step(parameters, P, weight, doubled, workers, algorithm)
                    parameters = model._m_step(total)
            learned["spectra"] = plane(parameters.spectra)
            return reached + n_dimensions * np.log(2)

        return iterations

    peer = package.GaussianMixtureCplx(
        n_components,
        covariance_type="block-circulant",
        blocks=shape,
        zero_mean=True,
        reg_covar=0.0,
        tol=0.0,
        max_iter=ITERATIONS,
        init_params="random",  # it makes a start of its own even where one is given
        weights_init=start.weights,
        means_init=np.zeros((n_components, n_dimensions)),
        precisions_init=1 / plane(start.spectra),
        random_state=0,
    )
    # The whole fit, by which the spectra are compared; its end, dense covariances, is no part of EM.
    peer.fit(X.reshape(len(X), -1))
    fitted = peer.covariances_fft2_.real
    Z = (np.fft.fft2(X) / np.sqrt(n_dimensions)).reshape(len(X), -1)

    def theirs():
        peer._em_covariance_type = "diag"  # as `fit` sets it for its iterations
        peer.weights_, peer.means_ = peer.weights_init, peer.means_init
        peer.precisions_cholesky_ = np.sqrt(peer.precisions_init)

        def iterations():
            for _ in range(ITERATIONS):
                reached, log_resp = peer._e_step(Z)
                peer._m_step(Z, log_resp)
            return reached

        return iterations

    ours()()
    apart = np.abs(fitted / learned["spectra"] - 1).max()
    return race(name, theirs, ours, more=f"; spectra of its fit {apart:.0e} apart")


def same_cores():
    """Keep to as many cores as BLAS has threads: JAX has a thread for each core that it may use."""
    threads = max((library["num_threads"] for library in threadpool_info()), default=1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads


def rows():
    """Each row of the table."""
    photographs = bench_data.photographs()
    small, _ = patches.sample_patches(photographs, 8, N_PATCHES, 0)
    X = patches.remove_mean(small).reshape(N_PATCHES, -1)
    for n_components in (32, 100):
        labels = kmeans(X, n_components, 0).labels
        for package, timing in (("scikit-learn", scikit_learn), ("gmmx", gmmx)):
            for dtype in ("float64", "float32"):
                what = f"full, {dtype}, {len(X):,} x {X.shape[1]}, K = {n_components}"
                yield attempt(package, what, timing, X, labels, n_components, dtype)
    # With their means: without, the zero frequency has no variance.
    large, _ = patches.sample_patches(photographs, 16, N_PATCHES, 0, min_std=0.04)
    what = f"block-circulant, {len(large):,} x 16 x 16, K = 32"
    yield attempt("cplx-gmm", what, cplx_gmm, large, 32)


def main():
    """Print the table and store it as JSON."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations converge to nothing
    print(f"{platform.processor() or platform.machine()}, cores used: {same_cores()}")
    print(f"their seconds of an EM iteration / ours, {ITERATIONS} iterations from one start, {ROUNDS} pairs")
    heads = f"{'':<62} {'theirs':>8} {'ours':>8} {'least':>7} {'ratio':>7} {'most':>7}"
    print(f"{heads} {'CPU':>8} {'ours':>8} {'MB':>7} {'ours':>7}")
    table = []
    for row in rows():
        table.append(row)
        print(row, flush=True)
    target = REPOSITORY / "_build" / "peers.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([row._asdict() for row in table], indent=1) + "\n", encoding="utf-8")
    print(f"stored in {target.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
