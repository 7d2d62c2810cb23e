"""Limits on unpacking and on the processes that run a model."""

from __future__ import annotations

import contextlib
import platform
import re
import resource
from dataclasses import dataclass
from typing import Optional

from edgekit_agent.measure.memory import available_bytes, free_swap_bytes

# A packed file may expand to MOST_EXPANSION times its size plus MOST_SMALL_BYTES. No weights pack
# that well; a file that declares more is a decompression bomb.
MOST_EXPANSION = 256
MOST_SMALL_BYTES = 64 << 20
# Limit on all arrays of golden samples together; they come from two samples.
MOST_GOLDEN_BYTES = 512 << 20
# A few bytes of a model can define a constant of any size, which onnxruntime would fold at once.
MOST_FOLDED_BYTES = 512 << 20

_HEALTH_S = 300.0
_EXPAND_S = 900.0
# Memory that a runtime reserves and does not use: stacks of threads, arenas.
_RESERVED_BYTES = 512 << 20
# Address space that is no private memory: libraries, the mapped model, unused parts of heaps.
_MAPPED_BYTES = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Limits of a worker: wall-clock seconds and bytes of private memory; ``None`` = no limit."""

    seconds: Optional[float] = None
    memory_bytes: Optional[int] = None


NO_LIMITS = Limits()


def get_expansion_limit(packed_bytes: int) -> int:
    """Return the largest size that a packed file of ``packed_bytes`` bytes may declare."""
    return MOST_EXPANSION * packed_bytes + MOST_SMALL_BYTES


def get_health_limits() -> Limits:
    """Return the limits of a health check: it may use the memory that is free now."""
    free = available_bytes()
    if free is None:
        return Limits(seconds=_HEALTH_S)
    return Limits(_HEALTH_S, free + free_swap_bytes() + _RESERVED_BYTES)


def get_expand_limits(size: int) -> Limits:
    """Return the limits of expanding a file to ``size`` bytes: memory for its plan and the file."""
    return Limits(_EXPAND_S, 2 * size + _RESERVED_BYTES)


def limit_memory(most_bytes: int) -> None:
    """Limit the private memory of this process to ``most_bytes``; beyond that: MemoryError."""
    resource_kind, most = resource.RLIMIT_DATA, most_bytes
    if not _is_data_limit_complete(platform.release()):
        resource_kind, most = resource.RLIMIT_AS, most_bytes + _MAPPED_BYTES
    _, hard = resource.getrlimit(resource_kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(ValueError, OSError):  # the system lacks this limit
        resource.setrlimit(resource_kind, (most, hard))


def _is_data_limit_complete(kernel: str) -> bool:
    """Return whether RLIMIT_DATA limits all private memory, as it does since Linux 4.7."""
    match = re.match(r"(\d+)\.(\d+)", kernel)
    return match is None or (int(match.group(1)), int(match.group(2))) >= (4, 7)
