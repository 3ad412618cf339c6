"""Augmentation: each function against a plain loop, a formula or an exact case."""

import numpy as np
import pytest
from data.make_files import random_set

from deepkit.data import DataError, augment

ALL = {
    "random_shift": augment.random_shift(2),
    "random_crop": augment.random_crop(3, "reflect"),
    "random_flip": augment.random_flip(),
    "random_rotate": augment.random_rotate(20),
    "elastic": augment.elastic(8, 2),
    "compose": augment.compose(augment.random_flip(), augment.random_rotate(5)),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 9, 1), (7, 10, 3)])
def test_every_augmentation_keeps_shape_type_and_input(name, dtype, shape):
    images = random_set(16, shape)[0].astype(dtype)
    before = images.copy()
    out = ALL[name](images, rng())
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    assert not np.shares_memory(out, images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(ALL[name](images, rng()), out)  # the rng alone decides
    assert (ALL[name](images, rng(1)) != out).any()
    assert (out != images).any()


@pytest.mark.parametrize("name", ALL)
def test_every_image_has_random_numbers_of_its_own(name):
    images = np.repeat(random_set(1, (9, 9, 1))[0], 40, axis=0)
    assert len(np.unique(ALL[name](images, rng()).reshape(40, -1), axis=0)) > 1


def test_shift_moves_each_image_by_whole_pixels_and_fills_with_zeros():
    images = random_set(300, (5, 6, 2))[0] // 2 + 1  # no zeros inside
    out = augment.random_shift(2)(images, rng())
    seen = set()
    for image, moved in zip(images, out, strict=True):
        matches = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = np.zeros_like(image)
                for row in range(5):
                    for column in range(6):
                        if 0 <= row - down < 5 and 0 <= column - right < 6:
                            expected[row, column] = image[row - down, column - right]
                if (expected == moved).all():
                    matches.append((down, right))
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 25  # every shift occurs among 300


def test_crop_reflect_shows_no_zeros():
    images = np.full((50, 6, 6, 1), 9, np.uint8)
    assert (augment.random_crop(2, "reflect")(images, rng()) == 9).all()
    assert (augment.random_crop(2)(images, rng()) == 0).any()


def test_flip_mirrors_about_half():
    images = random_set(400, (3, 4, 1))[0]
    out = augment.random_flip()(images, rng())
    flipped = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert (flipped | kept).all()
    assert 150 < flipped.sum() < 250
    np.testing.assert_array_equal(augment.random_flip(1)(images, rng()), images[:, :, ::-1])
    np.testing.assert_array_equal(augment.random_flip(0)(images, rng()), images)


def bilinear_at(image, row, column):
    """One sample, by the definition: the four neighbours, zeros outside."""
    height, width = image.shape
    total = 0.0
    for r in (int(np.floor(row)), int(np.floor(row)) + 1):
        for c in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def test_rotation_is_the_definition_pixel_by_pixel():
    images = rng(3).random((4, 6, 9, 1))
    out = augment.random_rotate(60)(images, rng(5))
    angles = np.deg2rad(rng(5).uniform(-60, 60, 4))
    for image, turned, angle in zip(images, out, angles, strict=True):
        for row in range(6):
            for column in range(9):
                y, x = row - 2.5, column - 4
                source = (
                    np.cos(angle) * y - np.sin(angle) * x + 2.5,
                    np.sin(angle) * y + np.cos(angle) * x + 4,
                )
                expected = bilinear_at(image[..., 0], *source)
                assert turned[row, column, 0] == pytest.approx(expected, abs=1e-12)


class _Quarter:
    """A source of random numbers that always draws a quarter turn."""

    def uniform(self, low, high, size):
        return np.full(size, 90.0)


def test_a_quarter_turn_is_exact():
    images = random_set(3, (8, 8, 3))[0]
    out = augment.random_rotate(90)(images, _Quarter())
    turned = np.rot90(images, axes=(1, 2))
    assert (out == turned).all() or (out == np.rot90(images, -1, (1, 2))).all()


def test_no_change_changes_nothing():
    for images in (random_set(5, (7, 8, 3))[0], rng(1).random((5, 7, 8, 3))):
        for still in (augment.random_shift(0), augment.random_rotate(0), augment.elastic(0, 3)):
            np.testing.assert_array_equal(still(images, rng()), images)
        np.testing.assert_array_equal(augment.compose()(images, rng()), images)


def test_elastic_moves_neighbours_together():
    # on a ramp that grows by one a column, the change of value is the displacement itself
    ramp = np.broadcast_to(np.arange(64.0), (20, 64, 64))[..., None]
    moved = (augment.elastic(34, 4)(ramp, rng()) - ramp)[:, 16:48, 16:48, 0]
    # noise of variance alpha^2 / 3, averaged by a Gaussian, has variance / (4 pi sigma^2)
    expected = 34 / np.sqrt(3) / np.sqrt(4 * np.pi * 4**2)
    assert moved.std() == pytest.approx(expected, rel=0.15)
    steps = np.diff(moved, axis=2)
    assert steps.std() < 0.25 * moved.std()


def test_compose_runs_from_left_to_right():
    def double(images, _):
        return images * 2

    def increment(images, _):
        return images + 1

    images = np.ones((1, 1, 1, 1))
    assert augment.compose(double, increment)(images, rng()).item() == 3
    assert augment.compose(increment, double)(images, rng()).item() == 4


@pytest.mark.parametrize(
    "make, arguments, expected",
    [
        (augment.random_shift, (-1,), "pixels must be from 0 to 1024, not -1"),
        (augment.random_crop, (1.5,), "padding must be a whole number of pixels, not 1.5"),
        (augment.random_crop, (1, "wrap"), "mode must be 'constant' or 'reflect', not 'wrap'"),
        (augment.random_flip, (1.2,), r"probability must be in \[0, 1\], not 1.2"),
        (augment.random_rotate, (float("nan"),), "degrees must be from 0 to 360, not nan"),
        (augment.elastic, (-2, 3), "alpha must be from 0 to 1024, not -2"),
        (augment.elastic, (2, 0), "sigma must be above 0 and at most 1024, not 0"),
    ],
)
def test_wrong_settings_are_named_when_they_are_made(make, arguments, expected):
    with pytest.raises(DataError, match=expected):
        make(*arguments)
