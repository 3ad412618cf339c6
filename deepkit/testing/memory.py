"""Memory that tells when a kernel left its bounds.

`guard_words` works on every backend: known bytes before and after, looked at after the kernel ran.
`guarded_memory` is for kernels on the processor: the next page is not mapped, so a read past the
end, which leaves no trace in memory, ends the process.  Run such checks in a child process, as
`pages.check_pages` does.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend

GUARD = 256  # bytes on either side: keeps any alignment that a backend may want
GUARD_BYTE = 0xA5


class Place(NamedTuple):
    """Memory for one operand."""

    memory: Any  # flat bytes, as `backend.memory` gives them
    damage: Callable[[], str | None]  # what was written around it, in words


Allocate = Callable[[Backend, int], Place]


def guard_words(backend: Backend, nbytes: int) -> Place:
    """`nbytes` of a backend's memory between two guards."""
    raw = backend.memory(nbytes + 2 * GUARD)
    backend.write(raw, np.full(nbytes + 2 * GUARD, GUARD_BYTE, np.uint8))

    def damage() -> str | None:
        host = backend.download(raw)
        for side, guard in (("before", host[:GUARD]), ("after", host[GUARD + nbytes :])):
            touched = int(np.count_nonzero(guard != GUARD_BYTE))
            if touched:
                return f"{touched} bytes {side} it were overwritten"
        return None

    return Place(raw[GUARD : GUARD + nbytes], damage)


def guarded_memory(nbytes: int, side: str = "after") -> np.ndarray:
    """`nbytes` on the host, right beside a page that may be neither read nor written.

    side: "after" (the page begins where the memory ends) or "before" (it ends where the memory
    begins).  -> uint8 (nbytes,).  Touching the page is a segmentation fault.
    """
    if side not in ("after", "before"):
        raise ValueError(f"guarded_memory: side must be 'after' or 'before', not {side!r}")
    if os.name != "posix":
        raise NotImplementedError("guarded_memory needs mprotect, which only POSIX systems have")
    page = mmap.PAGESIZE
    room = -(-max(nbytes, 1) // page) * page
    pages = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(start + (room if side == "after" else 0), page, 0):  # 0 is PROT_NONE
        raise OSError(ctypes.get_errno(), "guarded_memory: mprotect failed")
    first = room - nbytes if side == "after" else page
    return np.frombuffer(pages, np.uint8)[first : first + nbytes]


def page_after(backend: Backend, nbytes: int) -> Place:
    """Memory of the host that ends where an unmapped page begins."""
    return Place(guarded_memory(nbytes, "after"), lambda: None)


def page_before(backend: Backend, nbytes: int) -> Place:
    """Memory of the host that begins where an unmapped page ends."""
    return Place(guarded_memory(nbytes, "before"), lambda: None)
