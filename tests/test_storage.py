"""Models on disk: what comes back, and what a damaged file says."""

import io
import json
import os
import re
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gmmlib import ConvolutionalGMM, storage
from gmmlib.storage import ModelFileError

NAMES = ("a", "b")
ARRAYS = {"a": np.arange(3.0), "b": np.arange(4).reshape(2, 2)}
IMAGES = np.random.default_rng(0).standard_normal((60, 4, 5))


@pytest.fixture(scope="module")
def model():
    return ConvolutionalGMM(3, max_iter=4, tol=1e-9, chunk_size=16, random_state=0).fit(IMAGES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def write_archive(path, header, arrays=None):
    with open(path, "wb") as file:
        np.savez(file, header=np.array(header), **(ARRAYS if arrays is None else arrays))


def header(**changes):
    return json.dumps({"format": 1, "kind": "Toy", "settings": {}} | changes)


def change(path, **arrays):
    """Write a model file again with some of its arrays replaced."""
    with np.load(path) as file:
        contents = dict(file)
    with open(path, "wb") as file:
        np.savez(file, **(contents | arrays))


def test_settings_and_arrays_come_back(path):
    storage.write(path, "Toy", {"n": 3, "tol": 0.1, "flag": True}, ARRAYS)
    settings, arrays = storage.read(path, "Toy", NAMES)
    assert settings == {"n": 3, "tol": 0.1, "flag": True}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


@pytest.mark.parametrize("zero_mean_patches", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 6), (1, 7), (6, 1)])
def test_a_loaded_model_scores_to_the_last_bit(path, shape, zero_mean_patches):
    x = np.random.default_rng(1).standard_normal((50, *shape))
    settings = {"max_iter": 3, "tol": 1e-3, "variance_floor": 1e-5, "chunk_size": 16}
    saved = ConvolutionalGMM(2, zero_mean_patches=zero_mean_patches, random_state=0, **settings).fit(x)
    saved.save(path)
    loaded = ConvolutionalGMM.load(path)
    assert_array_equal(loaded.score_samples(x), saved.score_samples(x))
    assert_array_equal(loaded.predict_proba(x), saved.predict_proba(x))
    assert_array_equal(loaded.sample(9, 0)[0], saved.sample(9, 0)[0])
    for name in ("weights_", "spectra_", "filters_", "log_likelihoods_"):
        assert_array_equal(getattr(loaded, name), getattr(saved, name))
    for name in ("converged_", "n_iter_", "image_shape_", "n_dimensions_"):
        assert getattr(loaded, name) == getattr(saved, name)
        assert type(getattr(loaded, name)) is type(getattr(saved, name))
    given = saved.get_params() | {"random_state": None}
    assert loaded.get_params() == given


def test_saving_twice_writes_the_same_model(model, path):
    model.save(path)
    loaded = ConvolutionalGMM.load(path)
    loaded.save(path)
    assert_array_equal(ConvolutionalGMM.load(path).spectra_, model.spectra_)


def test_settings_that_are_numpy_numbers_can_be_saved(path):
    """A grid search over np.arange hands on numpy integers."""
    fitted = ConvolutionalGMM(np.int64(2), variance_floor=np.float32(1e-6), max_iter=2, random_state=0)
    fitted.fit(IMAGES).save(path)
    assert ConvolutionalGMM.load(path).n_components == 2


def test_a_path_may_be_text_and_keeps_its_name(model, tmp_path):
    model.save(str(tmp_path / "model.weights"))
    assert os.listdir(tmp_path) == ["model.weights"]
    assert ConvolutionalGMM.load(str(tmp_path / "model.weights")).n_components == 3


def test_a_missing_file_is_just_missing(path):
    with pytest.raises(FileNotFoundError):
        storage.read(path, "Toy", NAMES)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(model, path, share):
    model.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelFileError) as caught:
        ConvolutionalGMM.load(path)
    assert str(caught.value).startswith(f"{path} is no readable model file (")
    assert str(caught.value).endswith(
        "). Expected what ConvolutionalGMM.save writes; it may be truncated, damaged or hold pickled "
        "objects. Save the model again."
    )


