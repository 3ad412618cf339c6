"""Every library is given the same network, and the same work."""

import numpy as np
import pytest

from bench.cpu import jax_peer, ours, served, torch_peer
from bench.cpu.measure import Disagreement, agree, made
from bench.cpu.networks import NETWORKS, Batch, Weights, batch_of

SMALL = [n for n in NETWORKS if n != "vgg_small"]  # whose layers vgg_small_bn has all


def offers_of(mode, name, size=2):
    weights, batch = ours.born(NETWORKS[name]), batch_of(NETWORKS[name], size)
    eager = [o for o in ours.offers(mode, weights, batch, ["numpy"]) if "eager" in o[0]]
    return weights, batch, eager


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("name", SMALL)
def test_torch_has_the_same_network(name, mode):
    weights, batch, offers = offers_of(mode, name)
    others = torch_peer.offers(mode, weights, batch, compile=False)
    others = [o for o in others if o[0] != "torch frozen"]
    assert len(others) == (1 if name == "mlp" else 2)
    found, left = made(offers + others)
    assert left == []
    agree(found, 2e-4, calls=2)


@pytest.mark.parametrize("name", ["vgg_small_bn", "resnet20"])
def test_in_float64_a_step_is_the_same_to_all_digits(name):
    """Over one image batch norm amplifies the rounding of float32: is it rounding alone?"""
    weights, batch = ours.born(NETWORKS[name]), batch_of(NETWORKS[name], 1)
    doubles = {key: np.float64(a) for key, a in weights.arrays.items()}
    weights, batch = Weights(weights.network, doubles), Batch(np.float64(batch.x), batch.y)
    found, _ = made([
        ("deepkit", lambda: ours.train_step("numpy", weights, batch, capture=False)),
        ("torch", lambda: torch_peer.train_step("torch", weights, batch, False, False)),
    ])  # fmt: skip
    agree(found, 1e-9)
    assert {one.read(one.step()).dtype for one in found} == {np.dtype(np.float64)}


def test_a_forgotten_weight_is_found_out():
    weights, batch, offers = offers_of("train", "lenet5")
    arrays = {k: a * (0.5 if a.ndim == 1 else 1.0) for k, a in weights.arrays.items()}
    others = torch_peer.offers("train", Weights(weights.network, arrays), batch, compile=False)
    found, _ = made(offers + others)
    with pytest.raises(Disagreement):
        agree(found, 2e-4)


@pytest.mark.parametrize("name", SMALL)
def test_jax_has_the_same_network(name):
    pytest.importorskip("jax")
    weights, batch, offers = offers_of("train", name)
    agree([made(offers)[0][0], jax_peer.train_step(weights, batch)], 2e-4)
    weights, batch, offers = offers_of("infer", name)
    agree([made(offers)[0][0], jax_peer.answer(weights, batch)], 2e-4)


@pytest.mark.parametrize("make", [served.onnxruntime_answer, served.openvino_answer])
def test_servers_have_the_same_network(make):
    pytest.importorskip("onnx")
    pytest.importorskip(make.__name__.partition("_")[0])
    weights, batch, offers = offers_of("infer", "lenet5")
    agree([made(offers)[0][0], make(weights, batch, 1)], 2e-4)


def test_the_linear_layer_after_images_is_reordered_and_no_other():
    weights = ours.born(NETWORKS["lenet5"])
    last, first = list(weights.arrays.values()), weights.first
    assert first[0].shape == (6, 1, 5, 5)
    image = np.random.default_rng(0).standard_normal((5, 5, 16))
    np.testing.assert_allclose(
        first[4] @ image.transpose(2, 0, 1).ravel(), last[4] @ image.ravel(), rtol=1e-4
    )
    np.testing.assert_array_equal(first[6], last[6])


def test_work_is_what_the_cards_count():
    offers = offers_of("infer", "mlp", size=3)[2]
    step = made(offers)[0][0]
    work = ours.work_of(step.work)
    products = 2 * 3 * (784 * 256 + 256 * 128 + 128 * 10)
    assert products <= work.operations < 1.02 * products
    assert work.nbytes >= 4 * (784 * 256 + 256 * 128 + 128 * 10)
