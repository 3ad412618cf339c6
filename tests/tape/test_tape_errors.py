"""Mistakes are answered with one sentence: what is wrong, in the user's own numbers."""

import re

import numpy as np
import pytest

import deepkit as dk
from deepkit.card import parse, registry
from deepkit.tape import Op

ONES = np.ones((4, 3))


def x(*shape, **options):
    return dk.tensor(np.ones(shape), **options)


def says(error, sentence):
    return pytest.raises(error, match="^" + re.escape(sentence) + "$")


# shapes -------------------------------------------------------------------------------------------


def test_matmul():
    sentence = "matmul: inner sizes 3 and 4 differ   (a is (2, 3), b is (4, 5))"
    with says(dk.ShapeError, sentence):
        x(2, 3) @ x(4, 5)


def test_linear():
    sentence = "linear: x has 3 features but w expects 4   (x (2, 3) is N,in; w (5, 4) is out,in)"
    with says(dk.ShapeError, sentence):
        dk.ops.linear(x(2, 3), x(5, 4))
    sentence = "linear: b is (4,) but w has 5 outputs   (w (5, 3) is out,in)"
    with says(dk.ShapeError, sentence):
        dk.ops.linear(x(2, 3), x(5, 3), x(4))


def test_conv2d():
    """The sentence of the architecture's page."""
    sentence = (
        "conv2d: x has 3 channels but w expects 5   "
        "(x (1, 4, 4, 3) is N,H,W,C; w (2, 3, 3, 5) is K,R,S,C)"
    )
    with says(dk.ShapeError, sentence):
        dk.ops.conv2d(x(1, 4, 4, 3), x(2, 3, 3, 5))


def test_broadcasting():
    with says(dk.ShapeError, "add: shapes (4, 3) and (2, 3) do not broadcast together"):
        x(4, 3) + x(2, 3)


def test_reshape():
    with says(dk.ShapeError, "reshape: (4, 3) holds 12 elements, which do not fit (5, 2)"):
        x(4, 3).reshape(5, 2)
    with pytest.raises(dk.ShapeError, match="at most one -1"):
        x(4, 3).reshape(-1, -1)


def test_axes():
    with says(dk.ShapeError, "sum: axis 2 does not exist in a tensor of 2 axes"):
        x(4, 3).sum(axis=2)
    with says(dk.ShapeError, "sum: axis (0, -2) names one axis twice"):
        x(4, 3).sum(axis=(0, -2))


def test_an_axis_of_a_tensor_without_axes():
    scalar = x()
    for call in (
        lambda: dk.ops.take(scalar, dk.tensor(np.array([0]))),
        lambda: scalar.argmax(axis=0),
        lambda: scalar.softmax(),
        lambda: scalar[0],
        lambda: dk.ops.concat([scalar, scalar]),
    ):
        with pytest.raises((dk.ShapeError, IndexError)) as caught:
            call()
        assert "tuple index out of range" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: x().sum(axis=0),
        lambda: x(3).expand_dims(2),
        lambda: x(3).expand_dims(-3),
        lambda: x(3).squeeze(1),
        lambda: dk.ops.stack([x(3), x(3)], axis=2),
        lambda: x().transpose(0),
    ],
)
def test_axes_that_do_not_exist(call):
    with pytest.raises(dk.ShapeError, match=r"axis|axes"):
        call()


def test_nothing_to_reduce():
    with pytest.raises(dk.ShapeError, match=r"max: nothing to reduce .* \(0, 3\)"):
        dk.tensor(np.ones((0, 3))).max(axis=0)

    sentence = "mse: no mean over no elements   (the losses are (0, 3))"
    with says(dk.ShapeError, sentence):
        dk.ops.mse(x(0, 3), x(0, 3))
    assert dk.ops.mse(x(0, 3), x(0, 3), reduction="sum").item() == 0
    sentence = "global_avg_pool2d: no pixels to average   (x (2, 0, 3, 4) is N,H,W,C)"
    with says(dk.ShapeError, sentence):
        dk.ops.global_avg_pool2d(x(2, 0, 3, 4))


def test_numbers_that_an_option_cannot_be():
    a = x(4, 3)

    def norm(**options):
        return dk.ops.batch_norm(a, None, None, None, None, training=True, **options)

    with says(ValueError, "batch_norm: momentum must be from 0 to 1, not None"):
        norm(momentum=None)
    with says(ValueError, "batch_norm: eps must be above 0, not nan"):
        norm(eps=float("nan"))
    with says(ValueError, "batch_norm: eps must be above 0, not -1"):
        dk.ops.batch_norm(a, None, None, x(3), x(3), training=False, eps=-1)
    with says(ValueError, "layer_norm: eps must be above 0, not inf"):
        dk.ops.layer_norm(a, 3, eps=float("inf"))
    with says(ValueError, "local_response_norm: alpha must be finite, not nan"):
        dk.ops.local_response_norm(a, 3, alpha=float("nan"))
    with says(ValueError, "dropout: p must be from 0 to 1, not None"):
        dk.ops.dropout(a, None)


