"""Model files that are damaged, or made to do harm: refused, or a model; nothing else ever happens."""

import importlib
import io
import json
import os
import pickle
import pkgutil
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

import gmmlib
from gmmlib.base import Stored
from gmmlib.compose.classify import GenerativeClassifier
from gmmlib.compose.convolutional_stack import ConvolutionalStack
from gmmlib.compose.patch_layer import PatchLayer
from gmmlib.compose.stack import StackedGMM
from gmmlib.compose.tree import TreeGMM
from gmmlib.full.estimator import FullGMM
from gmmlib.stationary.convolutional import ConvolutionalGMM
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM
from gmmlib.storage import ModelFileError

SHORT, LONG = 65, 2000  # cases a class
MEMORY = 2**20  # bytes that a load may take beyond FACTOR times the file
FACTOR = 30  # small parts of a damaged archive become objects of Python
SECONDS = 2.0  # of computing, for one file

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((40, 4, 5))
ROWS = RNG.standard_normal((40, 3))
LABELS = np.arange(40) % 2
MODELS = {
    "ConvolutionalGMM": lambda: ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0).fit(IMAGES),
    "ConvolutionalStack": lambda: ConvolutionalStack(
        [PatchLayer(ConvolutionalGMM(3, max_iter=2, tol=0.0), side=3)],
        FullGMM(2, max_iter=2),
        n_axes=3,
        random_state=0,
    ).fit(IMAGES),
    "FullGMM": lambda: FullGMM(2, max_iter=2, random_state=0).fit(ROWS),
    "StackedGMM": lambda: StackedGMM(
        [ConvolutionalGMM(3, max_iter=2, random_state=0, tol=0.0), FullGMM(2, max_iter=2, random_state=0)]
    ).fit(IMAGES),
    "GenerativeClassifier": lambda: GenerativeClassifier(FullGMM(1, max_iter=2, random_state=0)).fit(
        ROWS, LABELS
    ),
    "DiscriminativeGMM": lambda: DiscriminativeGMM(1, max_iter=2, random_state=0).fit(IMAGES, LABELS),
    "HierarchicalGMM": lambda: HierarchicalGMM(2, 2, max_iter=2, random_state=0, tol=0.0).fit(
        IMAGES.reshape(10, 4, 4, 5)
    ),
    "PenalisedGMM": lambda: PenalisedGMM(2, max_iter=2, random_state=0, tol=0.0).fit(IMAGES),
    "PhaseBlindGMM": lambda: PhaseBlindGMM(1, max_iter=2, random_state=0).fit(IMAGES),
    "TransformedGMM": lambda: TransformedGMM(2, max_iter=2, random_state=0, tol=0.0).fit(IMAGES),
    "TreeGMM": lambda: TreeGMM(
        ConvolutionalGMM(2, max_iter=2, random_state=0, tol=0.0),
        [(1, 1, 3), (1, 5, 2)],
        max_iter=2,
        tol=0.0,
        random_state=0,
    ).fit(IMAGES),
}


def classes_with_load():
    for module in pkgutil.walk_packages(gmmlib.__path__, "gmmlib."):
        for name, value in vars(importlib.import_module(module.name)).items():
            own = isinstance(value, type) and value.__module__ == module.name
            if own and issubclass(value, Stored) and module.name != Stored.__module__:
                yield name, value


CLASSES = dict(classes_with_load())


def test_every_class_that_loads_is_tried():
    assert CLASSES.keys() == MODELS.keys()


