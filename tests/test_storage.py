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
from tests import oracles

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
    return json.dumps({"format": 2, "kind": "Toy", "settings": {}} | changes)


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


def test_a_file_may_say_what_it_was_fitted_to(model, path):
    model.save(path)
    assert storage.note(path) == ""
    model.save(path, note="My photographs,\nCC0")
    assert storage.note(path) == "My photographs,\nCC0"
    assert_array_equal(ConvolutionalGMM.load(path).spectra_, model.spectra_)
    with pytest.raises(ValueError, match="note must be a text; got 3"):
        model.save(path, note=3)
    write_archive(path, header(note=["no text"]))
    assert storage.note(path) == ""


@pytest.mark.parametrize("zero_mean_patches", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 6), (1, 7), (6, 1)])
def test_a_loaded_model_scores_to_the_last_bit(path, shape, zero_mean_patches):
    x = np.random.default_rng(1).standard_normal((50, *shape))
    settings = {"max_iter": 3, "tol": 1e-3, "variance_floor": 1e-5, "chunk_size": 16}
    saved = ConvolutionalGMM(
        2, zero_mean_patches=zero_mean_patches, random_state=0, **oracles.WHOLE_RUN | settings
    ).fit(x)
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
    fitted = ConvolutionalGMM(
        np.int64(2), variance_floor=np.float32(1e-6), max_iter=2, random_state=0, tol=0.0
    )
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
    with pytest.raises(ModelFileError, match="cannot be read .IsADirectoryError: it is no plain file"):
        storage.read(tmp_path, "Toy", NAMES)


UNREADABLE = (
    "{} is no readable model file ({}). Expected what Toy.save writes; it may be truncated, damaged or hold "
    "pickled objects. Save the model again."
)

