"""Slices of an integer tensor, clustered by their distribution if that saves bytes.

The channels of a per-channel quantized weight have different distributions: each scale depends on
the largest value alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.packing.numbers import Form, Words, count_symbols, to_symbols
from edgekit.bundle.packing.tables import estimate_bits

# In a small tensor the tables and the kinds cost as much as they save.
_LEAST_WORDS = 1 << 14
_MOST_SLICES = 4096
_KINDS = (2, 4, 8)
_ROUNDS = 8
# A table is often shared with other tensors, so a tensor is not charged its full price.
_SHARED_BITS = 20.0
_ID_BITS = 1.0
_INTEGERS = Form(width=8)


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Slices of a tensor of ``(outer, len(kinds), inner)`` words along its middle axis.

    ``kinds`` holds the kind of each slice. Kinds are numbered from 0, and each of them occurs.
    """

    inner: int
    kinds: tuple[int, ...]

    def part(self, words: Words, kinds: Sequence[int]) -> Words:
        """Return the words of all slices of these kinds, in file order."""
        cut = words.reshape(-1, len(self.kinds), self.inner)
        part: Words = cut[:, np.isin(self.kinds, kinds)].ravel()
        return part


def find_slices(words: Words, form: Form, dims: Sequence[int]) -> Slices | None:
    """Find the slices and kinds with the smallest size; ``None`` if the whole tensor is smaller.

    Args:
        words: of the tensor.
        form: conversion of the words to numbers.
        dims: shape of the tensor.
    """
    return _find_cheapest(words, form, dims)[1]


def estimate_packed_bits(integers: NDArray[np.int8]) -> float:
    """Estimate the bits of an int8 tensor in a packed file, with its slices clustered.

    Layers or channels that are mostly zeros take far fewer bits than the entropy of all their
    integers suggests.
    """
    return _find_cheapest(integers.ravel().view(np.uint8), _INTEGERS, integers.shape)[0]


def _find_cheapest(words: Words, form: Form, dims: Sequence[int]) -> tuple[float, Slices | None]:
    whole = estimate_bits(form, count_symbols(words, form, 0))
    if form.centered or form.width != 8 or len(words) < _LEAST_WORDS:
        return whole, None
    ways = [
        (cost, way)
        for axis in _iter_axes(dims, len(words))
        for cost, way in _iter_slicings(words, form, *axis)
    ]
    cost, way = min(ways, key=lambda way: way[0], default=(whole, None))
    return (cost, way) if cost < whole else (whole, None)


def _iter_axes(dims: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the number of slices and the words in one step of each axis that may be sliced."""
    if math.prod(dims) != size:
        return
    for axis in sorted({0, min(1, len(dims) - 1), len(dims) - 1}):
        inner = math.prod(dims[axis + 1 :])
        if 2 <= dims[axis] <= _MOST_SLICES and size // dims[axis] >= 4:
            yield dims[axis], inner


def _iter_slicings(
    words: Words, form: Form, count: int, inner: int
) -> Iterator[tuple[float, Slices]]:
    symbols = to_symbols(words, form, 0, form.finest).reshape(-1, count, inner)
    place = np.arange(count)[None, :, None] * 256 + symbols
    bins = np.bincount(place.ravel(), minlength=count * 256).reshape(count, 256)
    spread = bins @ np.arange(256)
    order = np.argsort(np.argsort(spread, kind="stable"), kind="stable")
    for wanted in _KINDS:
        if 2 * wanted > count:
            return
        kinds = _cluster_slices(bins, order * wanted // count, wanted)
        _, kinds = np.unique(kinds, return_inverse=True)
        most = int(kinds.max()) + 1
        if most < 2:
            continue
        shared = [estimate_bits(form, bins[kinds == kind].sum(axis=0)) for kind in range(most)]
        cost = sum(shared) - (most - 1) * _SHARED_BITS + count * (math.log2(most) + _ID_BITS)
        yield cost, Slices(inner=inner, kinds=tuple(int(kind) for kind in kinds))


def _cluster_slices(
    bins: NDArray[np.int64], kinds: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """Move each slice to the kind whose frequencies code it shortest, until none moves."""
    counts = bins[:, bins.any(axis=0)].astype(np.float64)
    for _ in range(_ROUNDS):
        sums = np.stack([counts[kinds == kind].sum(axis=0) for kind in range(most)]) + 0.05
        bits = -np.log2(sums / sums.sum(axis=1, keepdims=True))
        moved = (counts @ bits.T).argmin(axis=1)
        if (moved == kinds).all():
            break
        kinds = moved
    return kinds
