"""Static int8 as QDQ: ranges from calibration samples, per-channel weights, int32 biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from onnx import ModelProto, NodeProto

from edgekit.data import spread
from edgekit.errors import PassRefused
from edgekit.graphs.compact import share_transposed
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import Values, observe
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import Placement, as_weighted, place
from edgekit.graphs.rewrite import prepare
from edgekit.graphs.subpixel import convolve_transposed
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.affine import LARGEST, Affine, unsigned_affine
from edgekit.passes.embeddings import quantize_embeddings
from edgekit.passes.qdq import Writer
from edgekit.passes.ranges import find_ranges
from edgekit.passes.recurrent import quantize_recurrent
from edgekit.passes.storage import store_in_8_bits
from edgekit.recipe import QuantizeStatic

# QuantizeLinear has an axis, so per-channel parameters, since opset 13.
_OPSET = 13


def quantize_static(model: Model, settings: QuantizeStatic, work: Work) -> Path:
    """Quantise Conv, Gemm, MatMul and what lies between them to 8 bits.

    Weights are signed, symmetric, per output channel; activations unsigned and per tensor, with
    ranges taken from the calibration samples; biases int32 with the scale input times weight.
    LSTM as in the dynamic pass; weights that no integer kernel reads are stored as int8.

    Source: Jacob et al. 2018; Krishnamoorthi 2018 (per-channel weights).

    Raises:
        PassRefused: nothing to quantise, quantised already, or values that are not finite.
    """
    proto = prepare(load(model.path), _OPSET)
    convolve_transposed(proto)
    largest = LARGEST[settings.weight_bits]
    found = quantize_embeddings(GraphIndex(proto)) + quantize_recurrent(proto, largest)
    found += store_in_8_bits(proto, _is_weighted)
    index = GraphIndex(proto)
    placement = place(index)
    if not placement.weighted and not found:
        raise PassRefused("no Conv, Gemm, MatMul or LSTM with stored float weights to quantise")
    parameters = _parameters(proto, placement, settings, work) if placement.weighted else {}
    target = work.scratch / "static.onnx"
    writer = Writer(index, placement, parameters, largest=largest)
    made = writer.write()
    share_transposed(made)
    save(made, target)
    return target


def _is_weighted(index: GraphIndex, node: NodeProto) -> bool:
    """Whether the node gets an integer kernel; only those of the main graph do."""
    return index.main is index and as_weighted(index, node) is not None


def _parameters(
    proto: ModelProto, placement: Placement, settings: QuantizeStatic, work: Work
) -> dict[str, Affine]:
    """uint8 parameters of every value, those of moved values being their source's."""
    if work.calibration is None:
        raise PassRefused("static quantisation needs calibration data")
    parts = spread(work.calibration, settings.max_samples)
    roots = list(dict.fromkeys(placement.root(name) for name in placement.values))

    def passes() -> Iterator[Iterable[Values]]:
        for what in ("ranges", "histograms"):
            yield observe(proto, roots, parts, tick=partial(work.progress, what))

    try:
        ranges = find_ranges(passes(), settings)
    except FloatingPointError as error:
        raise PassRefused(f"value {error} is not finite on the calibration samples") from error
    # A value that never has an entry has no range; any parameters will do.
    affine = {name: unsigned_affine(*ranges.get(name, (0.0, 0.0))) for name in roots}
    return {name: affine[placement.root(name)] for name in placement.values}
