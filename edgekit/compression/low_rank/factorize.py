"""Low-rank factorization of products and convolutions, with ranks by damage to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto

from edgekit.bundle.layer_report import LayerCost, make_float_layer_cost, write_layers
from edgekit.compression.layers.skip_reasons import (
    find_large_float_weights,
    find_unchanged_weights,
    join_reasons,
)
from edgekit.compression.low_rank.decompose import Split, split_layers
from edgekit.compression.low_rank.factors import SpatialFactors
from edgekit.compression.low_rank.layers import (
    SPLIT_OPS,
    SplittableLayer,
    choose_layers,
    find_layers,
)
from edgekit.compression.low_rank.rank_options import (
    LayerRanks,
    build_layer_ranks,
    choose_ranks,
    measure_divergences,
)
from edgekit.compression.low_rank.rewrite import write_splits
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.reconstruction.observed_moments import build_not_finite_error
from edgekit.compression.reconstruction.reconstruct import RefitLayer, refit
from edgekit.compression.sensitivity import MOST_HELD_OUT
from edgekit.data.subsets import split_held_out
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.runs.activations import get_batch_size
from edgekit.pass_settings import LowRank
from edgekit_agent.samples import Samples


def factorize_layers(model: Model, settings: LowRank, work: Work) -> Path:
    """Factorize Conv, Gemm and MatMul layers into two layers of a small rank.

    The rank of a layer follows from its damage to the outputs (``allocation.allocate``), and its
    bias takes the mean error. A convolution becomes one with fewer channels and a 1 x 1
    convolution, or one along the height and one along the width, whichever has the smaller error
    for the same multiply-accumulates.

    Source: Chen et al. 2021 (DRONE), Wang et al. 2024 (SVD-LLM), Jaderberg et al. 2014.

    Raises:
        PassRefused: no layer gains by it, a pattern of ``layers`` matches none, ``keep`` is less
            than can be reached, quantized already, or values that are not finite.
    """
    if work.calibration is None:
        raise PassRefused("low-rank needs calibration data")
    source = open_source(model, work, keep_ties=True)
    proto = source.proto
    batch = get_batch_size(work.calibration, model.signature)
    seen, unseen = split_held_out(
        work.fitting, settings.max_samples, most=MOST_HELD_OUT, batch=batch
    )
    index = GraphIndex(proto)
    found = find_layers(index)
    layers, left = choose_layers(found, settings.layers)
    _note_unsplit(proto, [whole.stored.name for whole in found], work)
    try:
        splits = list(
            split_layers(
                index,
                layers,
                seen if settings.score == "activations" else (),
                settings.keep,
                work.progress,
            )
        )
        made, rows, picked = _factorize(proto, splits, settings, (seen, unseen), work)
    except FloatingPointError as error:
        raise build_not_finite_error(error) from error
    source.restore(made)
    target = work.scratch / "low-rank.onnx"
    save(made, target)
    costs = [_build_cost(row, i) for row, i in zip(rows, picked, strict=True)]
    write_layers(work.scratch, costs + [_build_unsplit_cost(whole) for whole in left])
    return target


def _note_unsplit(proto: ModelProto, found: Sequence[str], work: Work) -> None:
    """Note the large weights of products and convolutions that cannot be factorized, and why."""
    large = find_large_float_weights(proto)
    unchanged = find_unchanged_weights(proto, ops=SPLIT_OPS, taken=found)
    if left := [x for x in unchanged if not set(SPLIT_OPS).isdisjoint(large.get(x.name, ()))]:
        work.note(f"weights not factorized: {join_reasons(left)}")


def _factorize(
    proto: ModelProto,
    splits: Sequence[Split],
    settings: LowRank,
    samples: tuple[Sequence[Samples], Sequence[Samples]],
    work: Work,
) -> tuple[ModelProto, list[LayerRanks], list[int]]:
    seen, unseen = samples
    reference = Reference(proto, unseen)
    rows = [build_layer_ranks(split, settings) for split in splits]
    index = GraphIndex(proto)
    if settings.allocation == "measured" and reference.has_outputs:
        rows = measure_divergences(index, rows, reference, settings.keep, work.progress)
    picked = choose_ranks(rows, settings)
    original = ModelProto()
    original.CopyFrom(proto)
    split = [(r.split, r.ranks[i]) for r, i in zip(rows, picked, strict=True) if i < r.whole]
    layers = [RefitLayer(output=each.whole.layer.node.output[0]) for each, _ in split]
    write_splits(index, split)
    if settings.repair:
        proto = refit(original, proto, layers, seen, held_out=unseen, tick=work.progress)
    return proto, rows, picked


def _build_cost(row: LayerRanks, picked: int) -> LayerCost:
    """Build the table entry of a layer: rank, parameters, and damage to the outputs."""
    split = row.split
    if picked == row.whole:
        note = f"not factorized, rank {split.full}"
        return _build_record(split.whole, split.whole.stored.weight.size, 0.0, note)
    rank = row.ranks[picked]
    note = f"rank {rank} of {split.full}"
    if isinstance(split.way, SpatialFactors):
        height, width = split.whole.layer.shape[2:]
        note += f", {height} x 1 and 1 x {width}"
    parameters = rank * split.price.parameters
    return _build_record(split.whole, parameters, row.options.choices[picked].damage, note)


def _build_unsplit_cost(whole: SplittableLayer) -> LayerCost:
    """Build the table entry of a selected layer that no rank makes smaller."""
    note = f"not factorized; only ranks below {whole.highest:.2f} save space"
    return _build_record(whole, whole.stored.weight.size, 0.0, note)


def _build_record(whole: SplittableLayer, parameters: int, lost: float, note: str) -> LayerCost:
    name, op = whole.stored.name, whole.stored.op
    return make_float_layer_cost(layer=name, op=op, parameters=parameters, kl=lost, note=note)
