"""IDX, CIFAR-10 binary and npz: what they hold, and one sentence for everything that is wrong."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from data.make_files import cifar_bytes, idx_bytes, one_sentence, random_set, tried, write
from hypothesis import given, settings
from hypothesis import strategies as st

from deepkit.data import DataError, DataWarning, readers


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_reads_what_was_written(tmp_path, suffix):
    images, labels = random_set(7, (3, 5))
    first = write(tmp_path / f"i{suffix}", idx_bytes(images))
    second = write(tmp_path / f"l{suffix}", idx_bytes(labels))
    x, y = readers.idx_pair("it", first, second, classes=10)
    assert (x.shape, x.dtype, y.dtype) == ((7, 3, 5, 1), np.uint8, np.int64)
    np.testing.assert_array_equal(x[..., 0], images)
    np.testing.assert_array_equal(y, labels)


def test_gzip_is_known_by_its_content_not_by_its_name(tmp_path):
    images, _ = random_set(4)
    (tmp_path / "i").write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(readers.idx("it", tmp_path / "i", 3), images)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_no_more_is_unpacked_than_asked_for(tmp_path, suffix):
    path = write(tmp_path / f"file{suffix}", bytes(3 << 20))
    for limit in (0, 1, 10, (1 << 20) + 1, 3 << 20, 1 << 30):
        data, damage = readers.unpack("it", path, limit)
        assert (len(data), damage) == (min(limit, 3 << 20), "")


HEADER = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)
SOUND = idx_bytes(np.arange(60).reshape(3, 4, 5))
HUGE = struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
BAD_IDX = {
    "short": (
        HEADER + bytes(1_188),
        "holds 1,204 bytes but its header promises 47,040,016 (60,000 images of 28x28)",
    ),
    "short and gz": (
        gzip.compress(HEADER + bytes(1_188)),
        "holds 1,204 bytes but its header promises 47,040,016 (60,000 images of 28x28)",
    ),
    "terabytes": (HUGE + bytes(9), "holds 25 bytes but its header promises 79,228,162,4"),
    "terabytes and gz": (gzip.compress(HUGE), "holds 16 bytes but its header promises"),
    "long": (SOUND + b"x", "holds more than the 76 bytes that its header promises"),
    "wrong magic": (
        b"\x00\x00\x0d\x03" + SOUND[4:],
        "starts with 0x00000d03, not with 0x00000803 (IDX, unsigned bytes, 3 dimensions)",
    ),
    "labels for images": (idx_bytes(np.zeros(90)), "starts with 0x00000801, not with 0x00000803"),
    "empty file": (b"", "holds 0 bytes, too few for an IDX header of 16"),
    "one byte": (b"\x1f", "holds 1 byte, too few for an IDX header of 16"),
    "zero images": (
        HEADER[:4] + struct.pack(">3I", 0, 28, 28),
        "is empty: its header says 0 images",
    ),
    "zero width": (HEADER[:4] + struct.pack(">3I", 9, 28, 0), "9 images of 28x0"),
    "garbage gz": (b"\x1f\x8b" + bytes(range(200)), "its gzip stream is damaged"),
    "no gz body": (gzip.compress(SOUND)[:11], "its gzip stream is cut short"),
    "truncated gz": (gzip.compress(SOUND)[:-12], "its gzip stream is cut short"),
    "gz without its checksum": (gzip.compress(SOUND)[:-8], "its gzip stream is cut short"),
    "gz with a wrong checksum": (
        gzip.compress(SOUND)[:-8] + b"abcd" + gzip.compress(SOUND)[-4:],
        "CRC check failed",
    ),
}


def refused_at_no_cost(read):
    """The sentence with which `read` refuses a file, having taken a chunk or two of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            read()
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    return one_sentence(error)


@pytest.mark.parametrize("case", BAD_IDX)
def test_a_bad_idx_file_is_one_sentence_and_costs_no_memory(tmp_path, case):
    data, expected = BAD_IDX[case]
    path = tmp_path / "train-images"
    path.write_bytes(data)
    said = refused_at_no_cost(lambda: readers.idx("mnist", path, 3))
    assert said.startswith(f"mnist: {path} ")
    assert expected in said


def test_idx_pairs_are_checked_together(tmp_path):
    images, labels = random_set(6)
    first = write(tmp_path / "i", idx_bytes(images))
    short = write(tmp_path / "l", idx_bytes(labels[:5]))
    with pytest.raises(DataError) as error:
        readers.idx_pair("mnist", first, short)
    assert one_sentence(error) == f"mnist: 6 images in {first} but 5 labels in {short}"
    labels[3] = 10
    wrong = write(tmp_path / "w", idx_bytes(labels))
    with pytest.raises(DataError) as error:
        readers.idx_pair("mnist", first, wrong, classes=10)
    assert one_sentence(error) == f"mnist: {wrong} has label 10 at index 3; 0 to 9 was expected"


