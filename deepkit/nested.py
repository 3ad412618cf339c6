"""Tensors in nested tuples, lists and dictionaries, such as the arguments of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .tape import Tensor


def leaves(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    found: list[Tensor] = []
    rebuilt(tree, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def rebuilt(tree: Any, each: Callable[[Any], Any], kind: Any = Tensor) -> Any:
    """The same nesting, with `each` applied to everything of a kind."""
    if isinstance(tree, kind):
        return each(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[rebuilt(v, each, kind) for v in tree])
    if isinstance(tree, list | tuple):
        return type(tree)(rebuilt(v, each, kind) for v in tree)
    if isinstance(tree, dict):
        return {k: rebuilt(v, each, kind) for k, v in tree.items()}
    return tree
