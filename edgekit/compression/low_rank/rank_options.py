"""Allocation of ranks to layers: the damage of each rank, and the choice within the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from edgekit.compression.budget_allocation import (
    Choice,
    Options,
    allocate,
    choose_at_most,
    choose_nearest,
    compute_least_cost,
)
from edgekit.compression.layers.stored_layers import replace_constant, restore_constant, shift_bias
from edgekit.compression.low_rank.decompose import Split
from edgekit.compression.output_divergence import Reference
from edgekit.compression.sensitivity import scale_to_probes
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.pass_settings import LowRank
from edgekit.progress import Tick


@dataclass(frozen=True, kw_only=True)
class LayerRanks:
    """Layer with its candidate ranks; the last choice leaves it whole.

    The cost of a choice is the share of parameters, or multiply-accumulates, that it keeps.
    """

    split: Split
    ranks: Sequence[int]
    options: Options

    @property
    def whole(self) -> int:
        """Return the place of the choice that leaves the layer whole."""
        return len(self.ranks)


def build_layer_ranks(split: Split, settings: LowRank) -> LayerRanks:
    """Build the candidate ranks of a layer, with the share of the output error of each."""
    ranks, errors = split.ranks(settings.keep, settings.of), split.way.errors
    choices = [
        Choice(
            cost=split.part(rank, settings.of),
            damage=float(errors[rank] / max(errors[0], np.finfo(float).tiny)),
        )
        for rank in ranks
    ]
    choices.append(Choice(cost=1.0, damage=0.0))
    return LayerRanks(
        split=split,
        ranks=ranks,
        options=Options(size=split.get_size(settings.of), choices=choices),
    )


def measure_divergences(
    index: GraphIndex, rows: Sequence[LayerRanks], reference: Reference, keep: float, tick: Tick
) -> list[LayerRanks]:
    """Replace the errors of the layers by the output divergences that they cause.

    A layer that loses too much at ``keep`` of its parameters is tried at a higher rank.

    Args:
        index: the graph; unchanged afterwards.
        rows: the layers, with errors.
        reference: the outputs on held-out samples.
        keep: share of the parameters at which layers are tried.
        tick: called with the number of layers done.
    """

    def measure(number: int, rank: int) -> float:
        row = rows[number]
        with _factorize_temporarily(index, row.split, row.ranks[rank]):
            return reference.divergence(index.proto)

    probes = [
        [min(choose_nearest(row.options, part), row.whole - 1) for part in (keep, (1 + keep) / 2)]
        if row.ranks
        else []
        for row in rows
    ]
    scaled = scale_to_probes([row.options for row in rows], probes, measure, tick)
    return [replace(row, options=each) for row, each in zip(rows, scaled, strict=True)]


@contextmanager
def _factorize_temporarily(index: GraphIndex, split: Split, rank: int) -> Iterator[None]:
    """Give one layer the product of its two factors as weight, until the context ends."""
    stored, layer = split.whole.stored, split.whole.layer
    before = replace_constant(index, stored.name, layer.to_weight(split.way.product(rank)))
    undo = shift_bias(index, stored, split.way.shift(rank))
    try:
        yield
    finally:
        undo()
        restore_constant(index, stored.name, before)


def choose_ranks(rows: Sequence[LayerRanks], settings: LowRank) -> list[int]:
    """Choose the rank of each layer so that all together keep no more than the requested share.

    Raises:
        PassRefused: not even the lightest choices fit; the text says what they keep.
    """
    options = [row.options for row in rows]
    least = compute_least_cost(options)
    if least > settings.keep:
        raise PassRefused(
            f"keep={settings.keep:g} cannot be reached: with rank 1 in each of the {len(rows)} "
            f"layers, {least:.3f} of the {settings.of} remain"
        )
    if settings.allocation == "uniform":
        return [choose_at_most(each, settings.keep) for each in options]
    return allocate(options, settings.keep)
