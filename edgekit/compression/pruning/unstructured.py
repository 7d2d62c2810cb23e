"""Unstructured pruning without retraining: sparsity allocated by layer, zeros by second order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgekit.bundle.layer_report import LayerCost, write_layers
from edgekit.compression.layers.skip_reasons import WEIGHT_OPS, explain_no_weights
from edgekit.compression.layers.stored_layers import (
    StoredLayer,
    collect_stored_layers,
    replace_constant,
    shift_bias,
)
from edgekit.compression.numerics import Doubles
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.pruning.layer_objective import compute_mean_loss
from edgekit.compression.pruning.sparsity_options import (
    LayerSparsities,
    build_layer_sparsities,
    choose_sparsities,
    drop_thin_layers,
    list_levels,
    measure_divergences,
    prune_layer,
    rescale_sparsity,
)
from edgekit.compression.reconstruction.moments import Moments
from edgekit.compression.reconstruction.observed_moments import (
    build_not_finite_error,
    gather_paired_moments,
)
from edgekit.compression.sensitivity import MOST_HELD_OUT
from edgekit.data.subsets import split_held_out
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.runs.activations import get_batch_size
from edgekit.pass_settings import PruneWeights
from edgekit_agent.samples import Samples

# Layers are pruned in graph order; those of a stage see the outputs of the stages before.
_STAGES = 6
_FLOAT_BITS = 32


def prune_weights(model: Model, settings: PruneWeights, work: Work) -> Path:
    """Set weights of layers and embeddings to zero, and fit the remaining weights.

    Zeros and remaining weights of a layer are found together (``mask_solver.prune_matrix``): they
    reproduce the layer's original outputs from the inputs that the pruned layers before it give.
    The bias takes the mean error. The sparsity of each layer follows from the damage to the outputs
    (``budget_allocation``). Embeddings lose their smallest entries.

    Raises:
        PassRefused: nothing to prune, as sparse already, quantized already, N:M fits no layer, or
            values that are not finite.
    """
    if work.calibration is None:
        raise PassRefused("prune-weights needs calibration data")
    source = open_source(model, work, keep_ties=True)
    proto = source.proto
    index = GraphIndex(proto)
    batch = get_batch_size(work.calibration, model.signature)
    seen, unseen = split_held_out(
        work.fitting, settings.max_samples, most=MOST_HELD_OUT, batch=batch
    )
    try:
        layers = collect_stored_layers(index, seen, work.progress, every=True)
        _check(proto, layers, settings)
        if settings.pattern == "none":
            everything = sum(layer.weight.size for layer in layers)
            layers = drop_thin_layers(layers)
            settings = rescale_sparsity(settings, layers, everything)
        rows = [build_layer_sparsities(index, layer, settings) for layer in layers]
        _check_pattern(rows, settings)
        reference = Reference(proto, unseen)
        if reference.has_outputs:
            rows = measure_divergences(index, rows, settings, reference, work.progress)
        shares = choose_sparsities(rows, settings)
        _prune(index, rows, shares, seen, settings, reference, work)
    except FloatingPointError as error:
        raise build_not_finite_error(error) from error
    index.drop_unread_constants()
    costs = [_build_cost(index, *each) for each in zip(rows, shares, strict=True)]
    source.restore(proto)
    target = work.scratch / "pruned.onnx"
    save(proto, target)
    if reference.has_outputs:
        write_layers(work.scratch, costs)
    return target


def _check(proto: ModelProto, layers: Sequence[StoredLayer], settings: PruneWeights) -> None:
    """Check that there is something to prune.

    Raises:
        PassRefused: there is nothing.
    """
    if not layers:
        reason = explain_no_weights(proto, ops=WEIGHT_OPS)
        raise PassRefused(f"nothing to prune: {reason}")
    if settings.pattern != "none":
        _check_both(settings)
        return
    weights = sum(layer.weight.size for layer in layers)
    zeros = sum(int(np.count_nonzero(layer.weight == 0)) for layer in layers)
    if zeros >= settings.sparsity * weights:
        raise PassRefused(
            f"{100 * zeros / weights:.0f} % of the weights are already zero; the setting "
            f"sparsity asks for {100 * settings.sparsity:.0f} %"
        )


def _check_both(settings: PruneWeights) -> None:
    """Check that pattern and sparsity agree, unless the sparsity is the default.

    Raises:
        PassRefused: they do not agree.
    """
    makes = list_levels(settings)[-1]
    if settings.sparsity not in (PruneWeights.sparsity, makes):
        raise PassRefused(
            f"pattern {settings.pattern} sets {100 * makes:g} % of a layer to zero, which "
            f"contradicts sparsity={settings.sparsity:g}",
            hint="set pattern or sparsity, not both",
        )


def _check_pattern(rows: Sequence[LayerSparsities], settings: PruneWeights) -> None:
    """Check that the pattern fits a layer.

    Raises:
        PassRefused: it fits none; the text gives the reason for the first layer.
    """
    if all(len(row.levels) == 1 for row in rows):
        first = next((row.layer for row in rows if row.layer.layer), None)
        inputs = f", but {first.name} has {first.matrix.shape[-1]} inputs" if first else ""
        raise PassRefused(
            f"pattern {settings.pattern} fits no layer: the number of inputs must be a multiple "
            f"of {settings.pattern.partition(':')[2]}{inputs}"
        )


def _prune(
    index: GraphIndex,
    rows: Sequence[LayerSparsities],
    shares: Sequence[float],
    seen: Sequence[Samples],
    settings: PruneWeights,
    reference: Reference,
    work: Work,
) -> None:
    """Prune the weights stage by stage, in place."""
    sparser = [(r.layer, share) for r, share in zip(rows, shares, strict=True) if share]
    original = ModelProto()
    original.CopyFrom(index.proto)
    tables = [each for each in sparser if each[0].layer is None]
    for layer, share in tables:
        weight = prune_layer(index, layer, settings, share, None)
        replace_constant(index, layer.name, layer.tensor(weight))
    others = [each for each in sparser if each[0].layer is not None]
    size = max(1, math.ceil(len(others) / _STAGES))
    for start in range(0, len(others), size):
        work.progress("pruning", start, len(others))
        _prune_stage(index, original, others[start : start + size], seen, settings, reference)


def _prune_stage(
    index: GraphIndex,
    original: ModelProto,
    stage: Sequence[tuple[StoredLayer, float]],
    seen: Sequence[Samples],
    settings: PruneWeights,
    reference: Reference,
) -> None:
    """Prune the weights of a stage, in place.

    Two fits are tried: to the inputs that the pruned layers before give, and to the original
    inputs. The first repairs more; with few samples the second is more reliable. The outputs on
    held-out samples decide.
    """
    views = {layer.name: layer.layer for layer, _ in stage if layer.layer is not None}
    pairs = gather_paired_moments(original, index.proto, views, seen)
    same = {n.name: n.moments.pair_with_itself() for n, _ in stage if n.moments is not None}
    ways = [pairs, same] if settings.score == "second-order" and reference.has_outputs else [pairs]
    tried = []
    for way in ways:
        weights = [
            prune_layer(index, layer, settings, share, way[layer.name]) for layer, share in stage
        ]
        for (layer, _), weight in zip(stage, weights, strict=True):
            replace_constant(index, layer.name, layer.tensor(weight))
        undone = (
            _shift_biases(index, stage, weights, pairs) if settings.score != "magnitude" else []
        )
        tried.append((reference.divergence(index.proto) if len(ways) > 1 else 0.0, weights))
        for undo in reversed(undone):
            undo()
    _, best = min(tried, key=lambda each: each[0])
    for (layer, _), weight in zip(stage, best, strict=True):
        replace_constant(index, layer.name, layer.tensor(weight))
    if settings.score != "magnitude":
        _shift_biases(index, stage, best, pairs)


def _shift_biases(
    index: GraphIndex,
    stage: Sequence[tuple[StoredLayer, float]],
    weights: Sequence[Doubles],
    pairs: Mapping[str, Moments],
) -> list[Callable[[], None]]:
    """Add the mean errors of a stage's weights to the biases; return the functions that undo it."""
    return [
        shift_bias(index, layer, compute_mean_loss(pairs[layer.name], layer.matrix, weight))
        for (layer, _), weight in zip(stage, weights, strict=True)
    ]


def _build_cost(index: GraphIndex, row: LayerSparsities, share: float) -> LayerCost:
    """Build the table entry of a layer: bits, zeros, and damage to the outputs."""
    weight = index.float_constant(row.layer.name)
    zeros = 1 - np.count_nonzero(weight) / weight.size
    bits = _FLOAT_BITS * (1 - zeros) + _compute_entropy(zeros)
    return LayerCost(
        layer=row.layer.name,
        op=row.layer.op,
        parameters=weight.size,
        bits=bits,
        width=_FLOAT_BITS,
        kl=row.options.choices[row.levels.index(share)].damage,
        bytes=math.ceil(bits * weight.size / 8),
        zeros=zeros,
    )


def _compute_entropy(share: float) -> float:
    """Compute the bits that tell whether a weight belongs to a share of the weights."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)
