"""Numbers of a packed file: words of a tensor, restored from symbols and low bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Tuple, Union

if TYPE_CHECKING:
    import numpy as np

# Numbers are restored in chunks of this many, to limit memory.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Group:
    """Numbers that share a table of frequencies.

    A number is the signed difference of a word from the center of its tensor: 0, 1, 2, 3 encode 0,
    -1, 1, -2. A number below ``2 ** (kept_bits + 1)`` is its own symbol. The symbol of a larger one
    holds its length and the ``kept_bits`` bits after its highest; its other bits are stored as they
    are.

    Attributes:
        width: bits of a word: 4, 8, 16 or 32.
        rotated: words are floats, with the sign moved to the lowest bit.
        shift: low bits that are zero in all words, and left out.
        centered: each tensor has a center in the plan; otherwise it is zero.
        kept_bits: bits after the highest one that a symbol holds.
        counts: frequency of each symbol.
    """

    width: int
    rotated: bool
    shift: int
    centered: bool
    kept_bits: int
    counts: Tuple[int, ...]


def count_symbols(width: int, kept_bits: int) -> int:
    """Return the number of symbols that numbers of ``width`` bits can have."""
    return (2 << kept_bits) + (max(0, width - kept_bits - 1) << kept_bits)


def compute_symbol_values(
    count: int, kept_bits: int
) -> Tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return, for each symbol, its least number and how many low bits it lacks; as uint32."""
    import numpy as np

    symbol = np.arange(count, dtype=np.int64)
    beyond = np.maximum(symbol - (2 << kept_bits), 0)
    missing = np.where(symbol < 2 << kept_bits, 0, (beyond >> kept_bits) + 1)
    highest = (1 << kept_bits) + (beyond & ((1 << kept_bits) - 1))
    least = np.where(symbol < 2 << kept_bits, symbol, highest << missing)
    return least.astype(np.uint32), missing.astype(np.uint32)


class LowBits:
    """A reader of numbers of different lengths from one string of bits, lowest bit first."""

    def __init__(self, data: Union[bytes, bytearray, memoryview]) -> None:
        self._size = 8 * len(data)
        self._data = data or bytes(1)
        self._at = 0

    def take(self, lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Read a number of each of ``lengths`` bits, at most 32 each; as uint32.

        Raises:
            ValueError: there are not that many bits.
        """
        import numpy as np

        ends = np.cumsum(lengths, dtype=np.int64)
        starts = ends - lengths + self._at
        if len(ends):
            self._at += int(ends[-1])
        if self._at > self._size:
            raise ValueError("low bits are missing")
        data = np.frombuffer(self._data, np.uint8)
        first, value = starts >> 3, np.zeros(len(starts), np.uint64)
        for byte in range(5):
            # Bytes past the end are read as the last one; the mask below removes their bits.
            index = np.minimum(first + byte, len(data) - 1)
            value |= data[index].astype(np.uint64) << np.uint64(8 * byte)
        value >>= (starts & 7).astype(np.uint64)
        value &= (np.uint64(1) << lengths.astype(np.uint64)) - np.uint64(1)
        return value.astype(np.uint32)

    def at_end(self) -> bool:
        """Return whether all was read but the rest of the last byte."""
        return self._size - self._at < 8


class NumberReader:
    """A converter of the symbols of a group to the words of a tensor."""

    def __init__(self, group: Group, low: LowBits) -> None:
        self._group = group
        self._low = low
        self._least, self._missing = compute_symbol_values(len(group.counts), group.kept_bits)

    def words(self, symbols: np.ndarray[Any, Any], center: int) -> np.ndarray[Any, Any]:
        """Convert symbols to little-endian words of the tensor's width; 4-bit words in pairs."""
        import numpy as np

        out = np.empty(len(symbols), f"<u{max(1, self._group.width // 8)}")
        for start in range(0, len(symbols), _CHUNK):
            out[start : start + _CHUNK] = self._read_chunk(symbols[start : start + _CHUNK], center)
        if self._group.width != 4:
            return out
        pairs: np.ndarray[Any, Any] = out[0::2] | out[1::2] << 4
        return pairs

    def _read_chunk(self, symbols: np.ndarray[Any, Any], center: int) -> np.ndarray[Any, Any]:
        import numpy as np

        group = self._group
        number = self._least[symbols]
        missing = self._missing[symbols]
        if missing.any():
            number |= self._low.take(missing)
        word: np.ndarray[Any, Any] = (number >> np.uint32(1)) ^ (
            np.uint32(0) - (number & np.uint32(1))
        )
        word += np.uint32(center & 0xFFFFFFFF)
        word <<= np.uint32(group.shift)
        word &= np.uint32((1 << group.width) - 1)
        if group.rotated:
            word = (word >> np.uint32(1)) | (word << np.uint32(group.width - 1))
        return word
