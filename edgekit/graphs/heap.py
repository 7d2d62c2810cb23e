"""Let the C library return large freed blocks to the system at once."""

from __future__ import annotations

import ctypes
import functools
import sys

# M_MMAP_THRESHOLD of glibc's mallopt(3).
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


@functools.cache
def return_large_blocks() -> None:
    """Keep blocks of a MiB and more apart from the heap, so that freeing one gives its pages back.

    glibc raises that limit with every block it frees, up to 32 MiB: weights and activations then
    lie between small blocks, and the process keeps what it once took. Elsewhere nothing is done.

    Source: mallopt(3), M_MMAP_THRESHOLD, on the dynamic threshold.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
