"""Passes for inference: what depends on weights alone is computed once, and kept.

They are for lists that hold no backward pass.  Weights and running statistics are state there, so
what is made of them stays as it is until somebody writes into them, as optimisers and
`load_state_dict` do: the program then makes it anew (it looks at the versions of buffers).

    batch_norm   conv or linear -> batch norm by its running statistics     is one launch, with
                 filters w * s and bias (b - mean) * s + beta, s = gamma / sqrt(var + eps)
    fast         filters are transformed for algorithms that do less arithmetic (Winograd's)
    layout       filters are laid out as the kernel reads them
    constants    launches that read nothing but constants leave the list

The first two round differently: an error of some units in the last place of the largest terms,
Winograd's as in `docs/decisions.md`.  The others change no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .launches import Facts, Launches, changed, fresh, same
from .tape import Launch, Tensor

FOLD = ("conv2d", "linear")  # y = act(x * w + b) with w[K, ...], b[K]


def batch_norm(launches: Launches, facts: Facts) -> Launches:
    """A batch norm by running statistics becomes a part of the filters and the bias before it.

    With a residual the product moves down to where that is ready, if its kernel can add one.
    """
    found: list[Sequence[Launch]] = [(launch,) for launch in launches]
    for i, launch in enumerate(launches):
        if launch.name not in FOLD or launch.params["activation"] is not None:
            continue
        y, (x, w, b) = launch.outs[0], launch.ins
        j = facts.only_reader(y)
        if j is None or launches[j].name != "batch_norm_infer":
            continue
        norm = launches[j]
        read, gamma, beta, residual, mean, var = norm.ins
        if not same(read, y) or norm.outs[0].layout != y.layout:
            continue
        if not all(map(facts.constant, (w, b, gamma, beta, mean, var))):
            continue
        if not facts.written_once(norm.outs[0]):
            continue
        ins: tuple[Tensor | None, ...] = ()
        if residual is not None:
            moves = residual.layout == y.layout and facts.may_move(launch, i, j)
            if not moves or not getattr(launch.kernel, "takes_residual", False):
                continue
            ins = (residual,)
        assert w is not None
        scaled, shift = fresh(w), fresh(w, w.shape[:1])
        statistics = (w, b, gamma, beta, mean, var)
        fold = _launch("fold_batch_norm", (scaled, shift), statistics, eps=norm.params["eps"])
        params = launch.params | {"activation": norm.params["activation"]}
        one = changed(launch, outs=norm.outs, ins=(x, scaled, shift, *ins), params=params)
        found[i], found[j] = (), (fold, one)
    return [launch for few in found for launch in few]


def _launch(name: str, outs: tuple, ins: tuple, **params: Any) -> Launch:
    """A launch of an op's kernel on the device of its first output."""
    arrays = [None if t is None else t.array for t in ins]
    kernel = outs[0].backend.kernel(name, arrays, params)
    return changed(Launch(name, kernel, outs, ins, (), params))


def fast(launches: Launches, facts: Facts) -> Launches:
    """Kernels that round differently, where constant filters make them the faster ones."""
    return _prepared(launches, facts, rounding=True)


def layout(launches: Launches, facts: Facts) -> Launches:
    """What a kernel does to filters before it begins becomes a launch of its own."""
    return _prepared(launches, facts, rounding=False)


def _prepared(launches: Launches, facts: Facts, rounding: bool) -> Launches:
    found: Launches = []
    for launch in launches:
        offered = getattr(launch.kernel, "ahead", None)
        parts = None
        if offered is not None:
            arrays = [None if t is None else t.array for t in (*launch.outs, *launch.ins)]
            parts = offered(*arrays, rounding=rounding, **launch.params)
        if parts is None or not all(facts.constant(launch.ins[k]) for k in parts.reads):
            found.append(launch)
            continue
        like = launch.outs[0]
        kept = tuple([fresh(like, shape) for shape in parts.kept])
        read = tuple([launch.ins[k] for k in parts.reads])
        name = f"{launch.name}_ahead"
        found.append(changed(Launch(name, parts.make, kept, read, (), dict(parts.params))))
        found.append(changed(launch, kernel=parts.run, ins=(*launch.ins, *kept)))
    return found


def split(launches: Launches, facts: Facts) -> tuple[Launches, Launches]:
    """-> what is to be done when weights have changed, and what is to be done in every call."""
    ahead = [launch for launch in launches if facts.lasts(launch)]
    always = [launch for launch in launches if not facts.lasts(launch)]
    return ahead, always
