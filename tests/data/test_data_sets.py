"""The data sets by name: their contents, where their files are looked for, and `load`."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from data.make_files import (
    cifar_bytes,
    idx_bytes,
    one_sentence,
    random_set,
    write,
    write_idx_set,
)
from PIL import Image

from deepkit.data import DataError, cifar10, digits, fashion_mnist, load, mnist, sets


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch, request):
    """No test here may depend on the files of the machine, nor reach for the network."""
    if "real" not in request.node.name:
        monkeypatch.delenv("DEEPKIT_DATA", raising=False)
    monkeypatch.setattr(sets.download, "fetch", lambda *_: pytest.fail("tried to download"))


# --- digits -----------------------------------------------------------------------------


def test_digits_are_the_published_ones():
    images, labels = digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as the UCI page gives them
    assert np.bincount(labels).tolist() == counts
    # the first line of the file: 0,0,5,13,9,1,0,0, ... a zero
    first = [0, 0, 80, 207, 143, 16, 0, 0]  # 255 v / 16, rounded
    assert images[0, 0, :, 0].tolist() == first
    assert labels[:10].tolist() == list(range(10))


def test_digits_scale_all_17_values_by_the_documented_rule():
    values = np.unique(digits()[0])
    exact = np.arange(17) * 255 / 16
    assert values.tolist() == [int(v + 0.5) for v in exact]


def test_digits_split_is_fixed_stratified_and_complete():
    images, labels = digits()
    x_train, y_train = digits("train")
    x_test, y_test = digits("test")
    assert len(x_train) == len(y_train) == 1437
    assert len(x_test) == len(y_test) == 360
    fifth = np.bincount(labels) / 5
    assert (np.abs(np.bincount(y_test) - fifth) < 1).all()
    # the documented rule, digit by digit
    by_label = sorted(range(1797), key=lambda i: (labels[i], i))
    test = sorted(by_label[::5])
    np.testing.assert_array_equal(x_test, images[test])
    np.testing.assert_array_equal(y_test, labels[test])
    train = sorted(set(range(1797)) - set(test))
    np.testing.assert_array_equal(x_train, images[train])
    np.testing.assert_array_equal(y_train, labels[train])


@pytest.mark.parametrize("size", [28, 32, (16, 20)])
def test_digits_in_other_sizes(size):
    images, labels = digits("test", size=size)
    shape = size if isinstance(size, tuple) else (size, size)
    assert images.shape == (360, *shape, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels, digits("test")[1])
    # Pillow's bilinear enlarging is the same formula; both round once
    small = digits("test")[0]
    for big, image in zip(images[:40], small[:40], strict=True):
        pillow = Image.fromarray(image[..., 0]).resize(shape[::-1], Image.Resampling.BILINEAR)
        assert np.abs(big[..., 0].astype(int) - np.asarray(pillow)).max() <= 2


def test_digits_bytes_never_change():
    images, labels = digits(size=32)
    found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert found == "2952ddb62ce053ee358cac9f64c6981d639722df5f92070f92a09138f6d84398"


def test_a_wrong_split_is_named():
    for read in (mnist, fashion_mnist):
        with pytest.raises(DataError, match=r"train does not exist; .*mnist\(split='train'\)"):
            read("train")
    for read in (digits, lambda split: mnist("nowhere", split)):
        with pytest.raises(DataError) as error:
            read("val")
        assert "split must be 'train', 'test' or None, not 'val'" in one_sentence(error)


# --- where the files are looked for ---------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("reader, sub", [(mnist, "mnist"), (fashion_mnist, "fashion-mnist")])
def test_root_is_the_folder_or_its_parent(tmp_path, monkeypatch, reader, sub, suffix):
    parts = write_idx_set(tmp_path / sub, suffix=suffix)
    for root in (tmp_path, tmp_path / sub, str(tmp_path)):
        for split in ("train", "test"):
            images, labels = reader(root, split)
            np.testing.assert_array_equal(images[..., 0], parts[split][0])
            np.testing.assert_array_equal(labels, parts[split][1])
    np.testing.assert_array_equal(reader(tmp_path)[1], parts["train"][1])
    both, _ = reader(tmp_path, None)
    np.testing.assert_array_equal(both[:30, ..., 0], parts["train"][0])
    np.testing.assert_array_equal(both[30:, ..., 0], parts["test"][0])
    monkeypatch.setenv("DEEPKIT_DATA", str(tmp_path))
    np.testing.assert_array_equal(reader()[1], parts["train"][1])


def test_the_names_with_dots_are_found_too(tmp_path):
    images, labels = random_set(5)
    write(tmp_path / "train-images.idx3-ubyte", idx_bytes(images))
    write(tmp_path / "train-labels.idx1-ubyte", idx_bytes(labels))
    np.testing.assert_array_equal(mnist(tmp_path)[0][..., 0], images)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError) as error:
        mnist(tmp_path / "no")
    assert one_sentence(error) == f"mnist: {tmp_path / 'no'} does not exist"
    with pytest.raises(DataError) as error:
        fashion_mnist(tmp_path)
    assert f"neither {tmp_path} nor its subfolder fashion-mnist holds" in one_sentence(error)
    monkeypatch.setenv("DEEPKIT_DATA", str(tmp_path / "no"))
    with pytest.raises(DataError) as error:
        cifar10()
    expected = f"cifar10: {tmp_path / 'no'} (named by DEEPKIT_DATA) does not exist"
    assert one_sentence(error) == expected
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(mnist(tmp_path)[0]) == 30
    with pytest.raises(DataError) as error:
        mnist(tmp_path, "test")
    expected = f"mnist: {tmp_path} holds no t10k-labels-idx1-ubyte, plain or .gz"
    assert one_sentence(error) == expected


def test_fashion_files_are_not_taken_for_mnist(tmp_path, monkeypatch):
    parts = write_idx_set(tmp_path)
    made_up = sets.zlib.crc32(parts["train"][1].astype(np.uint8).tobytes())
    monkeypatch.setitem(sets._LABELS, made_up, "fashion-mnist")
    assert len(fashion_mnist(tmp_path)[0]) == 30
    with pytest.raises(DataError) as error:
        mnist(tmp_path)
    assert one_sentence(error) == f"mnist: the files in {tmp_path} are those of fashion-mnist"
    data = load(tmp_path)
    assert (data.name, data.classes[9], len(data.images)) == ("fashion-mnist", "Ankle boot", 42)


# --- CIFAR-10 -------------------------------------------------------------------------------


def write_cifar(folder):
    parts = [random_set(count, (32, 32, 3), seed=count) for count in (12, 11, 10)]
    for part, name in zip(parts, ["data_batch_1", "data_batch_2", "test_batch"], strict=True):
        write(folder / f"{name}.bin", cifar_bytes(*part))
    return parts


def test_cifar_batches_are_joined_in_order(tmp_path):
    first, second, test = write_cifar(tmp_path / "cifar-10-batches-bin")
    # the same batch packed, and a part of it: neither may come in twice
    write(tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin.gz", cifar_bytes(*first))
    write(tmp_path / "cifar-10-batches-bin" / "data_batch_2.first3.bin.gz", b"unread")
    images, labels = cifar10(tmp_path)
    np.testing.assert_array_equal(images, np.concatenate([first[0], second[0]]))
    np.testing.assert_array_equal(labels, np.concatenate([first[1], second[1]]))
    np.testing.assert_array_equal(cifar10(tmp_path, "test")[0], test[0])
    assert len(cifar10(tmp_path, None)[1]) == 33
    assert load("cifar-10", tmp_path).classes[3] == "cat"


def test_cifar_is_read_out_of_its_archive(tmp_path):
    first, second, test = write_cifar(tmp_path / "plain")
    archive = tmp_path / "packed" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "plain", "cifar-10-batches-bin")
    images, labels = cifar10(archive.parent)
    np.testing.assert_array_equal(images, np.concatenate([first[0], second[0]]))
    np.testing.assert_array_equal(labels, np.concatenate([first[1], second[1]]))
    np.testing.assert_array_equal(cifar10(archive.parent, "test")[0], test[0])
    for bad in (b"", b"no archive", archive.read_bytes()[:9_000]):
        archive.write_bytes(bad)
        with pytest.raises(DataError) as error:
            cifar10(archive.parent)
        assert one_sentence(error).startswith(f"cifar10: {archive} is damaged (")


def test_an_archive_of_something_else_is_named(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(DataError, match="holds no data or test batch"):
        cifar10(tmp_path, None)


# --- load -----------------------------------------------------------------------------------


def test_load_by_name(tmp_path):
    data = load("digits", split="test", size=32)
    assert (data.images.shape, data.name) == ((360, 32, 32, 1), "digits")
    assert data.classes == tuple("0123456789")
    write_idx_set(tmp_path / "fashion-mnist")
    for name in ("fashion-mnist", "fashion_mnist", "Fashion-MNIST"):
        data = load(name, tmp_path, "test", size=10)
        assert (data.images.shape, data.name) == ((12, 10, 10, 1), "fashion-mnist")
        assert data.classes[0] == "T-shirt/top"


def test_load_an_unknown_name():
    with pytest.raises(DataError) as error:
        load("minst")
    assert one_sentence(error) == (
        "data: 'minst' is neither a data set (digits, mnist, fashion-mnist, cifar10) nor a file "
        "or folder; did you mean 'mnist'?"
    )


@pytest.fixture
def paths(tmp_path):
    """One data set of 20 images of 5x4 in 4 classes, in every form that `load` knows."""
    images, labels = random_set(20, classes=4)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    write(tmp_path / "idx" / "some-images-idx3-ubyte.gz", idx_bytes(images))
    write(tmp_path / "idx" / "some-labels-idx1-ubyte", idx_bytes(labels))
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "folder" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02}.png")
    return images, labels, tmp_path


@pytest.mark.parametrize("path", ["set.npz", "idx/some-images-idx3-ubyte.gz", "folder"])
def test_load_by_path(paths, path):
    images, labels, root = paths
    data = load(root / path)
    order = np.argsort(labels, kind="stable") if path == "folder" else np.arange(20)
    np.testing.assert_array_equal(data.images[..., 0], images[order])
    np.testing.assert_array_equal(data.labels, labels[order])
    assert data.classes == ("0", "1", "2", "3")
    train, test = load(str(root / path), split="train"), load(root / path, split="test", size=8)
    assert np.bincount(test.labels).tolist() == [1, 1, 1, 1]
    assert np.bincount(train.labels).tolist() == [4, 4, 4, 4]
    assert test.images.shape == (4, 8, 8, 1)
    whole = {image.tobytes() for image in data.images}
    tested = {image.tobytes() for image in load(root / path, split="test").images}
    trained = {image.tobytes() for image in train.images}
    assert whole == tested | trained
    assert not tested & trained


def test_load_a_folder_with_parts_of_its_own(paths):
    _, _, root = paths
    (root / "two").mkdir()
    (root / "folder").rename(root / "two" / "train")
    for label in range(4):
        (root / "two" / "test" / str(label)).mkdir(parents=True)
        Image.new("L", (4, 5), label).save(root / "two" / "test" / str(label) / "a.png")
    assert [len(load(root / "two", split=s).images) for s in ("train", "test", None)] == [20, 4, 24]
    assert load(root / "two", split="test").images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    (root / "two" / "test" / "3").rename(root / "two" / "test" / "4")
    with pytest.raises(DataError, match="class '3' is in only one of"):
        load(root / "two")


def test_load_what_it_cannot(paths):
    _, _, root = paths
    (root / "notes.txt").write_text("hello")
    (root / "idx" / "some-labels-idx1-ubyte").unlink()
    (root / "empty").mkdir()
    np.savez(root / "one.npz", images=np.zeros((1, 2, 2)), labels=[0])
    for path, split, expected in [
        ("notes.txt", None, "is of no known kind; an .npz file, IDX images"),
        ("idx/some-images-idx3-ubyte.gz", None, "has no some-labels-idx1-ubyte, plain or .gz,"),
        ("empty", None, "has no subfolders; one a class was expected"),
        ("one.npz", "test", "one: 1 image is too few for a train and a test part"),
    ]:
        with pytest.raises(DataError) as error:
            load(root / path, split=split)
        assert expected in one_sentence(error)


# --- the machine's own ----------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"PIL", "pooch", "requests", "tqdm", "torch", "numba"}
    code = f"import sys, deepkit.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif("DEEPKIT_DATA" not in os.environ, reason="DEEPKIT_DATA names no real data")
def test_real_mnist():
    images, labels = mnist(split="test")
    assert images.shape == (10_000, 28, 28, 1)
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"
    )
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    images, labels = mnist(split="train")
    assert images.shape == (60_000, 28, 28, 1)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
