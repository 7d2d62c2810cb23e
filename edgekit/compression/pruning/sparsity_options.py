"""Candidate sparsities of each layer: their damage to the outputs, and the best allocation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.compression.budget_allocation import (
    Choice,
    Options,
    allocate,
    choose_nearest,
)
from edgekit.compression.layers.stored_layers import StoredLayer, find_bias
from edgekit.compression.numerics import Doubles
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pruning.layer_objective import build_layer_objective
from edgekit.compression.pruning.mask_solver import (
    LayerObjective,
    PatternRule,
    Rule,
    ShareRule,
    prune_by_magnitude,
    prune_by_power,
    prune_matrix,
)
from edgekit.compression.reconstruction.moments import Moments
from edgekit.compression.sensitivity import measure_damage, scale_to_probes
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import BIASED_OPS
from edgekit.pass_settings import PruneWeights
from edgekit.progress import Tick

_LEVELS = (*(level / 10 for level in range(10)), 0.95)
_ROUNDING = 1e-6
# Layers with fewer inputs per output have few weights to spare (a depthwise one has a window). All
# of them stay dense if they are at most this share of the weights.
_THIN, _NEXT_TO_NOTHING = 32, 0.05


@dataclass(frozen=True, kw_only=True)
class LayerSparsities:
    """Layer with its candidate sparsities.

    ``options`` has a choice for each of ``levels``. Its cost is the share of weights that
    stays; its damage is first the layer's error, later the divergence of the outputs.
    """

    layer: StoredLayer
    levels: tuple[float, ...]
    options: Options


def choose_rule(layer: StoredLayer, settings: PruneWeights, sparsity: float) -> Rule | None:
    """Choose the pruning rule of a layer; ``None`` where it stays dense.

    Each row of an embedding loses the same share, as rows are read one by one; N:M does not apply.
    """
    inputs = layer.matrix.shape[-1]
    if settings.pattern != "none":
        kept, _, block = settings.pattern.partition(":")
        fits = layer.layer is not None and inputs % int(block) == 0
        return PatternRule(kept=int(kept), block=int(block)) if fits else None
    if layer.layer is None:
        return PatternRule(kept=int(inputs * (1 - sparsity) + _ROUNDING), block=inputs)
    return ShareRule(sparsity=sparsity) if sparsity else None


def drop_thin_layers(layers: Sequence[StoredLayer]) -> list[StoredLayer]:
    """Return the layers worth pruning: all, unless the thin ones are a tiny part of the weights."""
    wide = [layer for layer in layers if layer.matrix.shape[-1] >= _THIN]
    thin = sum(layer.weight.size for layer in layers) - sum(layer.weight.size for layer in wide)
    spared = thin <= _NEXT_TO_NOTHING * sum(layer.weight.size for layer in layers)
    return wide if spared else list(layers)


def rescale_sparsity(
    settings: PruneWeights, layers: Sequence[StoredLayer], rest: float
) -> PruneWeights:
    """Return the settings with the sparsity raised so that the average over all weights is reached.

    Args:
        settings: with the sparsity of all weights.
        layers: the layers to prune.
        rest: number of all weights.
    """
    part = sum(layer.weight.size for layer in layers) / rest
    return replace(settings, sparsity=min(settings.sparsity / part, _LEVELS[-1]))


def list_levels(settings: PruneWeights) -> tuple[float, ...]:
    """List the sparsities that a layer may have; dense is always one of them."""
    if settings.pattern != "none":
        kept, _, block = settings.pattern.partition(":")
        return (0.0, 1 - int(kept) / int(block))
    return tuple(sorted({*_LEVELS, settings.sparsity}))


def build_layer_sparsities(
    index: GraphIndex, layer: StoredLayer, settings: PruneWeights
) -> LayerSparsities:
    """Build the candidate sparsities of a layer, with the error of the zeros before any refit.

    The refit removes a share of the error that is about the same at all sparsities.
    """
    levels = tuple(s for s in list_levels(settings) if not s or choose_rule(layer, settings, s))
    choices = [
        Choice(cost=1 - s, damage=_measure_bare_error(index, layer, settings, s)) for s in levels
    ]
    options = Options(size=layer.weight.size, choices=choices)
    return LayerSparsities(layer=layer, levels=levels, options=options)


def _measure_bare_error(
    index: GraphIndex, layer: StoredLayer, settings: PruneWeights, sparsity: float
) -> float:
    rule = choose_rule(layer, settings, sparsity) if sparsity else None
    if rule is None:
        return 0.0
    if layer.moments is None:
        return float(np.square(layer.matrix - prune_by_magnitude(layer.matrix, rule)).sum())
    aim = _build_objective(index, layer, layer.moments.pair_with_itself())
    if settings.score == "magnitude":
        return aim.error(prune_by_magnitude(layer.matrix, rule))
    return aim.error(prune_by_power(aim, rule))


def _build_objective(index: GraphIndex, layer: StoredLayer, pairs: Moments) -> LayerObjective:
    return build_layer_objective(pairs, layer.matrix, centered=has_bias(index, layer))


def has_bias(index: GraphIndex, layer: StoredLayer) -> bool:
    """Return whether a bias can make up for the mean error of a layer."""
    if layer.weighted is None:
        return False
    takes_one = layer.weighted.node.op_type in BIASED_OPS
    return takes_one or find_bias(index, layer.weighted) is not None


def prune_layer(
    index: GraphIndex,
    layer: StoredLayer,
    settings: PruneWeights,
    sparsity: float,
    pairs: Moments | None,
) -> Doubles:
    """Return a layer's weight [G, O, I] at a sparsity, with the remaining weights refitted.

    Args:
        index: the graph.
        layer: the layer.
        settings: pattern and score.
        sparsity: share of the weights to set to zero.
        pairs: second moments of the layer's inputs; ``None`` for embeddings.
    """
    rule = choose_rule(layer, settings, sparsity) if sparsity else None
    if rule is None:
        return layer.matrix
    if pairs is None or settings.score == "magnitude":
        return prune_by_magnitude(layer.matrix, rule)
    return prune_matrix(_build_objective(index, layer, pairs), rule)


def measure_divergences(
    index: GraphIndex,
    rows: Sequence[LayerSparsities],
    settings: PruneWeights,
    reference: Reference,
    tick: Tick,
) -> list[LayerSparsities]:
    """Replace the errors of the layers by the output divergences that they cause.

    A layer that loses too much at the average sparsity is tried at half of it.

    Args:
        index: the graph; unchanged afterwards.
        rows: the layers, with errors.
        settings: pattern, score and average sparsity.
        reference: the outputs on held-out samples.
        tick: called with the number of layers done.
    """

    def measure(number: int, level: int) -> float:
        layer, sparsity = rows[number].layer, rows[number].levels[level]
        pairs = None if layer.moments is None else layer.moments.pair_with_itself()
        weight = prune_layer(index, layer, settings, sparsity, pairs)
        return measure_damage(index, layer, weight, reference)

    tried = (settings.sparsity, settings.sparsity / 2)
    probes = [
        [max(choose_nearest(row.options, 1 - sparsity), 1) for sparsity in tried]
        if len(row.levels) > 1
        else []
        for row in rows
    ]
    scaled = scale_to_probes([row.options for row in rows], probes, measure, tick)
    return [replace(row, options=each) for row, each in zip(rows, scaled, strict=True)]


def choose_sparsities(rows: Sequence[LayerSparsities], settings: PruneWeights) -> list[float]:
    """Choose the sparsity of each layer: allocated, or that of the pattern where it fits."""
    if settings.pattern != "none":
        return [row.levels[-1] for row in rows]
    if settings.allocation == "uniform":
        return [settings.sparsity] * len(rows)
    picked = allocate([row.options for row in rows], 1 - settings.sparsity)
    return [row.levels[i] for row, i in zip(rows, picked, strict=True)]
