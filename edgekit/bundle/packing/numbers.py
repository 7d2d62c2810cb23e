"""Encoder of a tensor's words as symbols and low bits; the agent's packing.numbers decodes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_agent.packing.numbers import compute_symbol_values

Words = NDArray[Any]
Bins = NDArray[np.int64]

_CHUNK = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Form:
    """Conversion of words to numbers; see ``edgekit_agent.packing.numbers.Group``."""

    width: int
    rotated: bool = False
    shift: int = 0
    centered: bool = False

    @property
    def finest(self) -> int:
        """Return the most bits that a symbol can keep, so that there are at most 256 symbols."""
        return self.width - 1 if self.width <= 8 else 3

    def list_kept_bits(self) -> tuple[int, ...]:
        """Return the possible numbers of bits that a symbol keeps."""
        return tuple(k for k in (0, 1, 2, 3, 4, 5, 7) if k <= self.finest)


def read_words(data: bytes | memoryview, form: Form) -> Words:
    """Read the words of a tensor's bytes as unsigned integers, two per byte for a width of 4."""
    words: Words = np.frombuffer(data, f"<u{max(1, form.width // 8)}")
    if form.width == 4:
        words = np.stack([words & 15, words >> 4], axis=1).ravel()
    return words


def find_center(words: Words, form: Form) -> int:
    """Return the center of a tensor: near its median, rounded; 0 if the form has no center."""
    if not form.centered:
        return 0
    values = np.sort(_rotate_signs(words, form) >> np.uint32(form.shift))
    middle = int(values[len(values) // 2])
    # Fewer digits are as good, since the numbers are spread over a much wider range.
    spread = int(values[-1]) - int(values[0])
    step = 1 << max(0, spread.bit_length() - 6)
    return middle // step * step


def count_zero_bits(words: Words, form: Form) -> int:
    """Count the low bits that are zero in all words."""
    together = int(np.bitwise_or.reduce(_rotate_signs(words, form))) if len(words) else 0
    return (together & -together).bit_length() - 1 if together else 0


def to_symbols(words: Words, form: Form, center: int, kept_bits: int) -> NDArray[np.uint8]:
    """Return the symbol of each word.

    Args:
        words: of a tensor.
        form: conversion of words to numbers.
        center: the number 0 stands for this word.
        kept_bits: bits after the highest one that a symbol holds.
    """
    if form.width <= 8:
        table = _numbers_to_symbols(
            _to_numbers(np.arange(1 << form.width), form, center), kept_bits
        )
        made: NDArray[np.uint8] = table[words]
        return made
    parts = [
        _numbers_to_symbols(_to_numbers(part, form, center), kept_bits)
        for part in _iter_chunks(words)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def iter_low_bits(
    words: Words, form: Form, center: int, kept_bits: int, count: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the low bits (0 or 1 each) that symbols lack, lowest first, by chunk.

    Args:
        words: of a tensor.
        form: conversion of words to numbers.
        center: the number 0 stands for this word.
        kept_bits: bits after the highest one that a symbol holds.
        count: number of different symbols.
    """
    _, missing = compute_symbol_values(count, kept_bits)
    if not missing.any():
        return
    for part in _iter_chunks(words):
        numbers = _to_numbers(part, form, center)
        lengths = missing[_numbers_to_symbols(numbers, kept_bits)]
        most = int(lengths.max(initial=0))
        if most:
            places = np.arange(most, dtype=np.uint32)
            bits = (numbers[:, None] >> places & np.uint32(1)).astype(np.uint8)
            yield bits[places < lengths[:, None]]


def count_symbols(words: Words, form: Form, center: int) -> Bins:
    """Count the occurrences of each of the 256 finest symbols."""
    return np.bincount(to_symbols(words, form, center, form.finest), minlength=256)


def _iter_chunks(words: Words) -> Iterator[Words]:
    for at in range(0, len(words), _CHUNK):
        yield words[at : at + _CHUNK]


def _rotate_signs(words: Words, form: Form) -> NDArray[np.uint32]:
    """Return words as uint32; for floats, move the sign to the lowest bit."""
    wide = words.astype(np.uint32)
    if not form.rotated:
        return wide
    ones = np.uint32((1 << form.width) - 1)
    return ((wide << np.uint32(1)) | (wide >> np.uint32(form.width - 1))) & ones


def _to_numbers(words: Words, form: Form, center: int) -> NDArray[np.uint32]:
    """Return the distances of words from the center: 0, -1, 1, -2 as 0, 1, 2, 3."""
    bits = form.width - form.shift
    ones = np.uint32((1 << bits) - 1)
    far = ((_rotate_signs(words, form) >> np.uint32(form.shift)) - np.uint32(center)) & ones
    negative = far >> np.uint32(bits - 1) != 0
    return np.where(negative, (~far & ones) << np.uint32(1) | np.uint32(1), far << np.uint32(1))


def _numbers_to_symbols(numbers: NDArray[np.uint32], kept_bits: int) -> NDArray[np.uint8]:
    # A float64 holds 32 bits exactly; frexp returns the bit length of a number.
    length = np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    missing = np.maximum(length - kept_bits - 1, 0)
    top = numbers.astype(np.int64) >> missing
    symbol = np.where(missing == 0, top, (1 << kept_bits) * missing + top)
    made: NDArray[np.uint8] = symbol.astype(np.uint8)
    return made
