"""What pickle says of tensors and models, and which names completion shows."""

import copy
import pickle

import pytest

import deepkit as dk
from deepkit import nn, ops


@pytest.mark.parametrize("make", [lambda: dk.ones(2), lambda: nn.Sequential(nn.Linear(3, 2))])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_names_what_saves(make, protocol):
    with pytest.raises(TypeError, match=r"are not pickled: dk\.save\(path, model\)"):
        pickle.dumps(make(), protocol)


def test_ops_are_pickled_by_name():
    assert pickle.loads(pickle.dumps(ops.conv2d)) is ops.conv2d
    assert copy.deepcopy(ops.conv2d) is ops.conv2d


def test_copies_still_share_the_memory_or_do_not():
    x = dk.ones(2)
    same, other = copy.copy(x), copy.deepcopy(x)
    x.write([3.0, 4.0])
    assert (same.tolist(), other.tolist()) == ([3.0, 4.0], [1.0, 1.0])


@pytest.mark.parametrize("room", [dk, dk.nn, dk.models, dk.data, dk.optim, dk.ops])
def test_completion_shows_public_names_only(room):
    assert set(dir(room)) <= {*room.__all__, "__version__"}
    assert all(hasattr(room, name) for name in dir(room))


def test_completion_of_ops_is_what_users_call():
    names = dir(ops)
    assert {"conv2d", "cross_entropy", "batch_norm", "max_pool2d", "assign_"} <= set(names)
    assert not [n for n in names if n.endswith(("_dx", "_dw", "_step"))]
    assert not {"share", "product", "softmax_dx", "elementwise"} & set(names)
    assert callable(ops.softmax_dx)  # there all the same
