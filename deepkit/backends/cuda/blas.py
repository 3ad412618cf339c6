"""cuBLAS, called directly: products that are right inside the capture of a graph.

CuPy refuses cuBLAS while its stream is capturing.  Nothing in cuBLAS does: a handle whose stream is
ours, with working memory of its own, is captured like any launch.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from .. import DeviceError
from .libraries import load

WORKSPACE = 32 << 20  # bytes: what cuBLAS recommends on Hopper
OPERATION = (0, 1)  # as it is, transposed
FLOAT32, FLOAT64 = 0, 1  # cudaDataType
COMPUTE = {  # cublasComputeType_t
    ("float32", "float32"): 68,  # CUBLAS_COMPUTE_32F
    ("float32", "tf32"): 77,  # CUBLAS_COMPUTE_32F_FAST_TF32
    ("float32", "bfloat16"): 75,  # CUBLAS_COMPUTE_32F_FAST_16BF
    ("float64", "float32"): 70,  # CUBLAS_COMPUTE_64F
}
DEFAULT_ALGORITHM = -1


@functools.cache
def library() -> Any:
    """libcublas.  Errors: DeviceError where there is none."""
    found = load("cublas")
    if found is None:
        raise DeviceError(
            "algorithm 'library' needs cuBLAS, which was not found"
            "   (pip install nvidia-cublas brings it, and so does the CUDA toolkit)"
        )
    return found


def available() -> bool:
    """Whether cuBLAS is there; without it, products run on kernels of our own."""
    try:
        library()
    except DeviceError:
        return False
    return True


class Blas:
    """A handle on one GPU and its stream."""

    def __init__(self, gpu: Any) -> None:
        self.gpu = gpu
        self.handle = ctypes.c_void_p()
        self.workspace = gpu.cupy.empty(WORKSPACE, "uint8")
        with gpu.at_work("cuBLAS"):
            self._do("Create_v2", ctypes.byref(self.handle))
            self._do("SetStream_v2", self.handle, ctypes.c_void_p(gpu.stream.ptr))
            self._do(
                "SetWorkspace_v2", self.handle, ctypes.c_void_p(self.workspace.data.ptr),
                ctypes.c_size_t(WORKSPACE),
            )  # fmt: skip

    def product(
        self, y: int, a: int, b: int, m: int, n: int, k: int, ta: bool, tb: bool,
        count: int, a_step: int, b_step: int, dtype: str, precision: str,
    ) -> None:  # fmt: skip
        """y[M, N] = a b, `count` times, in C order: addresses, whether an operand lies transposed,
        and how many elements further on its next matrix begins (0: the same one again)."""
        kind = FLOAT64 if dtype == "float64" else FLOAT32
        exact = "float32" if precision == "3xtf32" or dtype == "float64" else precision
        number = ctypes.c_double if dtype == "float64" else ctypes.c_float
        one, zero = number(1), number(0)
        # cuBLAS has columns first: y^T = b^T a^T
        self._do(
            "GemmStridedBatchedEx", self.handle, OPERATION[tb], OPERATION[ta], n, m, k,
            ctypes.byref(one), ctypes.c_void_p(b), kind, k if tb else n, ctypes.c_longlong(b_step),
            ctypes.c_void_p(a), kind, m if ta else k, ctypes.c_longlong(a_step),
            ctypes.byref(zero), ctypes.c_void_p(y), kind, n, ctypes.c_longlong(m * n), count,
            COMPUTE[dtype, exact], DEFAULT_ALGORITHM,
        )  # fmt: skip

    def _do(self, name: str, *arguments: Any) -> None:
        status = getattr(library(), f"cublas{name}")(*arguments)
        if status:
            raise DeviceError(f"device '{self.gpu.name}': cublas{name} failed with status {status}")