def test_an_error_leaves_nothing_behind():
    a = x(4, 3, requires_grad=True)
    with pytest.raises(dk.ShapeError):
        a + x(2, 3)
    (a * 2.0).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), 2 * ONES)


# dtypes and kinds ---------------------------------------------------------------------------------


def test_dtypes_are_mixed_only_by_elementwise_ops():
    a, b = x(4, 3), x(5, 3).astype("float32")
    sentence = "linear: inputs are float64, float32; cast them to one with x.astype(...)"
    with says(TypeError, sentence):
        dk.ops.linear(a, b)
    assert (x(3) + x(3).astype("float32")).dtype == np.float64


def test_integers_where_floats_are_expected():
    with pytest.raises(TypeError, match="exp: expected float inputs, not int64"):
        dk.tensor(np.arange(3)).exp()


def test_dtypes_that_do_not_exist():
    with pytest.raises(TypeError, match="expected dtype float32, float64, an integer type or bool"):
        x(3).astype("float16")
    with pytest.raises(TypeError, match="expected dtype"):
        dk.tensor(["a"])


def test_something_else_than_a_tensor():
    sentence = (
        "exp: x must be a tensor, not ndarray; use dk.tensor(x)   "
        "(an array becomes a tensor by itself only beside one: it goes to its device)"
    )
    with says(TypeError, sentence):
        dk.ops.exp(ONES)
    with pytest.raises(TypeError, match="add: expected a tensor or a number, not str"):
        x(3) + "a"
    with pytest.raises(TypeError, match="add: expected at least one tensor, not float"):
        dk.ops.add(1.0, 2.0)


def test_labels_that_are_no_integers():
    sentence = (
        "cross_entropy: labels must be integers, not float32; cast them with "
        "target.astype('int64')   (logits (8, 10); target (8,); "
        "probabilities have the shape of logits)"
    )
    with says(TypeError, sentence):
        dk.ops.cross_entropy(dk.zeros(8, 10), dk.zeros(8))
    with pytest.raises(dk.ShapeError, match="logits has shape"):
        dk.ops.cross_entropy(dk.zeros(8, 10), dk.zeros(8, 9))
    with pytest.raises(TypeError, match=re.escape("target must be a tensor, not ndarray")):
        dk.ops.cross_entropy(dk.zeros(8, 10), np.zeros(8, int))


def test_options_that_do_not_exist():
    sentence = "linear: unknown activation 'swish'   (known: 'relu', 'tanh', 'sigmoid', or None)"
    with says(ValueError, sentence):
        dk.ops.linear(x(2, 3), x(5, 3), activation="swish")


# devices ------------------------------------------------------------------------------------------


def test_an_unknown_device():
    with pytest.raises(dk.DeviceError, match=r"unknown device 'tpu'   \(known devices: 'numpy'"):
        x(3, device="tpu")
    with pytest.raises(dk.DeviceError, match="unknown device"):
        dk.set_device("nonsense")
    with pytest.raises(dk.DeviceError, match="unknown device"):
        x(3).to("nonsense")


@pytest.mark.skipif(len(dk.devices()) < 2, reason="one device alone cannot be mixed")
def test_devices_are_not_mixed():
    here, there = "numpy", next(d for d in dk.devices() if d != "numpy")
    sentence = (
        f"add: inputs are on '{here}' and on '{there}'; "
        f"move one of them, for example with b.to('{here}')"
    )
    with says(dk.DeviceError, sentence):
        x(3, device=here) + x(3, device=there)
    for model, data in (here, there), (there, here):
        with dk.device(model):
            net = dk.nn.Linear(3, 2, bias=False)
        with pytest.raises(dk.DeviceError) as caught:
            net(dk.ones(4, 3, device=data))
        (cure,) = re.findall(r"for example with (.+)$", str(caught.value))
        assert cure == f"model.to('{data}')"
        eval(cure, {"model": net})
        assert net(dk.ones(4, 3, device=data)).shape == (4, 2)
        with pytest.raises(dk.DeviceError, match=rf"with b\.to\('{data}'\)"):
            x(3, device=data) * x(3, device=model)
    mean, var = x(3, device=there), x(3, device=there)
    with pytest.raises(dk.DeviceError, match=f"inputs are on '{here}' and on '{there}'"):
        dk.ops.batch_norm(x(4, 3, device=here), None, None, mean, var, training=False)


@pytest.mark.skipif(len(dk.devices()) < 2, reason="one device alone has nowhere to move to")
def test_gradients_flow_back_across_devices():
    there = next(d for d in dk.devices() if d != "numpy")
    a = x(4, 3, device="numpy", requires_grad=True)
    b = a.to(there)
    assert b.device == there
    (b * 3.0).sum().backward()
    assert a.grad.device == "numpy"
    np.testing.assert_array_equal(a.grad.numpy(), 3 * ONES)


def test_a_missing_kernel_says_so(monkeypatch):
    monkeypatch.delitem(dk.backends.get("numpy").table, "exp")
    with says(NotImplementedError, "backend 'numpy' has no kernel for 'exp'"):
        x(3, device="numpy").exp()