class Trap:
    """Its pickle makes a folder beside the model when it is read."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder + "/sprung",)


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """A class, the bytes of a file of it, and what is in it."""
    path = tmp_path_factory.mktemp("fuzz") / "model.npz"
    MODELS[request.param]().save(path)
    with np.load(path) as file:
        contents = dict(file)
    return CLASSES[request.param], path.read_bytes(), contents


# --- damage to bytes --------------------------------------------------------------------------------


def random_bytes(rng, whole, contents):
    start = [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", whole[: rng.integers(200)]][rng.integers(4)]
    end = [b"", whole[-int(rng.integers(1, 200)) :]][rng.integers(2)]
    return start + rng.bytes(int(rng.integers(3000))) + end


def truncated(rng, whole, contents):
    return whole[: rng.integers(len(whole))]


def bits_flipped(rng, whole, contents):
    damaged = bytearray(whole)
    for place in rng.integers(len(whole), size=rng.integers(1, 9)):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def directory_damaged(rng, whole, contents):
    """Sizes, offsets, flags and methods stand in the directory at the end, which has no checksum."""
    damaged = bytearray(whole)
    begins = whole.index(b"PK\x01\x02")
    for place in rng.integers(begins, len(whole), size=rng.integers(1, 5)):
        damaged[place] = rng.choice([0, 1, 8, 12, 14, 0x7F, 0xFF])
    return bytes(damaged)


def spliced(rng, whole, contents):
    a, b, c = sorted(rng.integers(len(whole), size=3).tolist())
    return [whole[:a] + whole[b:], whole[:b] + whole[a:], whole[:a] + whole[b:c] + whole[a:b] + whole[c:]][
        rng.integers(3)
    ]


# --- archives that are whole, with harmful contents -------------------------------------------------


def packed(members, method=zipfile.ZIP_STORED):
    """A zip archive of (name, bytes), which may repeat names."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # names that are there twice
        for name, data in members:
            archive.writestr(name + ".npy", data)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def lying(description, data=b"", version=1):
    """An npy file whose header is a text of ours."""
    text = description.encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def encoded(contents):
    return {name: npy(array) for name, array in contents.items()}


def arrays_of(contents):
    return sorted(contents.keys() - {"header"})


def huge_shape(rng, whole, contents):
    members, name = encoded(contents), str(rng.choice(sorted(contents)))
    big = [2**20, 2**31, 2**40, 2**61, 2**62, 2**63, 2**64, 10**300, -1, -(2**40), 0][rng.integers(11)]
    shape = [(big,), (big, big), (0, big), (big, 0, big), (1, big), (-1, -big)][rng.integers(6)]
    dtype = rng.choice(["<f8", "<i8", "<U1", "<U0", "|V0", "<f2", ">f8"])
    description = f"{{'descr': '{dtype}', 'fortran_order': {bool(rng.integers(2))}, 'shape': {shape}, }}"
    members[name] = lying(description, rng.bytes(int(rng.integers(100))), version=rng.integers(1, 4))
    return packed(members.items())


def bad_description(rng, whole, contents):
    members, name = encoded(contents), str(rng.choice(sorted(contents)))
    members[name] = [
        lying("-" * 9000 + "1"),
        lying("(" * 9000),
        lying("[" * 150 + "]" * 150),
        lying("{'descr': [('a', '<f8')] * 10**9, 'fortran_order': False, 'shape': (1,)}"),
        lying("{'descr': ('<f8', (2000000000,)), 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        lying("{'descr': '<f8', 'fortran_order': 1, 'shape': ('a',)}", bytes(8)),
        lying("{'descr': '<f8', 'fortran_order': False, 'shape': (1L,)}", bytes(8)),
        lying("__import__('os').mkdir('sprung')"),
        lying(rng.bytes(60).decode("latin1")),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1),
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 2**16 - 1) + b"{" * 1000,
        lying("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}" + " " * 60000, bytes(8)),
        npy(contents[name])[: int(rng.integers(130))],
        b"",
    ][rng.integers(14)]
    return packed(members.items())


def object_arrays(rng, whole, contents):
    """A pickle that would make a folder, as an array, under the header's name, or as the whole file."""
    trap = np.array([Trap(FOLDER)], dtype=object)
    name = str(rng.choice(sorted(contents)))
    as_numbers = npy(trap).replace(b"'|O'", b"'<f8'") if rng.integers(2) else npy(trap)
    members = encoded(contents) | {name: [npy(trap), as_numbers, pickle.dumps(Trap(FOLDER))][rng.integers(3)]}
    structured = np.array([(1.0, Trap(FOLDER))], dtype=[("a", "f8"), ("b", "O")])
    return [
        packed(members.items()),
        packed((encoded(contents) | {name: npy(structured)}).items()),
        npy(trap),
        pickle.dumps(Trap(FOLDER)),
    ][rng.integers(4)]