def test_a_file_cut_anywhere_is_refused(model, path):
    model.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            ConvolutionalGMM.load(path)


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_random_bytes_are_refused(path, length):
    path.write_bytes(np.random.default_rng(length).bytes(length))
    with pytest.raises(ModelFileError, match="is no readable model file"):
        storage.read(path, "Toy", NAMES)


def test_a_damaged_byte_is_refused_or_harmless(model, path):
    """Whatever a flipped byte does to the reader, the caller sees one kind of error."""
    model.save(path)
    whole = path.read_bytes()
    others, harmless = set(), 0
    for place in range(0, len(whole), 2):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = ConvolutionalGMM.load(path)
        except ModelFileError:
            continue
        except Exception as error:
            others.add(f"{type(error).__name__}: {error}")
        else:
            harmless += 1
            assert_array_equal(loaded.weights_, model.weights_)
            assert_array_equal(loaded.spectra_, model.spectra_)
    assert harmless < len(whole) / 4
    assert not others


def test_pickled_objects_are_refused_unread(path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(path) + ".sprung",)

    write_archive(path, header(), {"a": np.array([Trap()], dtype=object), "b": np.zeros(2)})
    with pytest.raises(ModelFileError, match="is no readable model file .*a holds object, not numbers"):
        storage.read(path, "Toy", NAMES)
    assert os.listdir(path.parent) == ["model.npz"]


def test_a_pickle_is_refused_unread(path):
    with open(path, "wb") as file:
        np.save(file, np.array([{}], dtype=object))
    with pytest.raises(ModelFileError, match="is no readable model file"):
        storage.read(path, "Toy", NAMES)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="is no readable model file .IsADirectoryError"):
        storage.read(tmp_path, "Toy", NAMES)


UNREADABLE = (
    "{} is no readable model file ({}). Expected what Toy.save writes; it may be truncated, damaged or hold "
    "pickled objects. Save the model again."
)

