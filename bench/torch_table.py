"""What PyTorch calls our ops: functions with the arguments of ours, layouts permuted inside.

The tests compare with it, and so do the benches: a permutation is a view, so a tensor that lies in
memory as (N, H, W, C) is channels-last to PyTorch, and one that lies as (N, C, H, W) is not.  Where
one call of PyTorch does it all, it is that call.
"""

import math

import torch
import torch.nn.functional as F

# Of results that nobody else holds, and no views: PyTorch differentiates a change of a view by
# copying all of it.
ACTIVATIONS = {
    None: lambda x: x,
    "relu": torch.relu_,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _axes(x, axis):
    return tuple(range(x.ndim)) if axis is None else axis


def _reduce(name):
    return lambda x, axis=None, keepdims=False: getattr(torch, name)(x, _axes(x, axis), keepdims)


def _along(name):
    """amax and amin share the gradient of equal elements, as ours do."""
    return lambda x, axis=None, keepdims=False: getattr(torch, name)(x, _axes(x, axis), keepdims)


def argmax(x, axis=None):
    return torch.argmax(x, axis)


def var(x, axis=None, keepdims=False, correction=0):
    return torch.var(x, _axes(x, axis), correction=correction, keepdim=keepdims)


# convolution and pooling --------------------------------------------------------------------------


def sides_of(padding, lengths, size, stride=1, dilation=1):
    """Our padding: an int, a pair, a pair of pairs, "same" or "valid" -> a pair an axis."""
    if padding == "valid":
        return [(0, 0)] * len(lengths)
    if padding == "same":
        sides = []
        for length, k, step, d in zip(lengths, size, _pair(stride), _pair(dilation), strict=True):
            total = max((math.ceil(length / step) - 1) * step + d * (k - 1) + 1 - length, 0)
            sides.append((total // 2, total - total // 2))
        return sides
    return [_pair(p) for p in _pair(padding)]


def padded(x, padding, size, stride=1, dilation=1, value=0.0):
    """x (N, C, H, W) with our padding around it."""
    sides = sides_of(padding, x.shape[2:], size, stride, dilation)
    return F.pad(x, [p for both in sides[::-1] for p in both], value=value)


def conv2d(
    x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, algorithm="auto"
):
    x, sides = channels_first(x), 0
    if isinstance(padding, int):
        sides = padding  # which saves PyTorch a copy
    else:
        x = padded(x, padding, w.shape[1:3], stride, dilation)
    y = F.conv2d(x, w.permute(0, 3, 1, 2), b, stride, sides, dilation, groups)
    return channels_last(ACTIVATIONS[activation](y))


def conv1d(
    x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, algorithm="auto"
):
    if padding == "same":
        padding = sides_of("same", (1, x.shape[1]), (1, w.shape[1]), (1, stride), (1, dilation))[1]
    before, after = (0, 0) if padding == "valid" else _pair(padding)
    x = F.pad(channels_first(x), (before, after))
    y = F.conv1d(x, w.permute(0, 2, 1), b, stride, 0, dilation, groups)
    return channels_last(ACTIVATIONS[activation](y))


def conv_transpose2d(
    x, w, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1, **_
):
    w = w.permute(0, 3, 1, 2)  # (C, R, S, K/groups) -> (C, K/groups, R, S)
    more = {"output_padding": output_padding, "groups": groups, "dilation": dilation}
    x = channels_first(x)
    if isinstance(padding, int) or isinstance(padding[0], int):
        return channels_last(F.conv_transpose2d(x, w, b, stride, padding, **more))
    y = F.conv_transpose2d(x, w, b, stride, 0, **more)  # torch cuts off the same on both sides
    (top, bottom), (left, right) = padding
    return channels_last(y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right])


def locally_connected2d(x, w, b=None, *, stride=1, padding=0):
    """Patches times their own weights: w (P, Q, K, R, S, C)."""
    p, q, _, r, s, _ = w.shape
    down, right = _pair(stride)
    x = channels_last(padded(channels_first(x), padding, (r, s), stride))
    patches = x.unfold(1, r, down).unfold(2, s, right)[:, :p, :q]  # (N, P, Q, C, R, S)
    y = torch.einsum("npqcrs,pqkrsc->npqk", patches, w)
    return y if b is None else y + b


def max_pool2d(x, size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    x, stride = channels_first(x), size if stride is None else stride
    sides = sides_of(padding, x.shape[2:], _pair(size), stride, dilation)
    if all(a == b for a, b in sides):
        both = [a for a, _ in sides]
        return channels_last(F.max_pool2d(x, size, stride, both, dilation, ceil_mode))
    wide = padded(x, sides, size, value=-math.inf)
    y = F.max_pool2d(wide, size, stride, 0, dilation, ceil_mode)
    return channels_last(_windows_of(x, y, sides, stride))


def avg_pool2d(x, size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    x, stride = channels_first(x), size if stride is None else stride
    sides = sides_of(padding, x.shape[2:], _pair(size), stride)
    if all(a == b for a, b in sides):
        both = [a for a, _ in sides]
        y = F.avg_pool2d(x, size, stride, both, ceil_mode, count_include_pad)
        return channels_last(y)
    counted = padded(torch.ones_like(x), sides, size, value=float(count_include_pad))
    total, count = (
        F.avg_pool2d(v, size, stride, 0, ceil_mode, divisor_override=1)
        for v in (padded(x, sides, size), counted)
    )
    return channels_last(_windows_of(x, total / count, sides, stride))


def _windows_of(x, y, sides, stride):
    """Without the windows that begin in the padding after x, which ceil_mode would count."""
    lengths = [n + before for n, (before, _) in zip(x.shape[2:], sides, strict=True)]
    p, q = (math.ceil(n / s) for n, s in zip(lengths, _pair(stride), strict=True))
    return y[:, :, :p, :q]


# normalisation ------------------------------------------------------------------------------------


def batch_norm_train(
    x, gamma, beta, residual, running_mean, running_var, *, momentum=0.1, eps=1e-5, activation=None
):
    return batch_norm(
        x, gamma, beta, running_mean, running_var,
        training=True, momentum=momentum, eps=eps, activation=activation, residual=residual,
    )  # fmt: skip


def batch_norm_infer(
    x, gamma, beta, residual, running_mean, running_var, *, eps=1e-5, activation=None
):
    return batch_norm(
        x, gamma, beta, running_mean, running_var,
        training=False, eps=eps, activation=activation, residual=residual,
    )  # fmt: skip


def batch_norm(
    x, gamma, beta, running_mean, running_var,
    *, training, momentum=0.1, eps=1e-5, activation=None, residual=None,
):  # fmt: skip
    if training:  # F.batch_norm moves the running statistics in place, which no leaf may be
        running_mean = None if running_mean is None else running_mean.detach()
        running_var = None if running_var is None else running_var.detach()
        y = F.batch_norm(
            channels_first(x), running_mean, running_var, gamma, beta, True, momentum, eps
        )
        y = y if residual is None else y + channels_first(residual)
        return channels_last(ACTIVATIONS[activation](y))
    y = (x - running_mean) / torch.sqrt(running_var + eps)
    y = y if gamma is None else y * gamma
    y = y if beta is None else y + beta
    return ACTIVATIONS[activation](y if residual is None else y + residual)


def layer_norm(x, shape, gamma=None, beta=None, eps=1e-5):
    return F.layer_norm(x, _shape(shape), gamma, beta, eps)


def _shape(shape):
    return (shape,) if isinstance(shape, int) else tuple(shape)


def layer_norm_over(x, gamma, beta, *, axes=1, eps=1e-5):
    return F.layer_norm(x, x.shape[x.ndim - axes :], gamma, beta, eps)


def local_response_norm(x, size, *, alpha=1e-4, beta=0.75, k=1.0):
    flat = x if x.ndim > 2 else x[:, None]  # torch wants (N, C, length...)
    y = channels_last(F.local_response_norm(channels_first(flat), size, alpha, beta, k))
    return y.reshape(x.shape)


# losses -------------------------------------------------------------------------------------------


def cross_entropy(logits, target, *, reduction="mean", label_smoothing=0.0):
    classes_second = logits.movedim(-1, 1)
    if target.dtype.is_floating_point:
        target = target.movedim(-1, 1)
    return F.cross_entropy(
        classes_second, target, reduction=reduction, label_smoothing=label_smoothing
    )


def nll(log_p, labels, *, reduction="mean"):
    return F.nll_loss(log_p.movedim(-1, 1), labels, reduction=reduction)


# indexing and shapes ------------------------------------------------------------------------------


def cut(x, slices):
    for axis, (start, stop, step) in enumerate(slices):
        index = torch.tensor(list(range(start, stop, step)), dtype=torch.long)
        x = x.index_select(axis, index)
    return x


def uncut(g, shape, slices):
    grids = [torch.tensor(list(range(*s)), dtype=torch.long) for s in slices]
    return torch.zeros(shape, dtype=g.dtype).index_put(torch.meshgrid(*grids, indexing="ij"), g)


def take(x, index, axis=0):
    index = torch.where(index < 0, index + x.shape[axis], index)
    y = x.index_select(axis, index.reshape(-1))
    return y.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def getitem(x, index):
    """torch has no negative steps: take the positions instead."""
    positions = torch.arange(x.numel()).reshape(x.shape).numpy()[index]
    return x.reshape(-1)[torch.from_numpy(positions.copy())]


def pad(x, widths, value=0.0):
    if isinstance(widths, int):
        widths = ((widths, widths),) * x.ndim
    return F.pad(x, [w for both in widths[::-1] for w in both], value=value)


def product(a, b, ta=False, tb=False):
    return torch.matmul(a.mT if ta else a, b.mT if tb else b)


def where(condition, a, b):
    return torch.where(condition, a, b)


FUNCTIONS = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": where,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "neg": torch.neg,
    "sign": torch.sign,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "relu": torch.relu,
    "gelu": F.gelu,
    "leaky_relu": lambda x, slope=0.01: F.leaky_relu(x, slope),
    "elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "clip": lambda x, low=None, high=None: torch.clip(x, low, high),
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "full_like": lambda x, value: torch.full_like(x, value),
    "zeros_like": torch.zeros_like,
    "sum": _reduce("sum"),
    "mean": _reduce("mean"),
    "max": _along("amax"),
    "min": _along("amin"),
    "argmax": argmax,
    "var": var,
    "broadcast_to": torch.broadcast_to,
    "sum_to": lambda x, shape: x.sum_to_size(shape),
    "product": product,
    "matmul": torch.matmul,
    "linear": lambda x, w, b=None, activation=None: ACTIVATIONS[activation](F.linear(x, w, b)),
    "reshape": torch.reshape,
    "transpose": lambda x, axes=None: x.permute(axes or tuple(range(x.ndim))[::-1]),
    "slice": cut,
    "unslice": uncut,
    "take": take,
    "getitem": getitem,
    "join": lambda *xs, axis: torch.cat(xs, axis),
    "concat": lambda xs, axis=0: torch.cat(xs, axis),
    "stack": lambda xs, axis=0: torch.stack(xs, axis),
    "pad": pad,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "locally_connected2d": locally_connected2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool2d": lambda x: x.mean((1, 2)),
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "label_cross_entropy": cross_entropy,
    "cross_entropy": cross_entropy,
    "nll": nll,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "mse": lambda x, y, reduction="mean": F.mse_loss(x, y, reduction=reduction),
    "l1": lambda x, y, reduction="mean": F.l1_loss(x, y, reduction=reduction),
    "smooth_l1": F.smooth_l1_loss,
    "batch_norm_train": batch_norm_train,
    "batch_norm_infer": batch_norm_infer,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "layer_norm_over": layer_norm_over,
    "local_response_norm": local_response_norm,
    "l2_norm": lambda *xs: torch.cat([x.reshape(-1) for x in xs]).norm(),
}

# Ops that PyTorch has no function for, and what holds them instead.
ELSEWHERE = {
    "fold_batch_norm": "tests/program/test_inference.py compares with a batch norm in float64",
    "gather_images": "tests/data/test_resident.py compares with NumPy's augmentation",
    "share": "a part of the gradient of maximum, which is compared",
    "max_pool2d_gather": "a part of the second order of max_pool2d; finite differences hold it",
    "to": "copies between our devices",
    "fill_": "memory, see test_ops_kernels.py",
    "assign_": "memory, see test_ops_kernels.py",
    "accumulate_": "memory, see test_ops_kernels.py",
    "next_key_": "the random streams are our own",
    "drop": "the random streams are our own",
    "dropout": "the random streams are our own",
    "random_uniform": "the random streams are our own",
    "random_normal": "the random streams are our own",
    "sgd_step": "the optimisers' tests run PyTorch's beside ours",
    "adam_step": "the optimisers' tests run PyTorch's beside ours",
    "rmsprop_step": "the optimisers' tests run PyTorch's beside ours",
    "adagrad_step": "the optimisers' tests run PyTorch's beside ours",
    "clip_step": "the optimisers' tests run PyTorch's beside ours",
}

GRADIENT_OF = ("_dx", "_dw", "_db")  # compared as the gradient of the op whose name they carry
