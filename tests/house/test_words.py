"""Numbers in sentences agree with their nouns."""

import numpy as np
import pytest

import deepkit as dk
from deepkit import ops
from deepkit.train import History
from deepkit.words import counted


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "error", "0 errors"),
        (1, "error", "1 error"),
        (1437, "image", "1,437 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (3, "batch", "3 batches"),
        (2, "launch", "2 launches"),
        (2, "epoch", "2 epochs"),
    ],
)
def test_a_noun_follows_its_number(count, noun, said):
    assert counted(count, noun) == said


def test_what_is_said_of_one():
    assert repr(History([{"epoch": 1}])) == "History(1 epoch; the last: epoch=1)"
    grey, weight = dk.tensor(np.ones((1, 8, 8, 1), np.float32)), dk.ones(4, 3, 3, 3)
    with pytest.raises(dk.ShapeError, match=r"x has 1 channel but w expects 3 "):
        ops.conv2d(grey, weight)