MESSAGES = [
    (header(kind="FullGMM"), None, "{} holds a FullGMM; expected a Toy. Load it with FullGMM.load."),
    (
        header(format=2),
        None,
        "{} has format 2; this version of gmmlib reads format 1. "
        "Save it again with this version, or use the version that wrote it.",
    ),
    (
        header(),
        {"a": np.zeros(2)},
        "{} must hold numbers under the names ['a', 'b']; got ['a']. Save the model again.",
    ),
    (
        header(),
        ARRAYS | {"c": np.zeros(2)},
        "{} must hold numbers under the names ['a', 'b']; got ['a', 'b', 'c']. Save the model again.",
    ),
    (
        header(),
        {"a": np.zeros(2), "b": np.array("text")},
        "{} must hold numbers under the names ['a', 'b']; got ['a', 'b']. Save the model again.",
    ),
    ('{"format": 1, "kind": "Toy"}', None, UNREADABLE.replace("({})", "(KeyError: 'settings')")),
    (
        "[1, 2]",
        None,
        UNREADABLE.replace("({})", "(TypeError: list indices must be integers or slices, not str)"),
    ),
    (
        "no json",
        None,
        UNREADABLE.replace("({})", "(JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
    ),
]


@pytest.mark.parametrize(("text", "arrays", "message"), MESSAGES)
def test_the_message(path, text, arrays, message):
    write_archive(path, text, arrays)
    with pytest.raises(ModelFileError) as caught:
        storage.read(path, "Toy", NAMES)
    assert str(caught.value) == message.format(path)


def test_an_archive_without_a_header_is_refused(path):
    with open(path, "wb") as file:
        np.savez(file, **ARRAYS)
    with pytest.raises(ModelFileError) as caught:
        storage.read(path, "Toy", NAMES)
    assert str(caught.value) == UNREADABLE.format(path, "KeyError: 'header'")


def test_a_single_array_is_refused(path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelFileError) as caught:
        storage.read(path, "Toy", NAMES)
    assert str(caught.value) == UNREADABLE.format(path, "BadZipFile: File is not a zip file")


def test_a_file_of_another_class_names_the_class(model, path):
    model.save(path)

    class OtherGMM(ConvolutionalGMM):
        pass

    with pytest.raises(ModelFileError) as caught:
        OtherGMM.load(path)
    assert str(caught.value) == (
        f"{path} holds a ConvolutionalGMM; expected a OtherGMM. Load it with ConvolutionalGMM.load."
    )


UNUSABLE = [
    ({"weights": np.array([0.5, 0.5])}, "{path}['weights'] must have shape (3,); got (2,)."),
    (
        {"weights": np.array([0.5, 0.5, 0.5])},
        "{path}['weights'] must be >= 0 and sum to 1; got 0.5 at the least and the sum 1.5.",
    ),
    ({"image_shape": np.array([4, 6])}, "{path}['spectra'] must have shape (3, 4, 4); got (3, 4, 3)."),
    (
        {"spectra": np.full((3, 4, 3), -1.0)},
        "{path}['spectra'] must be positive and finite; got -1 to -1.",
    ),
    ({"image_shape": np.array(4)}, "iteration over a 0-d array"),
]


@pytest.mark.parametrize(("arrays", "reason"), UNUSABLE)
def test_a_file_whose_numbers_make_no_model_says_why(model, path, arrays, reason):
    model.save(path)
    change(path, **arrays)
    with pytest.raises(ModelFileError) as caught:
        ConvolutionalGMM.load(path)
    assert str(caught.value) == f"{path} holds no usable ConvolutionalGMM: {reason.format(path=path)}"


def test_a_file_with_unknown_settings_says_which(model, path):
    model.save(path)
    with np.load(path) as file:
        settings = json.loads(str(file["header"]))
    settings["settings"]["colour"] = 1
    change(path, header=np.array(json.dumps(settings)))
    with pytest.raises(ModelFileError, match="holds no usable ConvolutionalGMM: .*'colour'"):
        ConvolutionalGMM.load(path)


def packed(members, method=zipfile.ZIP_STORED):
    """A zip archive of (name, array or bytes), which may repeat names."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # names that are there twice
        for name, content in members:
            data = io.BytesIO(content) if isinstance(content, bytes) else io.BytesIO()
            if not isinstance(content, bytes):
                np.save(data, content)
            archive.writestr(f"{name}.npy", data.getvalue())
    return file.getvalue()


def described(shape, dtype="<f8", more="", data=b""):
    """An npy file of a header of ours."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}{more}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


HEADER = ("header", np.array(header()))
A, B = ARRAYS.items()
HARMFUL = [
    (packed([HEADER, A, B], zipfile.ZIP_DEFLATED), "ValueError: compressed arrays"),
    (packed([HEADER, A, B], zipfile.ZIP_LZMA), "ValueError: compressed arrays"),
    (packed([HEADER, A, B, A]), "ValueError: two arrays of one name"),
    (packed([HEADER, *[(f"{n}", b"") for n in range(10_000)]]), "10001 arrays; expected at most 10000"),
    (
        packed([HEADER, ("a", described((2**40,))), B]),
        "ValueError: a promises (1099511627776,) of float64 in 0 bytes",
    ),
    (
        packed([HEADER, ("a", described((0, 2**40))), B]),
        "ValueError: a promises (0, 1099511627776) of float64 in 0 bytes",
    ),
    (
        packed([HEADER, ("a", described((2,), data=bytes(24))), B]),
        "ValueError: a promises (2,) of float64 in 24 bytes",
    ),
    (
        packed([HEADER, ("a", described((2**40,), "<U0")), B]),
        "ValueError: a promises (1099511627776,) of <U0",
    ),
    (packed([HEADER, ("a", described((-1, -1), data=bytes(8))), B]), "ValueError: "),
    (packed([HEADER, ("a", np.zeros(2, "c16")), B]), "ValueError: a holds complex128, not numbers"),
    (packed([HEADER, ("a", np.zeros(2, "f8,f8")), B]), "not numbers"),
    (packed([HEADER, ("a", b"\x93NUMPY\x02\x00" + bytes(9)), B]), "a in another version of the npy format"),
    (
        packed([HEADER, ("a", described((1,), more=" " * 5000, data=bytes(8))), B]),
        "ValueError: Header info length",
    ),
    (packed([("header", np.array(header() + " " * 2**20)), A, B]), "expected at most 4194304"),
    (packed([("header", np.array("[" * 10**5)), A, B]), "RecursionError: "),
]


@pytest.mark.parametrize(("data", "reason"), HARMFUL)
def test_what_a_harmful_file_is_refused_for(path, data, reason):
    path.write_bytes(data)
    with pytest.raises(
        ModelFileError, match="^" + re.escape(f"{path} is no readable model file (")
    ) as caught:
        storage.read(path, "Toy", NAMES)
    assert reason in str(caught.value)


def test_arrays_that_share_their_bytes_are_refused(path):
    """A directory may name the same bytes many times, so that a small file unpacks to a large one."""
    array = np.zeros(1000)
    data = bytearray(packed([HEADER, ("a", array), ("b", np.zeros(0))]))
    entry = data.rindex(b"PK\x01\x02")  # of b: made that of a, but for its name
    model = data.rindex(b"PK\x01\x02", 0, entry)
    data[entry + 16 : entry + 28] = data[model + 16 : model + 28]  # checksum and sizes
    data[entry + 42 : entry + 46] = data[model + 42 : model + 46]  # place
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="ValueError: arrays that are larger than the file"):
        storage.read(path, "Toy", NAMES)


