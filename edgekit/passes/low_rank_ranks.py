"""Ranks to layers: what each rank of a layer costs the outputs, and which the budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from edgekit.errors import PassRefused
from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.passes.allocation import (
    Choice,
    Options,
    allocate,
    as_divergence,
    at_most,
    lightest,
    nearest,
)
from edgekit.passes.low_rank_splits import Split
from edgekit.passes.stored_layers import replaced, restored, shifted_bias
from edgekit.progress import Tick
from edgekit.recipe import LowRank

# Divergence that is no longer in proportion to a layer's error, so that it is tried at more ranks.
_TOO_MUCH = 0.1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A layer with the ranks that it could have, the last choice being to leave it whole.

    A choice's ``bits`` are the part of its parameters, or multiply-accumulates, that it keeps.
    """

    split: Split
    ranks: Sequence[int]
    options: Options

    @property
    def whole(self) -> int:
        """The place of the choice to leave it as it is."""
        return len(self.ranks)


def row_of(split: Split, settings: LowRank) -> Row:
    """A layer with the part of the error of its outputs that each rank makes."""
    ranks, errors = split.ranks(settings.keep, settings.of), split.way.errors
    choices = [
        Choice(
            bits=split.part(rank, settings.of),
            damage=float(errors[rank] / max(errors[0], np.finfo(float).tiny)),
        )
        for rank in ranks
    ]
    choices.append(Choice(bits=1.0, damage=0.0))
    return Row(
        split=split,
        ranks=ranks,
        options=Options(weights=split.weighs(settings.of), choices=choices),
    )


def measured(
    index: GraphIndex, rows: Sequence[Row], reference: Reference, keep: float, tick: Tick
) -> list[Row]:
    """The rows with divergences of the outputs for errors of the layers.

    Divergence grows with the square of a layer's error, so that one rank tells of the others; a
    layer that loses too much at ``keep`` of its parameters is tried where it loses less.
    """
    made = []
    for number, row in enumerate(rows):
        tick("sensitivity", number, len(rows))
        if not row.ranks:
            made.append(row)
            continue
        for part in (keep, (1 + keep) / 2):
            tried = min(nearest(row.options, part), row.whole - 1)
            with _of_rank(index, row.split, row.ranks[tried]):
                lost = reference.divergence(index.proto)
            if lost <= _TOO_MUCH:
                break
        made.append(replace(row, options=as_divergence(row.options, tried, lost)))
    return made


@contextmanager
def _of_rank(index: GraphIndex, split: Split, rank: int) -> Iterator[None]:
    """The graph with one layer as its two factors would make it."""
    stored, layer = split.whole.stored, split.whole.layer
    before = replaced(index, stored.name, layer.weight(split.way.product(rank)))
    undo = shifted_bias(index, stored, split.way.shift(rank))
    try:
        yield
    finally:
        undo()
        restored(index, stored.name, before)


def pick(rows: Sequence[Row], settings: LowRank) -> list[int]:
    """A choice for each layer, which together keep no more than the part asked for.

    Raises:
        PassRefused: not even the lightest choices do; says what they keep.
    """
    options = [row.options for row in rows]
    least = lightest(options)
    if least > settings.keep:
        raise PassRefused(
            f"keep={settings.keep:g} cannot be reached: with rank 1 in each of the {len(rows)} "
            f"layers, {least:.3f} of the {settings.of} stay"
        )
    if settings.allocation == "uniform":
        return [at_most(each, settings.keep) for each in options]
    return allocate(options, settings.keep)
