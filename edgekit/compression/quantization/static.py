"""Static int8 quantization as QDQ: per-channel weights, calibrated activations, int32 biases."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto

from edgekit.compression.checks.sample_folds import fold_samples
from edgekit.compression.layers.skip_reasons import (
    WEIGHT_OPS,
    explain_no_weights,
    find_large_float_weights,
    find_remaining_floats,
    join_reasons,
)
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.affine import LARGEST
from edgekit.compression.quantization.calibration.trial_models import Version
from edgekit.compression.quantization.conv_transpose import replace_conv_transposes
from edgekit.compression.quantization.dynamic_products import make_products_dynamic
from edgekit.compression.quantization.embeddings import quantize_embeddings
from edgekit.compression.quantization.integer_kernels import widen_and_note_float_layers
from edgekit.compression.quantization.lstm_trials import quantize_layers
from edgekit.compression.quantization.product_trials import ProductTrials
from edgekit.compression.quantization.refinements import Refiner
from edgekit.compression.quantization.weight_bits import choose_and_note_bits
from edgekit.compression.quantization.weight_storage import LEAST_STORED, store_in_8_bits
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.operators import MATRIX_OPS, RECURRENT_OPS
from edgekit.onnx_graph.qdq_placement import match_weighted_node, plan_placement
from edgekit.onnx_graph.rewrites.bias_scales import compute_bias_scales
from edgekit.onnx_graph.rewrites.half_precision import narrow_matrices
from edgekit.onnx_graph.rewrites.minify import compact, share_transposed, sort_constants
from edgekit.onnx_graph.runs.weight_offload import (
    copy_without_weights,
    offload,
    restore_weights,
)
from edgekit.pass_settings import QuantizeStatic


def quantize_static(model: Model, settings: QuantizeStatic, work: Work) -> Path:
    """Quantize Conv, Gemm, MatMul and the activations between them to 8 bits.

    Weights are signed, symmetric and per output channel; activations are unsigned and per tensor,
    with ranges from the calibration samples; biases are int32 with the scale of the input times
    that of the weight. LSTM is quantized as in the dynamic pass. Weights that no integer kernel
    reads are stored as int8.

    Source: Jacob et al. 2018; Krishnamoorthi 2018 (per-channel weights).

    Raises:
        PassRefused: nothing to quantize, quantized already, or values that are not finite.
    """
    if work.calibration is None:
        raise PassRefused("quantize-static needs calibration data")
    largest = LARGEST[choose_and_note_bits(settings, work)]
    proto, found, half = _prepare_graph(model, work, largest)
    floats = find_large_float_weights(proto)
    index = GraphIndex(proto, work.scratch)
    placement = plan_placement(index)
    if not placement.weighted and not found:
        prepared = open_source(model, work).proto
        reason = explain_no_weights(prepared, ops=WEIGHT_OPS, least=LEAST_STORED, anywhere=True)
        raise PassRefused(f"nothing to quantize: {reason}")
    made, in_float = proto, frozenset[str]()
    if placement.weighted:
        folds = fold_samples(work.fitting, settings.max_samples)
        index, version = Refiner(index, settings, work, folds, largest).refine()
        made = _write_fastest(index, version, largest, model, work)
        in_float = version.in_float
    restore_weights(made, work.scratch)
    noted = widen_and_note_float_layers(made, work, noted=in_float)
    if left := find_remaining_floats(made, floats, noted):
        work.note(f"weights stay float: {join_reasons(left)}")
    share_transposed(made)
    if half:
        narrow_matrices(made)
    compute_bias_scales(made)
    sort_constants(made)
    compact(made)
    target = work.scratch / "static.onnx"
    save(made, target)
    return target


def _write_fastest(
    index: GraphIndex, version: Version, largest: int, model: Model, work: Work
) -> ModelProto:
    """Write the 8-bit model; beside recurrent layers, products are dynamic where that is faster."""
    kinds = {node.op_type.removeprefix("DynamicQuantize") for node in index.graph.node}
    trials = ProductTrials(index, version, largest)
    return trials.find_fastest(model, work) if kinds & RECURRENT_OPS else trials.write(frozenset())


def _find_integer_products(proto: ModelProto) -> set[str]:
    """Find the products of inner graphs whose weights are stored as integers already.

    Static int8 has no activation ranges of inner graphs, so these weights would be dequantized at
    each inference.

    Returns:
        The first output of each product.
    """
    return {
        node.output[0]
        for index in GraphIndex(proto).inner()
        for node in index.graph.node
        if node.op_type in MATRIX_OPS
        and (found := match_weighted_node(index, node))
        and found.qdq_weight
    }


def _is_weighted(index: GraphIndex, node: NodeProto) -> bool:
    """Return whether an integer kernel computes the node; only nodes of the main graph have one."""
    return index.main is index and match_weighted_node(index, node) is not None


def _prepare_graph(model: Model, work: Work, largest: int) -> tuple[ModelProto, int, bool]:
    """Load the graph and quantize all weights that need no activation ranges.

    These are embeddings, recurrent layers, and weights without an integer kernel.

    Returns:
        The graph with its weights offloaded, the number of weights in 8 bits, and whether the
        model stores weights as float16.
    """
    source = open_source(model, work, folded=True)
    proto = source.proto
    replace_conv_transposes(proto)
    found = quantize_embeddings(proto, largest)
    found += quantize_layers(proto, largest, model, work)
    if kept := _find_integer_products(proto):
        found += make_products_dynamic(proto, largest, only=kept)
    found += store_in_8_bits(proto, _is_weighted)
    lean = copy_without_weights(proto)
    offload(proto, lean, work.scratch)
    return lean, found, source.half
