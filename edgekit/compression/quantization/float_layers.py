"""Choice of the few layers that stay float: those whose 8-bit tensors change the outputs most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import Placement, WeightedNode, plan_placement

# Below this relative squared error of the outputs all layers stay in 8 bits.
_ENOUGH = 1e-3
# Largest shares of the arithmetic and of the weights that may stay float.
_MOST_WORK = 0.2
_MOST_WEIGHTS = 0.03
# A layer must remove at least this part of the error, and this many times its part of the work
# and of the weights, which take four times the bytes in float.
_LEAST_GAIN = 0.04
_GAIN_OVER_WORK = 2.0
_GAIN_OVER_WEIGHTS = 8.0
# Number of tensors tried at each step, the largest errors first.
_TRIED = 12
_MOST_STEPS = 16
# Cost of loading and storing an entry, in multiply-accumulates.
_MACS_PER_ENTRY = 8


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of each layer in float: its share of the arithmetic and of the weights."""

    work: Mapping[str, float]
    weights: Mapping[str, float]


def find_costs(index: GraphIndex, placement: Placement, sizes: Mapping[str, int]) -> Costs:
    """Compute the share of arithmetic and weights of each layer, by its first output.

    Args:
        index: index of the model.
        placement: the layers.
        sizes: numbers of entries of values, for one batch.
    """
    work, weights = {}, {}
    for layer in placement.weighted:
        dims = index.initializers[layer.weight].dims
        weight = math.prod(dims)
        entering = sizes.get(placement.root(layer.node.input[0]), 0)
        leaving = _count_output_entries(layer, placement, sizes, entering, dims)
        macs = leaving * weight / dims[layer.axis]
        name = layer.node.output[0]
        work[name] = macs + _MACS_PER_ENTRY * (entering + leaving)
        weights[name] = float(weight) if layer.qdq_weight is None else 0.0
    return Costs(work=_compute_shares(work), weights=_compute_shares(weights))


def _count_output_entries(
    layer: WeightedNode,
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


def _compute_shares(of: Mapping[str, float]) -> dict[str, float]:
    total = sum(of.values())
    return {name: value / total if total else 0.0 for name, value in of.items()}


def choose_float_layers(
    index: GraphIndex, placement: Placement, errors: Mapping[str, float], costs: Costs
) -> list[frozenset[str]]:
    """Search for sets of nodes to compute in float; each set contains the previous one.

    At each step one tensor returns to float, with the nodes that read or compute it: the tensor
    with the best ratio of removed error to added work. The search ends when the error is small,
    when no tensor removes enough error, or at the bounds of work and weights.

    Args:
        index: index of the model.
        placement: placement with all layers in 8 bits.
        errors: additive errors by tensor (see ``measure_tensor_errors``).
        costs: costs of the layers.
    """
    layers = {w.node.output[0]: w for w in placement.weighted}
    chosen: list[frozenset[str]] = []
    now, left = frozenset[str](), _select_remaining(placement, errors)
    while sum(left.values()) > _ENOUGH and len(chosen) < _MOST_STEPS:
        best: tuple[float, frozenset[str], dict[str, float]] | None = None
        for name in sorted(left, key=left.__getitem__, reverse=True)[:_TRIED]:
            nodes = now | _find_nodes_to_free(index, placement, layers, name)
            work, weights = (_sum(each, nodes) for each in (costs.work, costs.weights))
            if work > _MOST_WORK or weights > _MOST_WEIGHTS or nodes == now:
                continue
            after = _select_remaining(plan_placement(index, nodes), errors)
            gain = 1 - sum(after.values()) / sum(left.values())
            added = work - _sum(costs.work, now)
            heavier = weights - _sum(costs.weights, now)
            least = max(_LEAST_GAIN, _GAIN_OVER_WORK * added, _GAIN_OVER_WEIGHTS * heavier)
            if gain < least:
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


def _select_remaining(placement: Placement, errors: Mapping[str, float]) -> dict[str, float]:
    """Select the errors of the tensors that are in 8 bits."""
    values = {placement.root(name) for name in placement.values}
    names = values | {w.weight for w in placement.weighted}
    return {name: error for name, error in errors.items() if name in names}


def _find_nodes_to_free(
    index: GraphIndex, placement: Placement, layers: Mapping[str, WeightedNode], tensor: str
) -> frozenset[str]:
    """Return the nodes, by first output, that must compute in float for a tensor to be float."""
    nodes = [node.output[0] for node in index.readers.get(tensor, ())]
    moved = [name for name in placement.parameter_source if placement.root(name) == tensor]
    for name in moved:
        nodes += [node.output[0] for node in index.readers.get(name, ())]
    nodes += [name for name, layer in layers.items() if layer.output == tensor]
    return frozenset(nodes)
