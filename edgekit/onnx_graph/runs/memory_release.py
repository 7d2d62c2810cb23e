"""Release of freed memory to the operating system."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable

# M_MMAP_THRESHOLD of glibc's mallopt(3).
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


def return_freed_memory() -> None:
    """Release freed memory, and large blocks from now on as soon as they are freed (glibc only).

    glibc raises the size from which blocks are mapped separately with every such block it frees, up
    to 32 MiB. Weights and activations are then allocated between small blocks, and the process
    never shrinks. Fixing the threshold prevents it.

    Source: mallopt(3), on the dynamic M_MMAP_THRESHOLD; malloc_trim(3).
    """
    if trim := _find_trim():
        trim(0)


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        return None
    library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
    trim: Callable[[int], int] = library.malloc_trim
    return trim
