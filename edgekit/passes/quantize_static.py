"""Static int8 as QDQ: ranges from calibration samples, per-channel weights, int32 biases."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from edgekit.errors import PassRefused
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.offload import bring_back, offload, without_weights
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import Placement, place
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.activations import Split, find_parameters, first_of_each, split_samples
from edgekit.passes.affine import LARGEST, Affine
from edgekit.passes.bias_correction import Shifts, find_shifts
from edgekit.passes.embeddings import quantize_embeddings
from edgekit.passes.equalise import equalise
from edgekit.passes.trials import Trials, written
from edgekit.recipe import QuantizeStatic

# QuantizeLinear has an axis, so per-channel parameters, since opset 13.
_OPSET = 13
# Means need fewer samples than extremes.
_SHIFT_SAMPLES = 32
_CHANNEL_SAMPLES = 64


def quantize_static(model: Model, settings: QuantizeStatic, work: Work) -> Path:
    """Quantise Conv, Gemm, MatMul and what lies between them to 8 bits.

    Weights are signed, symmetric, per output channel; activations unsigned and per tensor, with
    ranges taken from the calibration samples; biases int32 with the scale input times weight.

    Source: Jacob et al. 2018; Krishnamoorthi 2018 (per-channel weights).

    Raises:
        PassRefused: nothing to quantise, quantised already, or values that are not finite.
    """
    if work.calibration is None:
        raise PassRefused("static quantisation needs calibration data")
    index = GraphIndex(_prepared(model, work.scratch), work.scratch)
    placement = place(index)
    if not placement.weighted:
        raise PassRefused("no Conv, Gemm or MatMul with stored float32 weights to quantise")
    split = split_samples(work.calibration, settings.max_samples)
    largest = LARGEST[settings.weight_bits]
    if settings.equalise:
        index, placement = _equalised(index, placement, split, largest)
    choices = find_parameters(index, placement, settings, work, split)
    trials = Trials(index, largest, split.judging)
    parameters = trials.best(choices)
    shifts: Shifts = {}
    if settings.bias_correction:
        work.progress("bias correction", 0, 1)
        shifts = _shifts(index, placement, parameters, trials, split)
    made = written(index, parameters, shifts, largest)
    bring_back(made, work.scratch)
    target = work.scratch / "static.onnx"
    save(made, target)
    return target


def _equalised(
    index: GraphIndex, placement: Placement, split: Split, largest: int
) -> tuple[GraphIndex, Placement]:
    changed = equalise(
        index,
        placement,
        largest=largest,
        estimating=first_of_each(split.estimating, _CHANNEL_SAMPLES),
        judging=split.judging,
    )
    if not changed:
        return index, placement
    index = GraphIndex(index.proto, index.folder)
    return index, place(index)


def _shifts(
    index: GraphIndex,
    placement: Placement,
    parameters: dict[str, Affine],
    trials: Trials,
    split: Split,
) -> Shifts:
    """Bias corrections, or none if the outputs are no better for them."""
    shifts = find_shifts(
        index,
        placement,
        parameters,
        largest=trials.largest,
        estimating=first_of_each(split.estimating, _SHIFT_SAMPLES),
        judging=split.judging,
    )
    if not shifts or trials.error(parameters, shifts) > trials.error(parameters, {}):
        return {}
    return shifts


def _prepared(model: Model, folder: Path) -> ModelProto:
    """The graph with 8-bit embeddings, its weights offloaded to ``folder``."""
    proto = prepare(load(model.path), _OPSET)
    quantize_embeddings(GraphIndex(proto))
    lean = without_weights(proto)
    offload(proto, lean, folder)
    return lean