# backward -----------------------------------------------------------------------------------------


def test_backward_of_what_is_no_scalar():
    sentence = (
        "backward: a tensor of shape (4, 3) is no scalar; "
        "reduce it (y.sum()) or give the gradient's weights"
    )
    with says(ValueError, sentence):
        (x(4, 3, requires_grad=True) * 2.0).backward()


def test_backward_without_anything_to_differentiate():
    sentence = (
        "backward: the tensor of shape () does not require gradients   "
        "(something that it is computed from needs requires_grad=True, outside of dk.no_grad(); "
        "for what a captured step computes, call backward inside of it)"
    )
    with says(ValueError, sentence):
        x(3).sum().backward()
    with says(ValueError, "grad: the tensor of shape (3,) does not require gradients"):
        dk.grad(x(3, requires_grad=True).sum(), x(3))


def test_weights_of_another_shape():
    y = x(4, 3, requires_grad=True) * 2.0
    with says(ValueError, "backward: y has shape (4, 3) but its weights (3, 4)"):
        y.backward(x(3, 4))


def test_requires_grad_is_for_floats_and_leaves():
    with says(ValueError, "requires_grad: only float tensors have gradients, not int64"):
        dk.tensor(np.arange(3), requires_grad=True)
    y = x(3, requires_grad=True) * 2.0
    with pytest.raises(ValueError, match="only leaves can be switched off"):
        y.requires_grad = False


def test_an_input_changed_in_place_is_noticed():
    a = x(4, 3, requires_grad=True)
    b = a * 2.0
    y = (b * b).sum()
    dk.ops.fill_(b.detach(), value=0.0)
    sentence = (
        "mul: an input of shape (4, 3) was changed in place after it was used, "
        "so its gradient would be wrong; run backward before the change"
    )
    with says(RuntimeError, sentence):
        y.backward()


def test_a_leaf_written_from_the_host_is_noticed():
    w = x(3, requires_grad=True)
    y = (w * w).sum()
    w.write(np.zeros(3))
    with pytest.raises(RuntimeError, match="was changed in place after it was used"):
        y.backward()


def test_a_change_before_its_use_is_fine():
    w = x(3, requires_grad=True)
    w.write(np.full(3, 5.0))
    (w * w).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [10, 10, 10])


# the host -----------------------------------------------------------------------------------------


def test_item_and_write():
    with says(ValueError, "item: expected one element, not shape (4, 3)"):
        x(4, 3).item()
    with says(ValueError, "write: expected shape (3,), not (2,)"):
        x(3).write(np.zeros(2))
    with pytest.raises(ValueError, match="the values form no array"):
        dk.tensor([[1.0, 2.0], [3.0]])


# cards --------------------------------------------------------------------------------------------


def test_a_signature_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"signature .* cannot be read at"):
        parse("x[N -> y[N]")


def test_signatures():
    ins, outs = parse("x[N,H,W,C], w[K,R,S,C/groups], b[K]?, m[C]!? -> y[N,P,Q,K], i[N]~")
    assert [o.name for o in ins] == ["x", "w", "b", "m"]
    assert ins[1].axes == ("K", "R", "S", "C/groups")
    assert [o.optional for o in ins] == [False, False, True, True]
    assert [o.inplace for o in ins] == [False, False, False, True]
    assert [o.batched for o in ins] == [True, False, False, False]
    assert [o.constant for o in outs] == [False, True]
    assert parse("xs[...]+ -> y[]") == (
        parse("xs[...]+ ->")[0],
        parse("-> y[]")[1],
    )
    assert parse("x[*]! ->")[1] == ()


def test_every_op_of_the_registry_shows_its_signature():
    for name, op in registry.items():
        assert isinstance(op, Op)
        assert repr(op) == f"<op {name}: {op.signature}>"


def test_arange_without_a_step():
    with says(ValueError, "arange: step must not be 0"):
        dk.arange(0, 4, 0)


def test_convolution_without_channels():
    sentence = "at least one channel in and out was expected"
    with pytest.raises(dk.ShapeError, match=sentence):
        dk.ops.conv2d(dk.zeros(1, 4, 4, 0), dk.zeros(2, 3, 3, 0))
    with pytest.raises(dk.ShapeError, match=sentence):
        dk.ops.conv2d(dk.zeros(1, 4, 4, 2), dk.zeros(0, 3, 3, 2))


def test_threads():
    for count in (0, -1, 1.5, True):
        with says(
            ValueError, f"set_num_threads: expected a whole number from 1 to 1024, not {count!r}"
        ):
            dk.set_num_threads(count)


def test_negative_powers_of_integers():
    with says(ValueError, "pow: integers have no power -1; cast with x.astype('float32')"):
        dk.arange(1, 4) ** -1


def test_clip_of_booleans():
    with pytest.raises(TypeError, match="nothing to clip"):
        dk.ops.clip(dk.arange(3) > 1, 0, 1)