def wrong_dtype(rng, whole, contents):
    name = str(rng.choice(arrays_of(contents)))
    dtype = rng.choice(
        ["f4", "f2", "g", ">f8", "i1", "i8", ">i4", "u8", "?", "c16", "U3", "S3", "M8[s]", "m8[s]"]
    )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = contents[name].astype(np.float64).astype(dtype)
    return packed(encoded(contents | {name: changed}).items())


def wrong_shape(rng, whole, contents):
    name = str(rng.choice(arrays_of(contents)))
    array = contents[name]
    changed = [
        array.ravel(),
        array[None],
        array.T,
        array.ravel()[:-1],
        array.ravel()[:0],
        np.zeros((0, *array.shape[1:])),
        np.zeros((*array.shape, 0)),
        np.repeat(array[None], 2, axis=0),
        np.zeros((1,) * 33) if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else array,
        np.float64(3),
        np.zeros((0, 2**20, 2**20)),
    ][rng.integers(11)]
    return packed(encoded(contents | {name: changed}).items())


VALUES = [np.nan, np.inf, -np.inf, -1, 0, 1e308, -1e308, 1e-320, 2**31, 2**62, 1e5, 0.5]


def wrong_values(rng, whole, contents):
    """Numbers that are too large, negative or none, in one place or everywhere."""
    name = str(rng.choice(arrays_of(contents)))
    changed = np.array(contents[name], dtype=rng.choice(["f8", "i8"]))
    value = VALUES[rng.integers(len(VALUES))]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = np.asarray(value, dtype=np.float64).astype(changed.dtype)
    if rng.integers(2) or changed.size == 0:
        changed[...] = value
    else:
        changed.flat[rng.integers(changed.size)] = value
    return packed(encoded(contents | {name: changed}).items())


TEXTS = [
    "null",
    "true",
    "-1",
    "0",
    "1",
    "1.5",
    "NaN",
    "-Infinity",
    '"text"',
    "[]",
    "{}",
    "[1, 2]",
    '{"a": 1}',
]
TEXTS += [
    "1" * 4000,
    "1" * 5000,
    "1e999",
    "[" * 900 + "]" * 900,
    "[" * 10**5,
    '"' + "x" * 10**5 + '"',
    "10000000000",
]


def wrong_settings(rng, whole, contents):
    """Any value at any depth of the header by another, or the text itself damaged."""
    header = json.loads(str(contents["header"]))
    places = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(header)
    node, key = places[rng.integers(len(places))]
    choice = rng.integers(4)
    if choice == 0 and isinstance(node, dict):
        del node[key]
    elif choice == 1 and isinstance(node, dict):
        node["self"] = node.pop(key)
    else:
        node[key] = "@@"
    text = json.dumps(header).replace('"@@"', TEXTS[rng.integers(len(TEXTS))])
    if choice == 3:
        place = int(rng.integers(len(text)))
        text = text[:place] + text[place + int(rng.integers(1, 9)) :]
    return packed(encoded(contents | {"header": np.array(text)}).items())


ZEROS = npy(np.zeros(2**21))  # 16 MB
BOMBS = [packed([("bomb", ZEROS)], method) for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)]
MANY = packed((f"{n}.weights", b"") for n in range(1000))


def bomb(rng, whole, contents):
    """16 MB in a few thousand bytes: compressed, overlapping or only announced; too many; one name twice."""
    kind = rng.integers(6)
    name = str(rng.choice(sorted(contents)))
    if kind < 2:
        return BOMBS[kind].replace(b"bomb.npy", f"{name}.npy".encode()[:8].ljust(8, b"x"))
    if kind == 2:
        return packed([*encoded(contents).items(), (name, npy(np.zeros(3)))])
    if kind == 3:
        return MANY
    if kind == 4:  # the same bytes many times: a quine's trick
        return overlapping(name, npy(np.zeros(2000)), 200)
    announced = bytearray(whole)  # the last entry of the directory, and the file it stands for
    place = announced.rindex(b"PK\x01\x02")
    announced[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
    return bytes(announced)


def overlapping(name, data, times):
    """An archive whose directory lists one member many times, under names that differ."""
    file = f"{name}.npy".encode()
    crc, size = zlib.crc32(data), len(data)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, crc, size, size, len(file), 0)
    entry = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, crc, size, size, len(file), *[0] * 6
    )
    body, directory = local + file + data, b""
    for number in range(times):
        directory += entry + file[:-4] + f"{number:04d}".encode()
    return (
        body
        + directory
        + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, times, times, len(directory), len(body), 0)
    )


