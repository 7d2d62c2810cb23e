"""Encoder of ``edgekit_agent.packing.rans``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_agent.packing.rans import FLOOR, PRECISION

Run = tuple[NDArray[np.uint8], tuple[int, ...]]


def choose_lanes(count: int) -> int:
    """Choose the number of lanes for a number of symbols.

    A lane costs 4 bytes for its state; a few thousand decoding steps take little time.
    """
    return min(max(1, count // 8192), 2048)


def encode_symbols(runs: Sequence[Run], lanes: int) -> bytes:
    """Encode symbols for ``edgekit_agent.packing.rans.Decoder``.

    Args:
        runs: symbols, and the frequencies (of sum ``2 ** PRECISION``) they are coded with; each
            becomes one ``Decoder.take``.
        lanes: number of symbols that are decoded at once.
    """
    states = np.full(lanes, FLOOR, np.uint64)
    pieces: list[NDArray[Any]] = []
    for symbols, counts in reversed(runs):
        width = np.array(counts, np.uint64)
        start = np.cumsum(width) - width
        # A state of at least this value would overflow, so its low half is written first.
        full = width << np.uint64(32 - PRECISION)
        for at in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
            some = symbols[at : at + lanes]
            view = states[: len(some)]
            high = view >= full[some]
            pieces.append(view[high].astype("<u2"))
            view[high] >>= np.uint64(16)
            whole, rest = np.divmod(view, width[some])
            view[:] = (whole << np.uint64(PRECISION)) + rest + start[some]
    words = b"".join(piece.tobytes() for piece in reversed(pieces))
    return states.astype("<u4").tobytes() + words
