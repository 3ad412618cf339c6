"""Layers that weigh, pool and rearrange; the norms and activations have files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import ops
from ..ops.common import number, pair
from ..ops.fused import checked_activation
from ..ops.window import outputs_of, padding_of
from ..tape import Op, Tensor
from .init import within_fan
from .module import Module
from .parameter import Parameter


def whole(layer: str, what: str, value: Any) -> int:
    """A whole number of at least 1, or a sentence."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{layer}: {what} must be a whole number of at least 1, not {value!r}")
    return int(value)


class _Several(Module):
    """What Sequential and ModuleList share: they hold modules in an order."""

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Any:
        found = list(self.children())[index]
        return self._like(found) if isinstance(found, list) else found

    def _like(self, modules: list[Module]) -> Module:
        raise NotImplementedError

    def _hold(self, name: str, module: Any) -> None:
        kind = type(self).__name__
        if not isinstance(module, Module):
            raise TypeError(f"{kind}: expected modules, but {name!r} is {_described(module)}")
        if hasattr(type(self), name):
            raise ValueError(f"{kind}: {name!r} is the name of a method")
        setattr(self, name, module)


class Sequential(_Several):
    """One module after the other: `Sequential(a, b)`, or with names `Sequential(c1=a, s2=b)`."""

    def __init__(self, *modules: Module, **named: Module) -> None:
        numbered = {str(i): module for i, module in enumerate(modules)}
        for name, module in {**numbered, **named}.items():
            self._hold(name, module)

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x

    def _like(self, modules: list[Module]) -> Module:
        return Sequential(*modules)


class ModuleList(_Several):
    """Modules in a list, which a `forward` walks as it likes.  A plain list as an attribute, or a
    dictionary, does as well: its modules belong to the module that has it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> ModuleList:
        """Add one at the end -> self."""
        self._hold(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add several at the end -> self."""
        for module in modules:
            self.append(module)
        return self

    def _like(self, modules: list[Module]) -> Module:
        return ModuleList(modules)


def _described(thing: Any) -> str:
    """What stands where a module should, in words."""
    if isinstance(thing, Op):
        return f"the op '{thing.name}'; take the layer, such as nn.ReLU() for relu"
    if isinstance(thing, type) and issubclass(thing, Module):
        return f"the class {thing.__name__}; make one: {thing.__name__}(...)"
    return f"a {type(thing).__name__}"


class Linear(Module):
    """y = act(x w^T + b).  x (N, ..., inp) -> (N, ..., out).

    weight (out, inp) and bias (out,) are drawn from U(-1/sqrt(inp), 1/sqrt(inp)), as in PyTorch.
    activation: None, "relu", "tanh" or "sigmoid", computed in the same pass.
    """

    def __init__(
        self, inp: int, out: int, bias: bool = True, activation: str | None = None
    ) -> None:
        self.inp, self.out = whole("Linear", "inp", inp), whole("Linear", "out", out)
        self.activation = checked_activation("Linear", activation)
        self.weight = Parameter((out, inp), within_fan(inp))
        self.bias = Parameter((out,), within_fan(inp)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias, activation=self.activation)

    def extra_repr(self) -> str:
        return f"{self.inp} -> {self.out}{_about(bias=self.bias, activation=self.activation)}"


def _check_window(name: str, padding: Any = 0, **numbers: Any) -> None:
    """Refuse options that no input would fit, when the layer is built: `numbers` are pairs."""
    padding_of(name, padding, (1, 1), (1, 1), (1, 1))
    for what, value in numbers.items():
        if value is not None:
            pair(name, what, value, least=int(what != "output_padding"))


class _Window(Module):
    """What the layers with a window of weights share: their sizes, and their birth."""

    def __init__(
        self,
        inp: int,
        out: int,
        size: Any,
        groups: int,
        activation: str | None = None,
        **window: Any,
    ) -> None:
        name = type(self).__name__
        self.inp, self.out = whole(name, "inp", inp), whole(name, "out", out)
        self.size, self.groups = pair(name, "size", size), whole(name, "groups", groups)
        if inp % groups or out % groups:
            raise ValueError(
                f"{name}: {inp} and {out} channels cannot be divided into {groups} groups"
            )
        self.activation = checked_activation(name, activation)
        _check_window(name, **window)

    def _weights(self, shape: tuple[int, ...], fan_in: int, bias: tuple[int, ...] | None) -> None:
        self.weight = Parameter(shape, within_fan(fan_in))
        self.bias = Parameter(bias, within_fan(fan_in)) if bias else None

    def extra_repr(self) -> str:
        options = {k: getattr(self, k, None) for k in ("stride", "padding", "dilation", "groups")}
        said = _about(bias=self.bias, activation=self.activation, **options)
        return f"{self.inp} -> {self.out}, {self.size[0]}x{self.size[1]}{said}"


