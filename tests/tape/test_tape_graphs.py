"""Backward over any directed acyclic graph."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import deepkit as dk
from deepkit.testing import check_grad, check_grad2


def leaf(values, device="numpy"):
    return dk.tensor(np.asarray(values, np.float64), device, requires_grad=True)


def near(t, want):
    np.testing.assert_allclose(t.numpy(), want, rtol=1e-12, atol=1e-12)


# shapes of graphs ---------------------------------------------------------------------------------


def test_a_shared_weight_gets_the_sum():
    w = leaf([2.0, 3.0])
    y = (w * w * w).sum() + (w * 5.0).sum()
    y.backward()
    near(w.grad, [3 * 4 + 5, 3 * 9 + 5])


def test_an_operand_used_twice_by_one_op():
    x = leaf([2.0, -3.0])
    (x + x).sum().backward()
    near(x.grad, [2, 2])
    x.grad = None
    (x * x).sum().backward()
    near(x.grad, [4, -6])


def test_a_diamond():
    x = leaf([0.5, 1.5])
    left, right = x.exp(), x.sin()
    (left * right).sum().backward()
    a = np.array([0.5, 1.5])
    near(x.grad, np.exp(a) * (np.sin(a) + np.cos(a)))


def test_a_chain_of_diamonds_is_swept_once_a_call():
    """2^60 paths: only a sweep that adds up before it goes on comes to an end."""
    x = leaf([1.0])
    y = x
    for _ in range(60):
        y = (y + y) * 0.5
    y.sum().backward()
    near(x.grad, [1.0])


def test_a_deep_graph_needs_no_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(5000):
        y = y + 0.001
    y.sum().backward()
    near(x.grad, [1.0])


def test_skips_of_different_length():
    check_grad(lambda x: (x.tanh().tanh() + x).tanh() + x.tanh() + x, [np.array([0.3, -1.2])])


def test_several_outputs():
    """layer and batch normalisation have more outputs inside; here gradients of a list of them."""
    x = leaf([1.0, 2.0])
    a, b = x * 3.0, x * x
    g = dk.grad([a, b], x, [dk.tensor(np.array([1.0, 0.0])), dk.tensor(np.array([0.0, 1.0]))])
    near(g, [3.0, 4.0])


def test_an_output_that_depends_on_another_output():
    x = leaf([1.0, 2.0])
    a = x * 3.0
    b = a * a
    one = dk.tensor(np.ones(2))
    near(dk.grad([a, b], x, [one, one]), 3 + 18 * np.array([1.0, 2.0]))
    near(dk.grad([b, a], x, [one, one]), 3 + 18 * np.array([1.0, 2.0]))


def test_the_same_output_twice():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    near(dk.grad([y, y], x), 4 * np.array([1.0, 2.0]))


def test_parts_that_do_not_require_gradients_are_left_out():
    x, frozen = leaf([1.0, 2.0]), dk.tensor(np.array([3.0, 4.0]))
    y = (x * frozen).sum()
    y.backward()
    near(x.grad, [3, 4])
    assert frozen.grad is None
    assert not (frozen * 2.0).requires_grad


def test_detach_cuts():
    x = leaf([1.0, 2.0])
    (x.detach() * x).sum().backward()
    near(x.grad, [1, 2])
    assert not x.detach().requires_grad


def test_broadcast_operands_get_gradients_of_their_own_shape():
    a, b, c = leaf(np.ones((2, 1, 3))), leaf(np.ones((4, 1))), leaf(2.0)
    (a * b * c).sum().backward()
    assert (a.grad.shape, b.grad.shape, c.grad.shape) == ((2, 1, 3), (4, 1), ())
    near(a.grad, np.full((2, 1, 3), 8.0))
    near(b.grad, np.full((4, 1), 12.0))
    near(c.grad, 24.0)


# dk.grad ------------------------------------------------------------------------------------------


def test_grad_of_an_intermediate():
    x = leaf([1.0, 2.0])
    h = x * x
    y = (h * h).sum()
    near(dk.grad(y, h), 2 * np.array([1.0, 4.0]))
    gx, gh = dk.grad(y, [x, h])
    near(gx, 4 * np.array([1.0, 8.0]))
    near(gh, 2 * np.array([1.0, 4.0]))
    assert x.grad is None
    assert h.grad is None


def test_grad_of_the_output_itself():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    gy, gx = dk.grad(y, [y, x])
    near(gy, 1.0)
    near(gx, [2, 4])


def test_grad_of_what_does_not_matter_is_zero():
    x, other = leaf([1.0, 2.0]), leaf([[5.0]])
    g = dk.grad((x * x).sum(), [x, other])
    near(g[1], [[0.0]])


def test_grad_weights():
    x = leaf([1.0, 2.0])
    y = x * x
    near(dk.grad(y, x, dk.tensor(np.array([10.0, 1.0]))), [20, 4])


def test_create_graph():
    x = leaf([0.5, 1.5])
    (g,) = dk.grad((x * x * x).sum(), [x], create_graph=True)
    (g2,) = dk.grad(g.sum(), [x], create_graph=True)
    (g3,) = dk.grad(g2.sum(), [x])
    near(g, [0.75, 6.75])
    near(g2, [3, 9])
    near(g3, [6, 6])
    assert g.requires_grad
    assert not g3.requires_grad


def test_one_of_several_results_of_a_call_may_have_no_part_in_y():
    x, w, b = leaf(np.ones((4, 3)) * [1, 2, 4]), leaf(np.ones(3)), leaf(np.ones(3))
    loss = (dk.ops.layer_norm(x, 3, w, b) ** 2).sum()
    dx, dw = dk.grad(loss, [x, w], create_graph=True)  # of one call, which gives both
    d2, zero = dk.grad((dx * dx).sum(), [dx, dw])
    near(d2, 2 * dx.numpy())
    near(zero, np.zeros(3))


def test_only_what_is_asked_for_is_computed():
    x, w = leaf(np.ones((4, 3))), leaf(np.ones((2, 3)))
    aside = leaf(np.ones((4, 2)))

    def launched(of):
        step = dk.capture(lambda: dk.grad((dk.ops.linear(x, w) + aside.exp()).sum(), of()))
        step()
        return step.dump()

    names = ("linear_dx(", "linear_dw(", "mul(")
    only_x, only_w = launched(lambda: x), launched(lambda: w)
    assert [name in only_x for name in names] == [True, False, False]
    assert [name in only_w for name in names] == [False, True, False]
    assert all(name in launched(lambda: [x, w, aside]) for name in names)


def test_without_create_graph_gradients_have_no_history():
    x = leaf([1.0])
    assert not dk.grad((x * x).sum(), x).requires_grad
    (x * x).sum().backward()
    assert not x.grad.requires_grad


def test_a_gradient_penalty_reaches_the_weights():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))

    def penalty(x, w):
        g = dk.grad((x @ w).tanh().sum(), x, create_graph=True)
        return (g * g).sum()

    check_grad(penalty, [x, w])


# accumulation -------------------------------------------------------------------------------------


def test_backward_adds_up_until_it_is_cleared():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    (x * x).sum().backward()
    near(x.grad, [4, 8])
    x.grad = None
    assert x.grad is None
    (x * x).sum().backward()
    near(x.grad, [2, 4])


def test_backward_twice_over_one_graph():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    y.backward()
    near(x.grad, [4, 8])


def test_only_leaves_keep_gradients():
    x = leaf([1.0])
    h = x * 2.0
    h.sum().backward()
    assert h.grad is None
    near(x.grad, [2.0])


def test_backward_of_a_leaf():
    x = leaf(3.0)
    x.backward()
    near(x.grad, 1.0)


def test_the_gradient_can_be_assigned():
    x = leaf([1.0, 2.0])
    x.grad = dk.tensor(np.array([5.0, 6.0]))
    near(x.grad, [5, 6])
    with pytest.raises(ValueError, match=r"grad: expected shape \(2,\), not \(3,\)"):
        x.grad = dk.tensor(np.zeros(3))


# modes --------------------------------------------------------------------------------------------


def test_no_grad():
    x = leaf([1.0])
    with dk.no_grad():
        assert not dk.is_grad_enabled()
        y = x * 2.0
        with dk.enable_grad():
            z = x * 2.0
    assert dk.is_grad_enabled()
    assert not y.requires_grad
    assert z.requires_grad


def test_no_grad_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), dk.no_grad():
        raise ZeroDivisionError
    assert dk.is_grad_enabled()


def test_integers_and_comparisons_have_no_history():
    x = leaf([1.0, 2.0])
    assert not (x > 1.5).requires_grad
    assert not x.argmax().requires_grad
    assert not x.astype("int64").requires_grad
    assert x.astype("float32").requires_grad


def test_the_gradient_of_a_cast_has_the_dtype_of_its_input():
    x = leaf([1.0, 2.0])
    (x.astype("float32") * 3.0).sum().backward()
    assert x.grad.dtype == np.float64
    near(x.grad, [3, 3])


# memory -------------------------------------------------------------------------------------------


def test_a_graph_is_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.ones((4, 3)))
        h = x * 2.0
        y = ((h.tanh() + h) @ leaf(np.ones((3, 2)))).sum()
        watched = [weakref.ref(h), weakref.ref(y)]
        y.backward()
        g = dk.grad(y, x, create_graph=True)
        watched.append(weakref.ref(g))
        del h, y, g
        assert [w() for w in watched] == [None] * len(watched)
    finally:
        gc.enable()


def test_a_graph_with_several_outputs_is_freed_too():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.random.default_rng(0).standard_normal((4, 3)))
        y = dk.ops.layer_norm(x, 3)
        watched = weakref.ref(y)
        y.sum().backward()
        del y
        assert watched() is None
    finally:
        gc.enable()


# random graphs ------------------------------------------------------------------------------------

UNARY = ["tanh", "sin", "sigmoid", "neg", "exp", "softplus"]
BINARY = ["add", "sub", "mul", "maximum", "div"]
SHAPES = [(3,), (2, 3), (2, 1), (1, 3), ()]


@st.composite
def graphs(draw):
    """Leaves, then nodes that read any earlier ones: (shapes, [(op, indices)], outputs)."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4))
    nodes = []
    for i in range(draw(st.integers(1, 12))):
        known = st.integers(0, len(shapes) + i - 1)
        if draw(st.booleans()):
            nodes.append((draw(st.sampled_from(UNARY)), (draw(known),)))
        else:
            nodes.append((draw(st.sampled_from(BINARY)), (draw(known), draw(known))))
    last = st.integers(len(shapes), len(shapes) + len(nodes) - 1)
    outputs = draw(st.lists(last, min_size=1, max_size=3, unique=True))
    return shapes, nodes, outputs