def test_what_could_not_be_read_back_is_not_written(path):
    most = {str(n): np.zeros(0) for n in range(9999)}
    storage.write(path, "Toy", {"text": "x" * 1_048_000}, most)
    assert len(storage.read(path, "Toy", list(most))[1]) == 9999
    with pytest.raises(ValueError, match="got 10000 arrays and 44 characters. Save its parts one by one"):
        storage.write(path, "Toy", {}, most | {"more": np.zeros(0)})
    with pytest.raises(ValueError, match="got 0 arrays and 10486.. characters"):
        storage.write(path, "Toy", {"text": "x" * 2**20}, {})


def test_empty_arrays_come_back(path):
    arrays = {"a": np.zeros(0), "b": np.zeros((0, 3))}
    storage.write(path, "Toy", {}, arrays)
    read = storage.read(path, "Toy", NAMES)[1]
    assert {name: array.shape for name, array in read.items()} == {"a": (0,), "b": (0, 3)}


@pytest.mark.parametrize("sides", [[10**5, 10**5], [0, 5], [-4, -5], [2**62, 4]])
def test_images_too_large_for_the_arrays_of_their_model_cost_no_memory(model, path, sides):
    model.save(path)
    change(path, image_shape=np.array(sides))
    tracemalloc.start(1)
    try:
        with pytest.raises(ModelFileError) as caught:
            ConvolutionalGMM.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert str(caught.value) == (
        f"{path} holds no usable ConvolutionalGMM: {path} must hold a model of images of at least one and at "
        f"most 72 pixels; got {sides[0]} x {sides[1]}. Save the model again."
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("chunk_size", -1, "chunk_size must be a positive integer; got -1."),
        ("tol", "small", "tol must be a finite number >= 0; got 'small'."),
        ("max_iter", None, "max_iter must be a positive integer; got None."),
    ],
)
def test_a_file_of_wrong_settings_says_which(model, path, name, value, reason):
    model.save(path)
    with np.load(path) as file:
        changed = json.loads(str(file["header"]))
    changed["settings"][name] = value
    change(path, header=np.array(json.dumps(changed)))
    with pytest.raises(ModelFileError) as caught:
        ConvolutionalGMM.load(path)
    assert str(caught.value) == f"{path} holds no usable ConvolutionalGMM: {reason}"


class Interrupts:
    """Something that cannot be turned into an array."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, error):
    storage.write(path, "Toy", {}, ARRAYS)
    before = path.read_bytes()
    with pytest.raises(type(error)):
        storage.write(path, "Toy", {}, {"a": np.zeros(1000), "b": Interrupts(error)})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.npz"]


def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    storage.write(path, "Toy", {}, ARRAYS)
    before = path.read_bytes()

    def refuse(source, target):
        raise PermissionError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        storage.write(path, "Toy", {"new": 1}, ARRAYS)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["model.npz"]


def test_settings_that_json_cannot_hold_leave_nothing_behind(path):
    with pytest.raises(TypeError):
        storage.write(path, "Toy", {"f": len}, ARRAYS)
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_others_may_read_a_model_file_as_they_may_any_new_file(path):
    storage.write(path, "Toy", {}, ARRAYS)
    plain = path.parent / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
