"""Integers of variable length: small ones take one byte."""

from __future__ import annotations

from typing import List, Union

Buffer = Union[bytes, bytearray, memoryview]


class Varints:
    """A reader of variable-length integers: 7 bits per byte, least significant first.

    Raises ``ValueError`` where they end too early, or after ``most`` numbers.
    """

    def __init__(self, data: Buffer, offset: int = 0, most: int = 1 << 62) -> None:
        self._data = data
        self._left = most
        self.at = offset

    def next(self) -> int:
        """Read the next number."""
        value = shift = 0
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many numbers")
        while True:
            if self.at >= len(self._data) or shift > 63:
                raise ValueError("a number is truncated")
            byte = self._data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def read_signed(self) -> int:
        """Read the next signed number: 0, 1, 2, 3 encode 0, -1, 1, -2 (zigzag)."""
        value = self.next()
        return value >> 1 ^ -(value & 1)

    def read_several(self, count: int) -> List[int]:
        """Read the next ``count`` numbers."""
        if count > len(self._data) - self.at:
            raise ValueError("numbers are missing")
        return [self.next() for _ in range(count)]

    def take(self, count: int) -> Buffer:
        """Return the next ``count`` bytes as they are."""
        part = self._data[self.at : self.at + count]
        if len(part) != count:
            raise ValueError("bytes are missing")
        self.at += count
        return part
