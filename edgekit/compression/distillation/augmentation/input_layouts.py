"""Layouts of model inputs: conversion to one order of axes, and the limits of the values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.input_kinds import (
    Array,
    InputKind,
    find_channel_axis,
    find_kind,
)

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class InputLayout:
    """Kind, order of axes and statistics of one input.

    Rows are arrays in one order: grids [N, C, height, width] ([N, 1, A, B] for two axes), signals
    [N, C, time], others with samples along the first axis. Grids, signals and values are floats.

    Attributes:
        name: The input.
        kind: The kind, which tells the changes that fit.
        sizes: Sizes of a row.
        order: The axes of the input in the order of rows.
        is_stacked: False where each sample is a whole input, without a sample axis.
        adds_channels: Rows get a channel axis of one.
        low: Smallest value seen, for each channel or column.
        high: Largest value seen, for each channel or column.
        spread: Standard deviation, for each channel or column.
        changeable: False for columns of categories.
        is_whole: All values are whole numbers, and stay so.
    """

    name: str
    kind: InputKind
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    is_stacked: bool
    adds_channels: bool
    low: Array
    high: Array
    spread: Array
    changeable: NDArray[np.bool_]
    is_whole: bool

    @property
    def is_numeric(self) -> bool:
        """Return whether rows are floats."""
        return self.kind in ("grid", "signal", "values")

    def to_rows(self, array: Array) -> Array:
        """Copy an input in the order of rows."""
        rows = self._arrange(array)
        if not self.is_numeric:
            return rows.copy()
        wide = rows.dtype == np.float64 and self.kind == "values"
        return np.array(rows, dtype=np.float64 if wide else np.float32, order="C")

    def _arrange(self, array: Array) -> Array:
        """Return a view of an input in the order of rows."""
        rows = (array if self.is_stacked else array[None]).transpose(self.order)
        return rows[:, None] if self.adds_channels else rows

    def from_rows(self, rows: Array, array: Array) -> Array:
        """Convert rows to an input of the dtype of ``array``, within the limits of its values."""
        if self.is_numeric:
            rows = self._limit(rows, self._arrange(array), array.dtype.kind != "f")
            rows = rows[:, 0] if self.adds_channels else rows
        result = rows.transpose(np.argsort(self.order)).astype(array.dtype)
        return np.ascontiguousarray(result if self.is_stacked else result[0])

    def get_changeable(self, values: Array) -> NDArray[np.bool_]:
        """Return the columns of values that may change."""
        if self._fits(values):
            return self.changeable
        return np.full((1,) * values.ndim, bool(self.changeable.all()))

    def get_spread(self, values: Array) -> Array:
        """Return the standard deviations of the columns of values."""
        if self._fits(values):
            return self.spread
        return np.full((1,) * values.ndim, self.spread.mean())

    def _fits(self, values: Array) -> bool:
        """Return whether the statistics hold for these values, whose size may differ."""
        return self.low.size == 1 or self.low.shape[1] == values.shape[1]

    def _limit(self, rows: Array, before: Array, is_integer: bool) -> Array:
        """Clip rows to the values seen, here or in the samples from which the limits come."""
        if self.is_whole or is_integer:
            rows = np.rint(rows)
        low, high = compute_limits(before, self.kind)
        if not self._fits(rows):
            return np.clip(rows, low.min(), high.max())
        return np.clip(rows, np.fmin(low, self.low), np.fmax(high, self.high))


def find_layouts(
    batch: Mapping[str, Array], axes: Mapping[str, int], constants: Collection[str]
) -> list[InputLayout]:
    """Find the layouts of the inputs that have a value for each sample.

    Args:
        batch: Samples by input.
        axes: Sample axis by input; 0 if not given, negative where a sample is a whole input.
        constants: Inputs without a value for each sample, for example states.
    """
    layouts = [
        _find_layout(name, np.asarray(array), axes.get(name, 0))
        for name, array in batch.items()
        if name not in constants and np.ndim(array) > max(axes.get(name, 0), -1)
    ]
    counts = [len(each.to_rows(np.asarray(batch[each.name]))) for each in layouts]
    return [each for each, n in zip(layouts, counts, strict=True) if n == counts[0]]


def compute_limits(rows: Array, kind: InputKind) -> tuple[Array, Array]:
    """Compute the smallest and largest values of each channel or column.

    Grids and signals have limits for each channel, tables for each column, others for all values.
    """
    axes = _get_shared_axes(rows.ndim, kind)
    low = np.fmin.reduce(rows, axis=axes, keepdims=True)
    return low, np.fmax.reduce(rows, axis=axes, keepdims=True)


def _get_shared_axes(rank: int, kind: InputKind) -> tuple[int, ...]:
    """Return the axes over which statistics are taken."""
    if kind in ("grid", "signal"):
        return (0, *range(2, rank))
    return (0,) if rank == 2 else tuple(range(rank))


def _find_layout(name: str, array: Array, axis: int) -> InputLayout:
    is_stacked = axis >= 0
    whole = array if is_stacked else array[None]
    first = max(axis, 0)
    order = (first, *(i for i in range(whole.ndim) if i != first))
    kind = find_kind(whole.transpose(order))
    order = _put_channels_first(order, whole.shape, kind)
    draft = InputLayout(
        name=name,
        kind=kind,
        sizes=(),
        order=order,
        is_stacked=is_stacked,
        adds_channels=(kind, whole.ndim) in (("grid", 3), ("signal", 2)),
        low=np.zeros(1),
        high=np.zeros(1),
        spread=np.zeros(1),
        changeable=np.zeros(1, dtype=bool),
        is_whole=False,
    )
    rows = draft.to_rows(array)
    draft = replace(draft, sizes=rows.shape[1:])
    return _measure(draft, rows) if draft.is_numeric else draft


def _put_channels_first(
    order: tuple[int, ...], shape: tuple[int, ...], kind: InputKind
) -> tuple[int, ...]:
    """Put the channel axis of images and signals after the sample axis."""
    sizes = tuple(shape[axis] for axis in order)
    if kind == "grid" and len(order) == 4:
        last = find_channel_axis(sizes) == 3
        return (order[0], order[3], *order[1:3]) if last else order
    if kind == "signal" and len(order) == 3 and sizes[1] > sizes[2]:
        return (order[0], order[2], order[1])
    return order


def _measure(draft: InputLayout, rows: Array) -> InputLayout:
    """Add the statistics of rows to a layout."""
    low, high = compute_limits(rows, draft.kind)
    axes = _get_shared_axes(rows.ndim, draft.kind)
    finite = np.isfinite(rows)
    values = np.where(finite, rows, 0).astype(np.float64)
    counts = np.maximum(finite.sum(axis=axes, keepdims=True), 1)
    mean = values.sum(axis=axes, keepdims=True) / counts
    power = (np.where(finite, values - mean, 0) ** 2).sum(axis=axes, keepdims=True) / counts
    whole_columns = (np.rint(values) == values).all(axis=axes, keepdims=True)
    changeable = np.ones(low.shape, dtype=bool)
    if draft.kind == "values":
        # Whole numbers next to fractions are categories or counts; 0 and 1 alone are flags.
        flags = whole_columns & (low >= 0) & (high <= 1)
        changeable = ~flags if whole_columns.all() else ~whole_columns
    return replace(
        draft,
        kind=draft.kind if changeable.any() else "fixed",
        low=low,
        high=high,
        spread=np.sqrt(power).astype(rows.dtype),
        changeable=changeable,
        is_whole=draft.kind == "values" and bool(whole_columns.all()),
    )
