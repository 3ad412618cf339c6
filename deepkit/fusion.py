"""Passes over the list of launches of a captured step: fewer launches, the same numbers.

A pass takes a list and gives a list.  Those here change no bit of any result: each moves an
operation to where its operands are at hand, and leaves its arithmetic as it is.  Those of
`inference.py` are for steps without a backward pass, and two of them round differently.

    activation   conv, linear or batch norm -> relu, tanh or sigmoid     is one launch, as if the
                 user had given `activation=` to the first
    residual     batch norm -> add -> relu                               likewise with `residual=`
    relu_pool    max-pool backward -> relu backward                      the other way round: relu
                 looks at the pooled values, a quarter of them
    relu_norm    relu backward -> batch norm backward                    is one launch
    loss         cross entropy, and its gradient                         likewise
    assign       anything -> assign                                      writes where it is kept
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from . import inference
from .launches import Facts, Launches, changed, fresh, same
from .tape import Buffer, Launch

ACTIVATIONS = ("relu", "tanh", "sigmoid")
TAKE_ACTIVATION = ("conv2d", "linear", "batch_norm_train", "batch_norm_infer")


def activation(launches: Launches, facts: Facts) -> Launches:
    """The activation becomes a part of the launch that gives what it is applied to."""
    found, gone = list(launches), set()
    for i, launch in enumerate(launches):
        if launch.name not in TAKE_ACTIVATION or launch.params["activation"] is not None:
            continue
        y = launch.outs[0]
        j = facts.only_reader(y)
        if j is None or launches[j].name not in ACTIVATIONS or launches[j].params:
            continue
        after = launches[j]
        fits = same(after.ins[0], y) and after.outs[0].layout == y.layout
        if fits and facts.written_once(after.outs[0]):
            params = launch.params | {"activation": after.name}
            outs = (after.outs[0], *launch.outs[1:])
            found[i] = changed(launch, outs=outs, params=params)
            gone.add(j)
    return [launch for i, launch in enumerate(found) if i not in gone]


NORMS = {"batch_norm_train": 3, "batch_norm_infer": 3}  # where their inputs have the residual


def residual(launches: Launches, facts: Facts) -> Launches:
    """What is added to a batch norm before its relu becomes the residual of the batch norm.

    The batch norm moves down to the sum, where both of its operands are ready.
    """
    found, gone = list(launches), set()
    for i, launch in enumerate(launches):
        at = NORMS.get(launch.name)
        if at is None or launch.params["activation"] is not None or launch.ins[at] is not None:
            continue
        y = launch.outs[0]
        j = facts.only_reader(y)
        if j is None or launches[j].name != "add" or len(launches[j].ins) != 2:
            continue
        total, operands = launches[j].outs[0], launches[j].ins
        k = facts.only_reader(total)
        if k is None or launches[k].name != "relu" or k in gone:
            continue
        others = [t for t in operands if not same(t, y)]
        if len(others) != 1 or others[0] is None:
            continue
        other, last = others[0], launches[k].outs[0]
        if other.shape != y.shape or {other.layout, total.layout, last.layout} != {y.layout}:
            continue
        without_y = launch._replace(outs=launch.outs[1:])
        if not (facts.may_move(without_y, i, j) and facts.written_once(last)):
            continue
        ins = (*launch.ins[:at], other, *launch.ins[at + 1 :])
        params = launch.params | {"activation": "relu"}
        found[j] = changed(launch, ins=ins, outs=(last, *launch.outs[1:]), params=params)
        gone |= {i, k}
    return [launch for i, launch in enumerate(found) if i not in gone]


def relu_pool(launches: Launches, facts: Facts) -> Launches:
    """relu'(max-pool'(g)) = max-pool'(relu'(g)): what a window has chosen is its pooled value."""
    forward = {id(f.outs[1].buffer): f for f in launches if f.name == "max_pool2d"}
    found, gone = list(launches), set()
    first: dict[int, Launch] = {}
    for i, back in enumerate(launches):
        if back.name != "max_pool2d_dx":
            continue
        g, index = back.ins
        j = facts.only_reader(back.outs[0])
        pool = forward.get(id(index.buffer)) if index is not None else None
        if j is None or pool is None or g is None or launches[j].name != "relu_dx":
            continue
        relu, pooled = launches[j], pool.outs[0]
        if not (same(relu.ins[0], back.outs[0]) and same(relu.ins[1], pool.ins[0])):
            continue
        if g.layout != pooled.layout or g.shape != pooled.shape or not facts.written_once(pooled):
            continue
        masked = fresh(g, layout=g.layout)
        first[i] = changed(relu, outs=(masked,), ins=(g, pooled))
        found[i] = changed(back, outs=relu.outs, ins=(masked, index))
        gone.add(j)
    return [
        launch
        for i, kept in enumerate(found)
        if i not in gone
        for launch in ([first[i], kept] if i in first else [kept])
    ]


def relu_norm(launches: Launches, facts: Facts) -> Launches:
    """relu's gradient becomes a part of the backward pass of the batch norm that relu is a part of,
    which computes anew what relu saw, to the bit."""
    forward = {
        id(f.outs[0].buffer): k for k, f in enumerate(launches) if f.name == "batch_norm_train"
    }
    found, gone = list(launches), set()
    for i, relu in enumerate(launches):
        g, y = relu.ins if relu.name == "relu_dx" else (None, None)
        if g is None or y is None:
            continue
        j, k = facts.only_reader(relu.outs[0]), forward.get(id(y.buffer))
        if j is None or k is None or launches[j].name != "batch_norm_dx":
            continue
        back, norm = launches[j], launches[k]
        x, gamma, beta, residual = norm.ins[:4]
        wanted = (relu.outs[0], x, gamma, *norm.outs[1:])
        fits = all(same(a, b) or a is b is None for a, b in zip(back.ins[:5], wanted, strict=True))
        plain = residual is None and norm.params["activation"] == "relu" and not back.params["relu"]
        if fits and plain and {g.layout, y.layout} == {relu.outs[0].layout} and g.shape == y.shape:
            still = facts.unchanged(beta, k, j) and facts.written_once(y)
            if still and facts.may_move(relu, i, j):
                ins = (g, *back.ins[1:5], beta)
                found[j] = changed(back, ins=ins, params=back.params | {"relu": True})
                gone.add(i)
    return [launch for i, launch in enumerate(found) if i not in gone]


def loss(launches: Launches, facts: Facts) -> Launches:
    """Cross entropy moves down to its gradient and is one launch with it, if its kernel can: both
    need the same powers."""
    forward = {
        id(f.ins[0].buffer): i
        for i, f in enumerate(launches)
        if f.name == "label_cross_entropy" and f.ins[0] is not None
    }
    found, gone = list(launches), set()
    for j, back in enumerate(launches):
        if back.name != "label_cross_entropy_dx" or back.ins[1] is None:
            continue
        i = forward.get(id(back.ins[1].buffer))
        if i is None or i in gone:
            continue
        f = launches[i]
        both = getattr(f.kernel, "with_dx", None)
        alike = f.params == back.params and all(map(same, f.ins, back.ins[1:]))
        if both is not None and alike and facts.may_move(f, i, j):
            outs = (*f.outs, *back.outs)
            found[j] = changed(back, name=f"{f.name}_both", kernel=both, outs=outs)
            gone.add(i)
    return [launch for i, launch in enumerate(found) if i not in gone]


def assign(launches: Launches, facts: Facts) -> Launches:
    """What is assigned to memory that stays, such as a gradient, is written there at once."""
    found, gone = list(launches), set()
    source = {id(t.buffer): i for i, launch in enumerate(launches) for t in launch.outs}
    for j, launch in enumerate(launches):
        x, y = launch.ins if launch.name == "assign_" else (None, None)
        if x is None or y is None or x.layout is not None or y.layout is not None:
            continue
        i = source.get(id(y.buffer))
        if i is None or facts.only_reader(y) != j or x.dtype != y.dtype or not facts.free(x, i, j):
            continue
        if any(same(t, y) for t in launches[i].outs):
            outs = tuple([x if same(t, y) else t for t in found[i].outs])
            found[i] = changed(found[i], outs=outs)
            gone.add(j)
    return [launch for i, launch in enumerate(found) if i not in gone]


PASSES: dict[str, Callable[[Launches, Facts], Launches]] = {
    "activation": activation,
    "residual": residual,
    "relu_pool": relu_pool,
    "relu_norm": relu_norm,
    "loss": loss,
    "assign": assign,
    "batch_norm": inference.batch_norm,
    "fast": inference.fast,
    "layout": inference.layout,
    "constants": lambda launches, _: launches,  # see `fused`
}
INFERENCE = ("batch_norm", "fast", "layout", "constants")  # only where there is no backward pass
ROUND = ("batch_norm", "fast")  # and only where nothing is written in place
EXACT = tuple(name for name in PASSES if name not in ROUND)


def chosen(fuse: bool | str | Collection[str]) -> tuple[str, ...]:
    """True: all passes; "exact": those that change no bit; False: none; or those of these names.

    ValueError for an unknown one.
    """
    if isinstance(fuse, bool):
        return tuple(PASSES) if fuse else ()
    if fuse == "exact":
        return EXACT
    names = (fuse,) if isinstance(fuse, str) else tuple(fuse)
    for name in names:
        if name not in PASSES:
            known = ", ".join(f"'{p}'" for p in PASSES)
            raise ValueError(f"capture: there is no pass {name!r}   (there are: {known}, 'exact')")
    return tuple(name for name in PASSES if name in names)


def fused(
    launches: Sequence[Launch],
    untouchable: Iterable[Buffer],
    changing: Collection[int],
    names: Collection[str],
    writes: bool,
) -> tuple[Launches, Launches, bool]:
    """The list after the named passes -> what only weights change, what every call does, and
    whether it rounds otherwise than the list that was given.

    untouchable: results, and what is changed in place; changing: the ids of the buffers of all
    memory that is older than the step and yet different in every call; writes: whether the step
    changes anything that is older.  A list that rounds otherwise can be run at once in the place
    of the first, so that all calls give the same bits; that is why it must not write.
    """
    found, kept, rounds = list(launches), list(untouchable), False
    if any(launch.name.endswith(("_dx", "_dw")) for launch in found):
        names = [name for name in names if name not in INFERENCE]
    for name in names:
        if name in ROUND and writes:
            continue
        before, found = found, PASSES[name](found, Facts(found, kept, changing))
        rounds |= name in ROUND and list(map(id, found)) != list(map(id, before))
    if "constants" not in names:
        return [], found, rounds
    return *inference.split(found, Facts(found, kept, changing)), rounds