def test_labels_that_are_cut_short_are_counted_as_labels(tmp_path):
    path = write(tmp_path / "l", idx_bytes(np.zeros(100))[:50])
    with pytest.raises(DataError) as error:
        readers.idx("mnist", path, 1)
    expected = f"mnist: {path} holds 50 bytes but its header promises 108 (100 labels)"
    assert one_sentence(error) == expected


def test_missing_files_and_folders_in_their_place(tmp_path):
    with pytest.raises(DataError, match="nothing does not exist"):
        readers.idx("it", tmp_path / "nothing", 1)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        readers.idx("it", tmp_path, 1)
    with pytest.raises(DataError, match="nothing does not exist"):
        readers.npz("it", tmp_path / "nothing")
    with pytest.raises(DataError, match="nothing does not exist"):
        readers.cifar("it", tmp_path / "nothing")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_idx_file_gives_anything_but_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged-idx"
    whole = gzip.compress(SOUND, mtime=0) if data.draw(st.booleans()) else SOUND
    bad = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if bad else 0):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bad)
    values, complaint = tried(readers.idx, "it", path, 3)
    assert values.size > 0 if complaint is None else complaint.startswith(f"it: {path} ")


# --- CIFAR-10 ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_cifar_turns_planes_into_pixels(tmp_path, suffix):
    images, labels = random_set(5, (32, 32, 3))
    path = write(tmp_path / f"data_batch_1.bin{suffix}", cifar_bytes(images, labels))
    x, y = readers.cifar("cifar10", path)
    assert x.flags.c_contiguous
    assert y.dtype == np.int64
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "holds 0 bytes; a whole number of 3,073-byte records was expected"),
        (bytes(3072), "holds 3,072 bytes; a whole number"),
        (bytes(3073) + b"\x0a" + bytes(3072), "has label 10 at index 1; 0 to 9 was expected"),
        (gzip.compress(bytes(3073))[:-9], "its gzip stream is cut short after"),
        (gzip.compress(bytes(60_001 * 3073), 1), "holds more than 184,380,000 bytes"),
    ],
)
def test_a_bad_cifar_file_is_one_sentence(tmp_path, data, expected):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        readers.cifar("cifar10", path)
    assert one_sentence(error).startswith(f"cifar10: {path} ")
    assert expected in str(error.value)


# --- npz --------------------------------------------------------------------------------

