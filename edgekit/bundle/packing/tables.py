"""Frequency tables and the tensors that share them, chosen for the smallest total size."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.packing.numbers import Bins, Form
from edgekit_agent.packing.numbers import compute_symbol_values, count_symbols
from edgekit_agent.packing.rans import PRECISION, compute_frequencies

_STEPS = (1, 2, 4, 8)
# Estimated bits of a table's entry and of its header once the plan is deflated.
_ENTRY_BITS, _TABLE_BITS = 4.0, 40.0


@dataclass(frozen=True, kw_only=True)
class Table:
    """Frequency table as the plan holds it: ``levels`` below the most frequent symbol."""

    kept_bits: int
    steps: int
    levels: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Return the frequencies of the symbols."""
        return compute_frequencies(self.levels, self.steps)


@dataclass(kw_only=True)
class TableGroup:
    """Members that share a table, and the counts of their finest symbols."""

    form: Form
    bins: Bins
    members: list[int] = field(default_factory=list)  # indices of the bins that were merged


def group_tables(form: Form, bins: Sequence[Bins]) -> list[TableGroup]:
    """Merge members as long as a shared table costs less than separate ones.

    Args:
        form: conversion of words to numbers, the same for all.
        bins: counts of each member's finest symbols.
    """
    order = sorted(range(len(bins)), key=lambda i: _compute_entropy(bins[i]))
    groups = [TableGroup(form=form, bins=bins[i].copy(), members=[i]) for i in order]
    costs = [estimate_bits(form, g.bins) for g in groups]
    # Only neighbors in the order of entropy are similar enough to share a table.
    joint = [estimate_bits(form, a.bins + b.bins) for a, b in itertools.pairwise(groups)]
    while len(groups) > 1:
        gains = np.array(costs[:-1]) + np.array(costs[1:]) - np.array(joint)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        _merge(groups, costs, joint, best)
    return groups


def _merge(groups: list[TableGroup], costs: list[float], joint: list[float], at: int) -> None:
    right = groups.pop(at + 1)
    groups[at].bins += right.bins
    groups[at].members += right.members
    costs[at : at + 2] = [joint.pop(at)]
    for pair in (at - 1, at):
        if 0 <= pair < len(joint):
            form = groups[pair].form
            joint[pair] = estimate_bits(form, groups[pair].bins + groups[pair + 1].bins)


def estimate_bits(form: Form, bins: Bins) -> float:
    """Estimate the bits of numbers with their own table, the table included."""
    return min(_estimate_bits_at(form, bins, kept_bits) for kept_bits in form.list_kept_bits())


def _estimate_bits_at(form: Form, bins: Bins, kept_bits: int) -> float:
    counts, low = _coarsen_counts(form, bins, kept_bits)
    entries = int(counts.nonzero()[0].max(initial=-1)) + 1
    return _compute_entropy(counts) + low + _ENTRY_BITS * entries + _TABLE_BITS


def _coarsen_counts(form: Form, bins: Bins, kept_bits: int) -> tuple[Bins, float]:
    """Return the counts of symbols that keep fewer bits, and the total of low bits left over."""
    symbol, lacking, count = _map_coarse_symbols(form.width, form.finest, kept_bits)
    used = bins[: len(symbol)]
    counts = np.bincount(symbol, weights=used, minlength=count).astype(np.int64)
    return counts, float((used * lacking).sum())


@functools.cache
def _map_coarse_symbols(
    width: int, finest: int, kept_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32], int]:
    """Map each finest symbol to the one that keeps fewer bits, and to the bits that it lacks."""
    least, _ = compute_symbol_values(count_symbols(width, finest), finest)
    coarse, lacking = compute_symbol_values(count_symbols(width, kept_bits), kept_bits)
    symbol = np.searchsorted(coarse, least, side="right") - 1
    return symbol, lacking[symbol], len(coarse)


def _compute_entropy(counts: Bins) -> float:
    """Return the bits of the symbols under their own frequencies."""
    some = counts[counts > 0].astype(np.float64)
    return float(-(some * np.log2(some / some.sum())).sum())


def make_table(form: Form, bins: Bins) -> Table:
    """Build the table that codes the counted symbols shortest."""
    kept_bits = min(
        form.list_kept_bits(), key=lambda kept_bits: _estimate_bits_at(form, bins, kept_bits)
    )
    counts, _ = _coarsen_counts(form, bins, kept_bits)
    counts = counts[: int(counts.nonzero()[0].max(initial=0)) + 1]
    tables = [
        Table(kept_bits=kept_bits, steps=steps, levels=_compute_levels(counts, steps))
        for steps in _STEPS
    ]
    return min(tables, key=lambda table: _count_coded_bits(counts, table))


def _compute_levels(counts: Bins, steps: int) -> tuple[int, ...]:
    top = max(int(counts.max()), 1)
    with np.errstate(divide="ignore"):
        below = np.rint(steps * np.log2(top / counts))
    below = np.where(counts > 0, np.minimum(below, steps * PRECISION) + 1, 0)
    return tuple(int(level) for level in below)


def _count_coded_bits(counts: Bins, table: Table) -> float:
    widths: NDArray[np.float64] = np.array(table.counts, np.float64)
    used = counts > 0
    bits = (counts[used] * (PRECISION - np.log2(widths[used]))).sum()
    levels = np.array(table.levels)
    return float(bits) + _compute_entropy(np.bincount(levels[levels > 0]))
