"""Entropy-coded symbols: interleaved range asymmetric numeral systems, all lanes at once.

Source: Duda 2013, "Asymmetric numeral systems"; Giesen 2014, "Interleaved entropy coders".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, Tuple, Union

if TYPE_CHECKING:
    import numpy as np

# Probabilities are multiples of 2 ** -PRECISION; states lie in [FLOOR, 2 ** 32).
PRECISION = 14
FLOOR = 1 << 16

# 2 ** (24 - i / 8) as integers: every machine must compute the same table from them.
_EIGHTHS = (16777216, 15384775, 14107901, 12937002, 11863283, 10878679, 9975792, 9147842)


def compute_frequencies(levels: Sequence[int], steps: int) -> Tuple[int, ...]:
    """Compute the frequencies of symbols 0, 1, ..., which add up to ``2 ** PRECISION``.

    Args:
        levels: 0 for a symbol that does not occur, else 1 + its distance below the most frequent
            symbol, in ``1 / steps`` powers of two.
        steps: 1, 2, 4 or 8.

    Raises:
        ValueError: no symbol occurs, or too many do.
    """
    shares = [_compute_share((level - 1) * (8 // steps)) if level else 0 for level in levels]
    used = sum(1 for level in levels if level)
    if not 0 < used <= 256 or len(levels) > 256:
        raise ValueError(f"a symbol table of {used} entries")
    spread, total = (1 << PRECISION) - used, sum(shares)
    counts = [1 + share * spread // total if level else 0 for share, level in zip(shares, levels)]
    counts[counts.index(max(counts))] += (1 << PRECISION) - sum(counts)
    return tuple(counts)


def _compute_share(eighths: int) -> int:
    return max(1, _EIGHTHS[eighths % 8] >> (eighths // 8))


class Decoder:
    """A decoder of symbols, run by run, in the order in which they were written.

    Args:
        data: a little-endian 32-bit state per lane, then 16-bit words.
        lanes: number of symbols that are decoded at once.
        tell: called with the number of words read so far, and of all words.
    """

    def __init__(
        self,
        data: Union[bytes, bytearray, memoryview],
        lanes: int,
        tell: Optional[Callable[[int, int], None]] = None,
    ) -> None:
        import numpy as np

        if lanes < 1 or len(data) < 4 * lanes or len(data) % 2:
            raise ValueError("the entropy-coded data is truncated")
        self._states: np.ndarray[Any, Any] = np.frombuffer(data, "<u4", lanes).astype(np.uint32)
        self._words = np.frombuffer(data, "<u2", offset=4 * lanes)
        self.lanes = lanes
        self._at = 0
        self._tell = tell

    def take(self, count: int, counts: Sequence[int]) -> np.ndarray[Any, Any]:
        """Decode the next ``count`` symbols, whose frequencies are ``counts``, as uint8.

        Raises:
            ValueError: there are not that many.
        """
        import numpy as np

        widths = np.array(counts, np.uint32)
        times = widths.astype(np.intp)  # 32-bit numpy accepts no wider repeat counts
        symbol = np.repeat(np.arange(len(counts), dtype=np.uint8), times)
        width = np.repeat(widths, times)
        within = np.arange(len(symbol), dtype=np.uint32)
        within -= np.repeat(np.cumsum(widths, dtype=np.uint32) - widths, times)
        out = np.empty(count, np.uint8)
        lanes, mask = len(self._states), np.uint32((1 << PRECISION) - 1)
        for start in range(0, count, lanes):
            states = self._states[: min(lanes, count - start)]
            slot = states & mask
            out[start : start + lanes] = symbol[slot]
            states >>= np.uint32(PRECISION)
            states *= width[slot]
            states += within[slot]
            self._refill(states)
            if self._tell is not None:
                self._tell(self._at, len(self._words))
        return out

    def _refill(self, states: np.ndarray[Any, Any]) -> None:
        import numpy as np

        low = (states < FLOOR).nonzero()[0]
        end = self._at + len(low)
        words = self._words[self._at : end].astype(np.uint32)
        if len(words) != len(low):
            raise ValueError("the entropy-coded data is truncated")
        states[low] = (states[low] << 16) | words
        self._at = end

    def at_end(self) -> bool:
        """Return whether all words were read and every lane is back in its initial state."""
        return self._at == len(self._words) and bool((self._states == FLOOR).all())
