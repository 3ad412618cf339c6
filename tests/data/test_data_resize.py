"""Bilinear resizing: Pillow's triangle filter is the oracle, and a few exact cases."""

import numpy as np
import pytest
from data.make_files import random_set
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepkit.data import DataError
from deepkit.data.resize import bilinear

sizes = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 99))
def test_it_is_pillows_bilinear_up_and_down(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).random((height, width), np.float32) * 255
    pillow = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    ours = bilinear(image[None, ..., None], (new_height, new_width))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0, ..., 0], np.asarray(pillow), rtol=1e-5, atol=1e-4)


def test_two_pixels_to_four_by_hand():
    # output centres at -1/4, 1/4, 3/4, 5/4 of the input's: the outer two repeat the edge
    row = np.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    assert bilinear(row, (1, 4)).ravel().tolist() == [0, 0.25, 0.75, 1]


def test_bytes_round_halves_up_and_the_same_size_changes_nothing():
    row = np.array([0, 2, 5, 255], np.uint8).reshape(1, 1, 4, 1)
    assert bilinear(row, (1, 2)).dtype == np.uint8
    middle = np.array([1, 2], np.uint8).reshape(1, 1, 2, 1)
    assert bilinear(middle, (1, 1)).ravel().tolist() == [2]  # 1.5
    images, _ = random_set(3, (6, 5, 3))
    np.testing.assert_array_equal(bilinear(images, (6, 5)), images)


def test_channels_and_images_do_not_mix():
    images = np.random.default_rng(2).random((1100, 3, 4, 2))
    whole = bilinear(images, (5, 7))
    for n, c in [(0, 0), (1023, 1), (1024, 0), (1099, 1)]:  # beyond one internal batch as well
        alone = bilinear(images[n : n + 1, ..., c : c + 1], (5, 7))
        np.testing.assert_allclose(whole[n, ..., c], alone[0, ..., 0], rtol=1e-13)


@pytest.mark.parametrize("size", [0, (3, 0), -2])
def test_a_size_below_one_is_refused(size):
    with pytest.raises(DataError, match="must be at least 1 in height and width"):
        bilinear(np.zeros((1, 2, 2, 1)), size)