MESSAGES = [
    (header(kind="FullGMM"), None, "{} holds a FullGMM; expected a Toy. Load it with FullGMM.load."),
    (
        header(format=3),
        None,
        "{} has format 3; this version of gmmlib reads format 2. "
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
    ('{"format": 2, "kind": "Toy"}', None, UNREADABLE.replace("({})", "(KeyError: 'settings')")),
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
    assert str(caught.value) == UNREADABLE.format(
        path, "ValueError: the end of the file is not that of an archive"
    )


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
        "{path}['weights'] must be >= 0 and sum to 1; got 0.5 at least and the sum 1.5.",
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
        "ValueError: a holds <U0, not numbers",
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


# --- memory is bounded by what is allowed, not by what a file says ----------------------------------


def entry(name=b"a.npy", size=0, start=0, checksum=0, extra=b"", comment=b"", method=0):
    """One line of the directory of an archive."""
    lengths = len(name), len(extra), len(comment)
    return storage.ENTRY.pack(
        b"PK\x01\x02", 20, 20, 0, method, 0, 0, checksum, size, size, *lengths, 0, 0, 0, start
    ) + (name + extra + comment)


def archive(body, directory, count, **changes):
    """An archive of ready parts, whose end says what it is told to."""
    says = {"length": len(directory), "start": len(body), "comment": b""} | changes
    least = min(count, 2**16 - 1)
    end = storage.END.pack(
        b"PK\x05\x06", 0, 0, least, least, says["length"], says["start"], len(says["comment"])
    )
    return body + directory + end + says["comment"]


def long_end(count, length, start):
    """The end of a large archive, and its locator."""
    end = storage.LONG_END.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
    return end + storage.LOCATOR.pack(b"PK\x06\x07", 0, 0, 1)


MANY = b"".join(entry(f"{n}.npy".encode()) for n in range(200_000))
LINES = b"".join(entry(f"{n:05d}".encode() + b"x" * 90) for n in range(9_000))
HOSTILE = {
    "very many members": archive(b"", MANY, 2**16 - 1),
    "very many members, said to be few": archive(b"", MANY, 3),
    "very many members of a large archive": archive(
        b"", MANY + long_end(200_000, len(MANY), 0), 2**16 - 1, length=2**32 - 1, start=2**32 - 1
    ),
    "a large archive of lies": archive(b"", long_end(3, 2**62, 2**63), 3, length=2**32 - 1, start=2**32 - 1),
    "a directory before the file": archive(b"", entry(), 1, start=2**31),
    "long names": archive(b"", b"".join(entry(b"x" * 60_000) for _ in range(300)), 300),
    "long comments": archive(b"", b"".join(entry(comment=b"x" * 60_000) for _ in range(300)), 300),
    "long extras": archive(b"", b"".join(entry(extra=b"x" * 60_000) for _ in range(300)), 300),
    "a long comment": archive(b"x" * 2**23, entry(), 1, comment=b"PK\x05\x06" * 16_000),
    "as many names as are allowed": archive(bytes(100), LINES, 9_000),
    "a member of a size that is not there": archive(b"", entry(size=2**31), 1),
    "a size that is to be looked up": archive(b"", entry(size=2**32 - 1, extra=bytes(4) + b"\xff" * 24), 1),
    "a size that is to be looked up nowhere": archive(b"", entry(size=2**32 - 1), 1),
    "many arrays of long descriptions": packed(
        [HEADER, *[(f"{n}", described((1,), more=" " * 60_000, data=bytes(8))) for n in range(150)]]
    ),
    "many arrays that nobody asked for": packed([HEADER, *[(f"{n}", np.zeros(1000)) for n in range(1500)]]),
    "a large array that nobody asked for": packed([HEADER, A, B, ("c", np.zeros(2**21))]),
    "a large array of a kind that is not asked for": packed(
        [("header", np.array(header(kind="Other"))), ("a", np.zeros(2**21))]
    ),
    "a header longer than allowed": packed([("header", np.array("[" + "[]," * 2**21)), A, B]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_takes_no_more_memory_than_is_allowed(path, what):
    path.write_bytes(HOSTILE[what])
    storage.write(path.with_name("first"), "Toy", {}, ARRAYS)
    storage.read(path.with_name("first"), "Toy", NAMES)  # what is imported for the first one does not count
    tracemalloc.start(1)
    try:
        with pytest.raises(ModelFileError) as caught:
            storage.read(path, "Toy", NAMES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The most that is parsed are the names of as many arrays as are allowed, of the length that is allowed.
    assert peak < (2**23 if "allowed" in what else 2**19)
    assert len(str(caught.value)) < 3000


def test_a_header_as_long_as_allowed_takes_bounded_memory(path):
    text = header(settings={"a": [[]] * 250_000})
    assert 4 * len(text) < storage.LONGEST_HEADER
    write_archive(path, text)
    tracemalloc.start(1)
    try:
        with pytest.raises(ModelFileError):
            storage.read(path, "Toy", ["c"])
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_archives_of_more_than_two_gigabytes_have_another_end_and_are_read(path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # as if each of these were
    arrays = {"a": np.arange(300.0), "b": np.asfortranarray(np.arange(600).reshape(20, 30))}
    storage.write(path, "Toy", {}, arrays)
    assert b"PK\x06\x06" in path.read_bytes()
    found = storage.read(path, "Toy", NAMES)[1]
    assert_array_equal(found["a"], arrays["a"])
    assert_array_equal(found["b"], arrays["b"])
    assert found["b"].flags.f_contiguous
    assert all(array.flags.aligned and array.flags.writeable for array in found.values())


# --- where files are written --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", 3, None, b"model", "a\0b"])
def test_what_is_no_path_is_refused(model, name):
    with pytest.raises(ValueError, match="path must be the path of a file; got "):
        model.save(name)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none/model.npz", FileNotFoundError, "there is no folder {}/none. Make it first."),
        ("plain/model.npz", NotADirectoryError, "there is no folder {}/plain. Make it first."),
        ("", IsADirectoryError, "path must name a file; got the folder '{}"),
        (
            "new/",
            IsADirectoryError,
            "path must name a file; got the folder '{}/new/'. Add a file name to it.",
        ),
        ("pipe", FileExistsError, "path must name a plain file; got '{}/pipe', which is none."),
        ("loop", FileExistsError, "path must name a plain file; got '{}/loop', which is none."),
    ],
)
def test_a_place_where_no_file_can_be_is_named(model, tmp_path, name, error, message):
    (tmp_path / "plain").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(error) as caught:
        model.save(f"{tmp_path}/{name}")
    assert message.format(tmp_path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_saving_to_a_link_replaces_what_it_points_to(model, tmp_path):
    (tmp_path / "there").mkdir()
    link, place = tmp_path / "link", tmp_path / "there" / "model.npz"
    link.symlink_to(place)
    model.save(link)
    assert link.is_symlink()
    assert os.listdir(tmp_path / "there") == ["model.npz"]
    assert_array_equal(ConvolutionalGMM.load(link).spectra_, ConvolutionalGMM.load(place).spectra_)


def test_saving_touches_nothing_but_the_path_it_is_given(model, path):
    endings = ["next", "previous", "part", "partial", "tmp", "temp", "lock", "bak", "npz"]
    beside = [path.with_name(f"{dot}{path.name}.{end}") for end in endings for dot in ("", ".")]
    for other in beside:
        other.write_text("precious")
    model.save(path)
    model.save(path)
    assert all(other.read_text() == "precious" for other in beside)
    assert len(os.listdir(path.parent)) == len(beside) + 1


def test_a_name_may_be_as_long_as_the_system_allows(model, tmp_path):
    model.save(tmp_path / ("x" * 255))
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(24, "Too many open files")]
)
def test_a_file_that_cannot_be_opened_is_not_called_damaged(model, path, monkeypatch, error):
    model.save(path)

    def refuse(*arguments):
        raise error

    monkeypatch.setattr(storage, "open", refuse, raising=False)
    with pytest.raises(ModelFileError) as caught:
        ConvolutionalGMM.load(path)
    assert str(caught.value) == (
        f"{path} cannot be read ({type(error).__name__}: {error.strerror}); what is in it is not known. "
        "Allow reading it, or try again when the machine has room for it."
    )


def test_a_pipe_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="it is no plain file"):
        ConvolutionalGMM.load(tmp_path / "pipe")
