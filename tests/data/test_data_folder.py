"""A folder of images: what is read, and one sentence for what cannot be."""

import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from data.make_files import one_sentence, random_set, tried
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepkit.data import DataError, image_folder


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def test_classes_and_files_come_in_sorted_order(tmp_path):
    images, _ = random_set(5, (6, 7, 3))
    names = ["dog/b.png", "cat/z.bmp", "dog/a.PNG", "cat/m.png", "ant/x.ppm"]
    for name, image in zip(names, images, strict=True):
        save(tmp_path / name, image)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("passed over")
    (tmp_path / "cat" / "notes.txt").write_text("passed over")
    (tmp_path / "cat" / "._m.png").write_bytes(b"passed over")
    x, y, classes = image_folder(tmp_path)
    assert classes == ("ant", "cat", "dog")
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert y.tolist() == [0, 1, 1, 2, 2]
    np.testing.assert_array_equal(x, images[[4, 3, 1, 2, 0]])


def test_channels_are_those_of_the_files_or_as_asked(tmp_path):
    colour = random_set(1, (6, 7, 3))[0][0]
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    save(tmp_path / "a" / "grey.png", grey)
    assert image_folder(tmp_path)[0].shape == (1, 6, 7, 1)
    np.testing.assert_array_equal(image_folder(tmp_path, channels=3)[0][0], np.dstack([grey] * 3))
    save(tmp_path / "b" / "colour.png", colour)
    x, _, _ = image_folder(tmp_path)
    np.testing.assert_array_equal(x[0], np.dstack([grey] * 3))
    np.testing.assert_array_equal(x[1], colour)
    np.testing.assert_array_equal(image_folder(tmp_path, channels=1)[0][1, ..., 0], grey)


def test_palettes_transparency_and_bits_become_plain_pixels(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:2] = [255, 0, 0]
    save(tmp_path / "a" / "1.png", colour, "P")
    clear = np.dstack([colour, np.full((4, 4), 9, np.uint8)])
    save(tmp_path / "a" / "2.png", clear)
    save(tmp_path / "a" / "3.png", colour[..., 0], "1")
    x, _, _ = image_folder(tmp_path)
    np.testing.assert_array_equal(x[0], colour)
    np.testing.assert_array_equal(x[1], colour)
    np.testing.assert_array_equal(x[2, ..., 1], colour[..., 0])


def test_sizes_must_agree_or_be_asked_for(tmp_path):
    save(tmp_path / "a" / "x.png", np.zeros((28, 28), np.uint8))
    save(tmp_path / "b" / "y.png", np.full((28, 30), 77, np.uint8))
    with pytest.raises(DataError) as error:
        image_folder(tmp_path)
    assert one_sentence(error) == (
        f"image_folder: {tmp_path / 'b' / 'y.png'} is 28x30 but {tmp_path / 'a' / 'x.png'} is "
        "28x28; a size (on the command line --size H,W) resizes all of them"
    )
    assert image_folder(tmp_path, size=16)[0].shape == (2, 16, 16, 1)
    x, _, _ = image_folder(tmp_path, size=(8, 12))
    assert x.shape == (2, 8, 12, 1)
    assert (x[1] == 77).all()


def test_wrong_arguments_are_named(tmp_path):
    for arguments, expected in [
        ({"channels": 4}, "channels must be 1, 3 or None, not 4"),
        ({"size": 0}, "size 0 must be at least 1 in height and width"),
    ]:
        with pytest.raises(DataError, match=expected):
            image_folder(tmp_path, **arguments)


def test_empty_and_missing_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "cat").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name, expected in [
        ("nowhere", "does not exist"),
        ("empty", "has no subfolders; one a class was expected"),
        ("half", "holds no images; some (.bmp"),
        ("file", "cannot be read (Not a directory)"),
    ]:
        with pytest.raises(DataError) as error:
            image_folder(tmp_path / name)
        assert expected in one_sentence(error)
        assert str(tmp_path / name) in str(error.value)


def png_bytes(kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(random_set(1, (12, 12))[0][0]).save(stream, kind)
    return stream.getvalue()


def png_that_claims(width, height):
    """A sound PNG header of any size, and no pixels."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check + png_bytes()[33:]


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "is not an image that Pillow can read"),
        (b"hello", "is not an image that Pillow can read"),
        (png_bytes()[:60], "cannot be decoded ("),
        (png_bytes()[:20], "cannot be decoded (|is not an image"),
        (png_bytes()[:-9], "cannot be decoded ("),  # all pixels are there
        (png_bytes()[:-12], "cannot be decoded ("),
        (png_bytes("JPEG")[:-60], "cannot be decoded ("),
        (png_bytes()[:50] + bytes(40) + png_bytes()[90:], "cannot be decoded ("),
        (png_that_claims(200_000, 200_000), "cannot be decoded (|is not an image"),
        (png_that_claims(10_000, 10_000), "cannot be decoded (|is not an image"),
    ],
)
def test_a_bad_image_is_one_sentence(tmp_path, data, expected):
    save(tmp_path / "a" / "1.png", random_set(1, (12, 12))[0][0])
    (tmp_path / "a" / "2.png").write_bytes(data)
    with pytest.raises(DataError) as error:
        image_folder(tmp_path)
    text = one_sentence(error)
    assert text.startswith(f"image_folder: {tmp_path / 'a' / '2.png'} ")
    assert any(part in text for part in expected.split("|"))


def test_a_decompression_bomb_is_refused_also_where_warnings_are_not_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns from there to twice that
    save(tmp_path / "a" / "1.png", random_set(1, (12, 12))[0][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"cannot be decoded .* decompression bomb"):
            image_folder(tmp_path)


def test_images_of_more_than_8_bits_are_refused(tmp_path):
    save(tmp_path / "a" / "deep.png", np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(DataError, match=r"has more than 8 bits a channel \(mode I;16\)"):
        image_folder(tmp_path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_image_gives_anything_but_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    bad = bytearray(png_bytes(data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF"]))))
    bad = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
    for _ in range(data.draw(st.integers(0, 3)) if bad else 0):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    (folder / "1.png").write_bytes(bad)
    values, complaint = tried(image_folder, folder.parent, 12)
    if complaint is None:
        assert values[0].shape[:3] == (1, 12, 12)
    else:
        assert complaint.startswith("image_folder: ")
        assert "\n" not in complaint


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    save(tmp_path / "a" / "1.png", np.zeros((2, 2), np.uint8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError) as error:
        image_folder(tmp_path)
    assert "needs the package pillow (pip install pillow)" in one_sentence(error)
