"""How Numba is made to turn a kernel into machine code once.

By itself it optimises every function that a kernel calls, wraps it for Python, turns it into
machine code, and does all but the wrapping again where it is a part of the kernel.  Here such a
function is a part and nothing else: it is optimised, since loops over few elements are left faster
than when they are vectorised within all loops around them, and that is all.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import sigutils
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

# what Python gets if it calls a part that it has not called before a kernel did: a TypeError
_REFUSES = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value


class _Library(JITCodeLibrary):
    """The code of a function: of a part, until it is said to be whole."""

    whole = False

    def __init__(self, codegen: Any, name: str) -> None:
        super().__init__(codegen, name)
        self.wrappers: list[Any] = []

    def add_ir_module(self, module: Any) -> None:
        if module.name in ("wrapper", "cfunc_wrapper"):
            self.wrappers.append(module)
        else:
            super().add_ir_module(module)

    def finalize(self) -> None:
        if self.whole:
            for module in self.wrappers:
                super().add_ir_module(module)
        super().finalize()

    def _finalize_final_module(self) -> None:
        if self.whole:
            super()._finalize_final_module()
        else:
            self._finalize_dynamic_globals()
            self._finalized = True

    def get_pointer_to_function(self, name: str) -> Any:
        return super().get_pointer_to_function(name) if self.whole else _REFUSES


class _Kernel(CFunc):
    def _compile_uncached(self) -> Any:
        with _in_parts():
            made = super()._compile_uncached()
        made.library.whole = True
        return made


@contextlib.contextmanager
def _in_parts() -> Iterator[None]:
    """Whatever Numba compiles in here, and has not compiled before, is a part."""
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        codegen._library_class = _Library
        codegen.set_env = lambda *_: None  # environments serve exceptions, and kernels raise none
        try:
            yield
        finally:
            del codegen._library_class, codegen.set_env  # the instance's, over the class's


def compiled(function: Callable, signature: Any, **options: Any) -> CFunc:
    """As `numba.cfunc`."""
    made = _Kernel(function, sigutils.normalize_signature(signature), {}, options)
    made.compile()
    return made
