"""How deep nets without batch norm begin."""

from __future__ import annotations

from typing import TypeVar

from ..nn import Conv2d, Linear, Module, init

M = TypeVar("M", bound=Module)


def for_relu(model: M) -> M:
    """He's weights for every layer that ends in a relu (He et al. 2015, section 2.2); -> the model.

    With N(0, 2 / fan_in) a signal keeps its size from layer to layer.  The layers' own weights have
    a sixth of that variance, which a net of a few layers makes up for, and one of sixteen does not.
    """
    for layer in model.modules():
        if isinstance(layer, Conv2d | Linear) and layer.activation == "relu":
            init.he_normal(layer.weight)
    return model
