"""Tools with which anybody can check a kernel, an op or a backend.

    from deepkit.testing import check_op, check_grad, check_backend

    check_op("linear", sample((4, 3), (5, 3), None), device="numba", dtype="float32")
    check_grad(lambda x, w: (x @ w).tanh(), [x, w])
    check_backend("numba")

Each raises `CheckError`, an AssertionError that says in one sentence what was found.
"""

from .. import ops as _ops  # noqa: F401  (the registry is full from here on)
from .backend import Report, check_backend, random_samples
from .cases import Case, case_of, launched, samples_of
from .drawing import draw_sample, drawable
from .gradients import check_grad, check_grad2
from .kernels import CheckError, allowed, check_case, check_op, reference
from .memory import guard_words, guarded_memory, page_after, page_before
from .pages import check_pages

__all__ = [
    "Case",
    "CheckError",
    "Report",
    "allowed",
    "case_of",
    "check_backend",
    "check_case",
    "check_grad",
    "check_grad2",
    "check_op",
    "check_pages",
    "draw_sample",
    "drawable",
    "guard_words",
    "guarded_memory",
    "launched",
    "page_after",
    "page_before",
    "random_samples",
    "reference",
    "samples_of",
]
