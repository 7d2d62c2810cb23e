"""Choose the few layers that stay float: those whose 8-bit tensors cost the outputs most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.placement import Placement, Weighted, place

# Relative squared error of the outputs that is small enough to leave all layers in 8 bits.
_ENOUGH = 1e-3
# Part of the arithmetic, and of the float weights, that may stay float.
_MOST_WORK = 0.2
_MOST_WEIGHTS = 0.03
# A layer must take away at least this part of the error, and this many times its part of the work.
_LEAST_GAIN = 0.04
_GAIN_OVER_WORK = 2.0
# Tensors that are tried at each step: those with the largest errors.
_TRIED = 12
_MOST_STEPS = 16
# Loading and storing an entry takes as long as so many multiply-accumulates.
_MACS_PER_ENTRY = 8


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a layer in float costs: its part of the arithmetic and of the weights."""

    work: Mapping[str, float]
    weights: Mapping[str, float]


def find_costs(index: GraphIndex, placement: Placement, sizes: Mapping[str, int]) -> Costs:
    """The part of arithmetic and weights that each layer has, by its first output.

    Args:
        index: of the model.
        placement: which layers there are.
        sizes: numbers of entries of values, for one batch.
    """
    work, weights = {}, {}
    for layer in placement.weighted:
        dims = index.initializers[layer.weight].dims
        weight = math.prod(dims)
        entering = sizes.get(placement.root(layer.node.input[0]), 0)
        leaving = _entries_out(layer, placement, sizes, entering, dims)
        macs = leaving * weight / dims[layer.axis]
        name = layer.node.output[0]
        work[name] = macs + _MACS_PER_ENTRY * (entering + leaving)
        weights[name] = float(weight) if layer.kept is None else 0.0
    return Costs(work=_shares(work), weights=_shares(weights))


def _entries_out(
    layer: Weighted,
    placement: Placement,
    sizes: Mapping[str, int],
    entering: int,
    dims: tuple[int, ...],
) -> float:
    known = sizes.get(placement.root(layer.output))
    if known is not None:
        return known
    channels = dims[layer.axis]
    return entering * channels / max(math.prod(dims[1:]) if layer.axis == 0 else dims[0], 1)


def _shares(of: Mapping[str, float]) -> dict[str, float]:
    total = sum(of.values())
    return {name: value / total if total else 0.0 for name, value in of.items()}


def choose_float_layers(
    index: GraphIndex, placement: Placement, errors: Mapping[str, float], costs: Costs
) -> list[frozenset[str]]:
    """Sets of nodes to compute in float, each larger than the one before.

    At each step one tensor leaves 8 bits together with the nodes that need it there: the one that
    takes away most of the remaining error for the work that it puts back. The search ends where
    the error is small, where no tensor stands out, or at the bounds of work and weights.

    Args:
        index: of the model.
        placement: with all layers in 8 bits.
        errors: by tensor (see ``tensor_errors``); they add up.
        costs: of the layers.
    """
    layers = {w.node.output[0]: w for w in placement.weighted}
    chosen: list[frozenset[str]] = []
    now, left = frozenset[str](), _remaining(placement, errors)
    while sum(left.values()) > _ENOUGH and len(chosen) < _MOST_STEPS:
        best: tuple[float, frozenset[str], dict[str, float]] | None = None
        for name in sorted(left, key=left.__getitem__, reverse=True)[:_TRIED]:
            nodes = now | _needing(index, placement, layers, name)
            work, weights = (_sum(each, nodes) for each in (costs.work, costs.weights))
            if work > _MOST_WORK or weights > _MOST_WEIGHTS or nodes == now:
                continue
            after = _remaining(place(index, nodes), errors)
            gain = 1 - sum(after.values()) / sum(left.values())
            added = work - _sum(costs.work, now)
            if gain < max(_LEAST_GAIN, _GAIN_OVER_WORK * added):
                continue
            score = gain / (added + 0.01)
            if best is None or score > best[0]:
                best = score, nodes, after
        if best is None:
            break
        _, now, left = best
        chosen.append(now)
    return chosen


def _sum(shares: Mapping[str, float], nodes: frozenset[str]) -> float:
    return sum(shares.get(name, 0.0) for name in nodes)


def _remaining(placement: Placement, errors: Mapping[str, float]) -> dict[str, float]:
    """The errors of the tensors that are in 8 bits."""
    values = {placement.root(name) for name in placement.values}
    names = values | {w.weight for w in placement.weighted}
    return {name: error for name, error in errors.items() if name in names}


def _needing(
    index: GraphIndex, placement: Placement, layers: Mapping[str, Weighted], tensor: str
) -> frozenset[str]:
    """The nodes that must compute in float for a tensor to leave 8 bits, by first outputs."""
    nodes = [node.output[0] for node in index.readers.get(tensor, ())]
    moved = [name for name in placement.like if placement.root(name) == tensor]
    for name in moved:
        nodes += [node.output[0] for node in index.readers.get(name, ())]
    nodes += [name for name, layer in layers.items() if layer.output == tensor]
    return frozenset(nodes)