IMAGES, LABELS = random_set(6, (4, 5), classes=3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_reads_what_was_written(tmp_path, save):
    colour = np.random.default_rng(1).random((6, 4, 5, 3))
    save(tmp_path / "grey.npz", images=IMAGES, labels=LABELS.astype(np.uint8))
    save(
        tmp_path / "float.npz", images=colour.astype(">f8"), labels=LABELS, classes=["a", "b", "c"]
    )
    x, y, classes = readers.npz("it", tmp_path / "grey.npz")
    np.testing.assert_array_equal(x, IMAGES[..., None])
    np.testing.assert_array_equal(y, LABELS)
    assert (y.dtype, classes) == (np.int64, ("0", "1", "2"))
    x, _, classes = readers.npz("it", tmp_path / "float.npz")
    np.testing.assert_array_equal(x, colour)
    assert x.dtype.isnative
    assert classes == ("a", "b", "c")


def test_images_with_channels_first_are_read_with_a_warning(tmp_path):
    path, labels = tmp_path / "set.npz", np.zeros(2, int)
    for shape in ((2, 1, 4, 5), (2, 3, 4, 5), (2, 4, 4, 9)):
        np.savez(path, images=np.zeros(shape, np.uint8), labels=labels)
        with pytest.warns(DataWarning, match=r"images.transpose\(0, 2, 3, 1\) turns them"):
            assert readers.npz("it", path)[0].shape == shape
    for shape in ((2, 4, 4, 4), (2, 1, 4, 3), (2, 2, 4, 5), (2, 5, 4, 5)):
        np.savez(path, images=np.zeros(shape, np.uint8), labels=labels)
        assert readers.npz("it", path)[0].shape == shape  # warnings are errors


def test_what_is_no_zip_is_no_npz(tmp_path):
    (tmp_path / "set.npz").write_bytes(b"images, labels")
    with pytest.raises(DataError, match="is not an npz file"):
        readers.npz("it", tmp_path / "set.npz")


def images_with(value):
    images = IMAGES.astype(np.float32)
    images[4, 1, 1] = value
    return images


BAD_ARRAYS = {
    "no labels": ({"images": IMAGES}, "has no array 'labels'; it has 'images'"),
    "no arrays": ({}, "has no array 'images' or 'labels'; it has none"),
    "objects": (
        {"images": np.array([{}, {}]), "labels": LABELS[:2]},
        "array 'images' holds Python objects, which deepkit does not unpickle",
    ),
    "flat images": ({"images": IMAGES[0], "labels": LABELS}, "images (4, 5) of uint8"),
    "wide images": ({"images": IMAGES.astype(int), "labels": LABELS}, "images (6, 4, 5) of int64"),
    "float labels": ({"images": IMAGES, "labels": LABELS / 2}, "labels (6,) of float64"),
    "empty": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "is empty: its images are (0, 4, 5)"),
    "count": ({"images": IMAGES, "labels": LABELS[:5]}, "6 images in"),
    "negative": ({"images": IMAGES, "labels": LABELS - 1}, "has label -1 at index"),
    "enormous": ({"images": IMAGES, "labels": LABELS + 10**9}, "0 to 65535 was expected"),
    "unsigned": (
        {"images": IMAGES, "labels": LABELS.astype(np.uint64) + np.uint64(2**63)},
        "0 to 65535 was expected",
    ),
    "unnamed": (
        {"images": IMAGES, "labels": LABELS, "classes": ["a", "b"]},
        "has label 2 at index",
    ),
    "NaN": (
        {"images": images_with(np.nan), "labels": LABELS},
        "images hold NaN (image 4); finite numbers were expected",
    ),
    "infinity": (
        {"images": images_with(np.inf), "labels": LABELS},
        "images hold an infinity (image 4); finite numbers were expected",
    ),
    "minus infinity": (
        {"images": images_with(-np.inf), "labels": LABELS},
        "images hold an infinity (image 4); finite numbers were expected",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_in_an_npz_are_one_sentence(tmp_path, case):
    arrays, expected = BAD_ARRAYS[case]
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as error:
        readers.npz("set", path)
    assert expected in one_sentence(error)
    assert str(path) in str(error.value)


def npy(header, body=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_the_versions_of_arrays_in_an_npz(tmp_path, version):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in (("images", IMAGES), ("labels", LABELS)):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, values, version)
            archive.writestr(f"{name}.npy", stream.getvalue())
    if version == (3, 0):  # only for names of fields that are not Latin-1
        with pytest.raises(DataError, match=r"npy version \(3, 0\); 1.0 or 2.0 was expected"):
            readers.npz("it", path)
    else:
        np.testing.assert_array_equal(readers.npz("it", path)[0][..., 0], IMAGES)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_that_promises_terabytes_costs_nothing(tmp_path, method):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        shape = (10**12, 28, 28)
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
        archive.writestr("images.npy", npy(header, bytes(1000)))
        archive.writestr("labels.npy", npy(header))
    said = refused_at_no_cost(lambda: readers.npz("set", path))
    expected = "holds 1,000 bytes but its header promises 784,000,000,000,000"
    assert expected in said


def test_an_npz_whose_directory_promises_gigabytes_costs_nothing(tmp_path):
    """Both sizes agree, that of the zip and that of the array in it; only the bytes are missing."""
    path, size = tmp_path / "set.npz", 4 << 30
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size >> 20}, 1024, 1024), }}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy(header, bytes(1 << 20)))
        archive.getinfo("images.npy").file_size = len(npy(header)) + size
        archive.writestr("labels.npy", npy(header))
    packed = path.stat().st_size
    said = refused_at_no_cost(lambda: readers.npz("set", path))
    assert "promises to unpack to 4,294,967,424" in said
    assert packed < 4096


def test_an_npz_of_black_images_is_no_suspect(tmp_path):
    """Nothing packs better: about 1030 to 1."""
    path = tmp_path / "black.npz"
    np.savez_compressed(path, images=np.zeros((100, 256, 256), np.uint8), labels=np.zeros(100, int))
    assert path.stat().st_size < 100 * 256 * 256 / 900
    assert not readers.npz("set", path)[0].any()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_npz_gives_anything_but_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    whole = io.BytesIO()
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(whole, images=IMAGES, labels=LABELS)
    bad = bytearray(whole.getvalue())
    if data.draw(st.booleans()):
        bad = bad[: data.draw(st.integers(0, len(bad)))]
    for _ in range(data.draw(st.integers(0, 4)) if bad else 0):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bad)
    values, complaint = tried(readers.npz, "it", path)
    if complaint is None:
        assert len(values[0]) == len(values[1])
    else:
        assert complaint.startswith("it: ")
        assert "\n" not in complaint