def run_graph(nodes, outputs):
    def function(*leaves):
        values = list(leaves)
        for name, at in nodes:
            operands = [values[i] for i in at]
            if name == "div":  # away from zero
                operands[1] = operands[1].tanh() + 2.0
            if name == "exp":  # away from overflow
                operands[0] = operands[0].tanh()
            values.append(getattr(dk.ops, name)(*operands))
        return [values[i].tanh() for i in outputs]

    return function


@given(graph=graphs(), seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_random_graphs(graph, seed):
    shapes, nodes, outputs = graph
    rng = np.random.default_rng(seed)
    check_grad(run_graph(nodes, outputs), [rng.standard_normal(s) for s in shapes], seed=seed)


@given(graph=graphs(), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_random_graphs_in_second_order(graph, seed):
    shapes, nodes, outputs = graph
    rng = np.random.default_rng(seed)
    check_grad2(run_graph(nodes, outputs), [rng.standard_normal(s) for s in shapes], seed=seed)


@pytest.mark.slow
@given(graph=graphs(), seed=st.integers(0, 2**20))
@settings(settings.get_profile("slow"))
def test_random_graphs_at_length(graph, seed):
    shapes, nodes, outputs = graph
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in shapes]
    check_grad(run_graph(nodes, outputs), arrays, seed=seed)
    check_grad2(run_graph(nodes, outputs), arrays, seed=seed)


@pytest.mark.parametrize("device", dk.devices())
@given(graph=graphs(), seed=st.integers(0, 1000))
def test_devices_agree_on_random_graphs(device, graph, seed):
    shapes, nodes, outputs = graph
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in shapes]
    found = []
    for where in ("numpy", device):
        xs = [dk.tensor(a, where, requires_grad=True) for a in arrays]
        total = sum((y.sum() for y in run_graph(nodes, outputs)(*xs)), start=xs[0].sum())
        found.append([g.numpy() for g in dk.grad(total, xs)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
