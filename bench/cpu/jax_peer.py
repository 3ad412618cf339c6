"""jax's contenders: one jitted function a step, channels last, parameters donated."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .measure import Contender, Offer
from .networks import EPS, Average, Batch, Block, Conv, Flatten, Network, Weights
from .ours import LR, MOMENTUM


def _conv(x: Any, w: Any, stride: int, padding: int) -> Any:
    from jax import lax

    sides = [(padding, padding)] * 2
    layout = ("NHWC", "OHWI", "NHWC")
    return lax.conv_general_dilated(x, w, (stride, stride), sides, dimension_numbers=layout)


def _norm(x: Any, values: list[Any], training: bool) -> tuple[Any, list[Any]]:
    """-> (normalised, the running statistics afterwards)."""
    gamma, beta, mean, var = values
    if training:
        here, square = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        unbiased = square * (count / max(count - 1, 1))
        kept = [0.9 * mean + 0.1 * here, 0.9 * var + 0.1 * unbiased]
        mean, var = here, square
    else:
        kept = [mean, var]
    return (x - mean) * (gamma * (var + EPS) ** -0.5) + beta, kept


def _forward(network: Network, arrays: list[Any], x: Any, training: bool) -> tuple[Any, list[Any]]:
    """-> (logits, all arrays, those of the running statistics renewed)."""
    import jax.numpy as jnp
    from jax import lax
    from jax.nn import relu

    left, after = iter(arrays), []

    def take(count: int) -> list[Any]:
        found = [next(left) for _ in range(count)]
        after.extend(found)
        return found

    def norm(x: Any) -> Any:
        y, kept = _norm(x, take(4), training)
        after[-2:] = kept
        return y

    for layer in network.layers:
        if isinstance(layer, Conv):
            x = _conv(x, *take(1), 1, layer.padding)
            x = relu(norm(x) if layer.norm else x + take(1)[0])
            if layer.pool:
                window = (1, 2, 2, 1)
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        elif isinstance(layer, Block):
            more = (layer.out - layer.inp) // 2
            y = relu(norm(_conv(x, *take(1), layer.stride, 1)))
            y = norm(_conv(y, *take(1), 1, 1))
            x = x[:, :: layer.stride, :: layer.stride]
            x = relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more, more))))
        elif isinstance(layer, Average):
            x = x.mean((1, 2))
        elif isinstance(layer, Flatten):
            x = x.reshape(len(x), -1)
        else:
            w, b = take(2)
            x = x @ w.T + b
            x = relu(x) if layer.relu else x
    return x, after


def train_step(weights: Weights, batch: Batch) -> Contender:
    import jax
    import jax.numpy as jnp

    network = weights.network
    x, y = jnp.asarray(batch.x), jnp.asarray(batch.y)
    state = [jnp.asarray(a) for a in weights.arrays.values()]
    speeds = [jnp.zeros_like(a) for a in state]
    learned = ["running" not in name for name in weights.arrays]

    def loss_of(state: list[Any], x: Any, y: Any) -> tuple[Any, list[Any]]:
        logits, after = _forward(network, state, x, training=True)
        logp = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(logp, y[:, None], axis=1).mean(), after

    def step(state: list[Any], speeds: list[Any], x: Any, y: Any) -> tuple[Any, list, list]:
        (loss, after), grads = jax.value_and_grad(loss_of, has_aux=True)(state, x, y)
        speeds = [MOMENTUM * v + g for v, g in zip(speeds, grads, strict=True)]
        moved = zip(after, speeds, learned, strict=True)
        return loss, [a - LR * v if learn else a for a, v, learn in moved], speeds

    jitted = jax.jit(step, donate_argnums=(0, 1))

    def run() -> Any:
        nonlocal state, speeds
        loss, state, speeds = jitted(state, speeds, x, y)
        jax.block_until_ready((loss, state))
        return loss

    return Contender("jax", run, np.asarray)


def answer(weights: Weights, batch: Batch) -> Contender:
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(batch.x)
    state = [jnp.asarray(a) for a in weights.arrays.values()]
    run = jax.jit(lambda x: _forward(weights.network, state, x, training=False)[0])
    return Contender("jax", lambda: np.asarray(run(x)), np.asarray)


def offers(mode: str, weights: Weights, batch: Batch, threads: int) -> list[Offer]:
    def make() -> Contender:
        import jax  # noqa: F401  (is it there at all?)

        if threads != os.cpu_count():
            raise RuntimeError(f"it uses all {os.cpu_count()} processors, which cannot be set")
        return {"train": train_step, "infer": answer}[mode](weights, batch)

    return [("jax", make)]