DAMAGES = [
    random_bytes,
    truncated,
    bits_flipped,
    directory_damaged,
    spliced,
    huge_shape,
    bad_description,
    object_arrays,
    wrong_dtype,
    wrong_shape,
    wrong_values,
    wrong_settings,
    bomb,
]
FOLDER = "set by the test"


def use(model):
    """Ask a model that was loaded for what it is there for."""
    shape = getattr(model, "image_shape_", None)
    if isinstance(model, StackedGMM):
        shape = getattr(model.layers_[0], "image_shape_", None)
    X = np.zeros((2, *shape)) + np.eye(*shape) if shape else np.eye(2, model.n_features_in_)
    if isinstance(model, HierarchicalGMM):
        X = X[None]
    method = getattr(model, "score_samples", getattr(model, "predict", None))
    assert len(method(X)) == len(X)


def attempt(model_class, path):
    """Load a file and use what comes; True if a model did, False if the documented error."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = model_class.load(path)
            try:
                use(model)
            except (
                ValueError
            ) as error:  # parameters at the edge of float64 are a model, out of reach of any row
                if not str(error).startswith("X must have a density above 0 in float64"):
                    raise
    except ModelFileError as error:
        if str(error).startswith(f"{path} "):
            return False
        raise
    return True


def try_all(saved, folder, cases):
    """Load so many damaged files; the number of them that made a model, and what else went wrong."""
    global FOLDER
    FOLDER = folder
    model_class, whole, contents = saved
    path, usable, wrong = folder / "model.npz", 0, []
    tracemalloc.start(1)
    try:
        for case in cases:
            damage = DAMAGES[case % len(DAMAGES)]
            data = damage(np.random.default_rng(case), whole, contents)
            path.unlink(missing_ok=True)  # some file systems are slow to write over what is there
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            try:
                usable += attempt(model_class, path)
            except BaseException as error:
                wrong.append(f"{damage.__name__} {case}: {type(error).__name__}: {error}"[:200])
            peak, seconds = tracemalloc.get_traced_memory()[1] - before, time.process_time() - start
            if peak > MEMORY + FACTOR * len(data) or seconds > SECONDS:
                wrong.append(f"{damage.__name__} {case}: {seconds:.1f} s, {peak} bytes for {len(data)}")
            if os.listdir(folder) != ["model.npz"]:
                wrong.append(f"{damage.__name__} {case}: made {os.listdir(folder)}")
    finally:
        tracemalloc.stop()
    return usable, wrong


def test_a_setting_that_no_fit_would_take_is_refused(saved, tmp_path):
    model_class, _, contents = saved
    header = str(contents["header"]).replace('"max_iter": 2', '"max_iter": -1')
    path = tmp_path / "model.npz"
    path.write_bytes(packed(encoded(contents | {"header": np.array(header)}).items()))
    with pytest.raises(ModelFileError, match="usable .*: max_iter must be a positive integer; got -1."):
        model_class.load(path)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_65_damaged_files_a_class_are_refused_or_make_a_model(saved, tmp_path, record_property):
    usable, wrong = try_all(saved, tmp_path, range(SHORT))
    record_property("cases", SHORT)
    record_property("usable", usable)
    assert wrong == []
    assert 0 < usable < SHORT / 2


@pytest.mark.slow
def test_2000_more_damaged_files_a_class_are_refused_or_make_a_model(saved, tmp_path, record_property):
    usable, wrong = try_all(saved, tmp_path, range(SHORT, SHORT + LONG))
    record_property("cases", LONG)
    record_property("usable", usable)
    assert wrong == []