class Conv2d(_Window):
    """y = act(x * w + b), a correlation over windows.  x (N, H, W, inp) -> (N, P, Q, out).

    size, stride, dilation: a number or (height, width); padding: a number, (height, width),
    ((top, bottom), (left, right)), "same" or "valid"; see `ops.conv2d`, also for `algorithm`.
    weight (out, *size, inp / groups) and bias (out,) are drawn from U(-b, b) as in PyTorch,
    b = 1/sqrt(fan_in), fan_in = height * width * inp / groups.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        size: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        algorithm: str = "auto",
    ) -> None:
        window = dict(stride=stride, padding=padding, dilation=dilation)
        super().__init__(inp, out, size, groups, activation, **window)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.algorithm = algorithm
        r, s = self.size
        shape = (out, r, s, inp // groups)
        self._weights(shape, r * s * (inp // groups), (out,) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
            algorithm=self.algorithm,
        )


class Conv1d(_Window):
    """`Conv2d` along one axis: x (N, L, inp) -> (N, P, out), weight (out, size, inp / groups).

    padding: a number, (before, after), "same" or "valid"; everything else is one number.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        size: int,
        *,
        stride: int = 1,
        padding: Any = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        window = dict(stride=stride, padding=padding, dilation=dilation)
        super().__init__(inp, out, (1, whole("Conv1d", "size", size)), groups, activation, **window)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        shape = (out, size, inp // groups)
        self._weights(shape, size * (inp // groups), (out,) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv1d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
        )


class ConvTranspose2d(_Window):
    """The gradient of a convolution as a layer: it enlarges.  x (N, P, Q, inp) -> (N, H, W, out).

    H = (P - 1) * stride - 2 * padding + dilation * (height - 1) + output_padding + 1.
    weight (inp, *size, out / groups) and bias (out,) are drawn from U(-b, b) as in PyTorch,
    b = 1/sqrt(height * width * out / groups).
    """

    def __init__(
        self,
        inp: int,
        out: int,
        size: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        window = dict(stride=stride, padding=padding, dilation=dilation)
        super().__init__(inp, out, size, groups, output_padding=output_padding, **window)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.output_padding = output_padding
        r, s = self.size
        shape = (inp, r, s, out // groups)
        self._weights(shape, r * s * (out // groups), (out,) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class LocallyConnected2d(_Window):
    """A convolution whose every output position has weights of its own.

    x (N, H, W, inp) -> (N, P, Q, out), with `input_size` = (H, W), or one number for a square;
    padding as in Conv2d.
    weight (P, Q, out, *size, inp) and bias (P, Q, out) are drawn from U(-1/sqrt(fan_in),
    1/sqrt(fan_in)), fan_in = height * width * inp.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        size: Any,
        input_size: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(inp, out, size, 1)
        name = type(self).__name__
        self.input_size = pair(name, "input_size", input_size)
        self.stride = pair(name, "stride", stride)
        self.padding = padding_of(name, padding, self.input_size, self.size, self.stride)
        p, q = outputs_of(name, self.input_size, self.size, self.stride, self.padding)
        r, s = self.size
        self._weights((p, q, out, r, s, inp), r * s * inp, (p, q, out) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return ops.locally_connected2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding
        )


# pooling ------------------------------------------------------------------------------------------


class MaxPool2d(Module):
    """The largest value of every window.  x (N, H, W, C) -> (N, P, Q, C); stride None is `size`."""

    def __init__(
        self,
        size: Any,
        *,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.size, self.stride = pair("MaxPool2d", "size", size), stride
        _check_window("MaxPool2d", padding, stride=stride, dilation=dilation)
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(
            x,
            self.size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )

    def extra_repr(self) -> str:
        options = _about(
            stride=self.stride or self.size,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )
        return f"{self.size[0]}x{self.size[1]}{options}"


class AvgPool2d(Module):
    """The mean of every window.  x (N, H, W, C) -> (N, P, Q, C); stride None is `size`.

    count_include_pad: whether the zeros of the padding count as values.
    """

    def __init__(
        self,
        size: Any,
        *,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.size, self.stride = pair("AvgPool2d", "size", size), stride
        _check_window("AvgPool2d", padding, stride=stride)
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(
            x,
            self.size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )

    def extra_repr(self) -> str:
        options = _about(
            stride=self.stride or self.size, padding=self.padding, ceil_mode=self.ceil_mode
        )
        return f"{self.size[0]}x{self.size[1]}{options}"


class GlobalAvgPool2d(Module):
    """The mean over all positions.  x (N, H, W, C) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


# the same values in another shape, or fewer of them -----------------------------------------------


class Flatten(Module):
    """x (N, ...) -> (N, everything else), row by row, channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Identity(Module):
    """y = x."""

    def forward(self, x: Any) -> Any:
        return x


class Dropout(Module):
    """In training every value is 0 with probability `p` and divided by 1 - p otherwise.

    0 <= p <= 1; nothing happens in `eval()`.  Srivastava et al. 2014, in the inverted form.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout", "p", p, "from 0 to 1")

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, training=self.training)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


_USUAL: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "ceil_mode": False,
    "activation": None,
}


def _about(bias: Any = True, **options: Any) -> str:
    """The options that are not the usual ones."""
    unusual = [
        f"{name}={value!r}"
        for name, value in options.items()
        if value is not None and value not in (_USUAL[name], (_USUAL[name],) * 2)
    ]
    return "".join(f", {text}" for text in unusual + ["bias=False"] * (bias is None))
