"""Stages of the conversion from an ONNX model to the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from edgekit.conversion.onnx_to_tflite.convert_graph import convert_nodes
from edgekit.conversion.onnx_to_tflite.gelu_fusion import fuse_gelu
from edgekit.conversion.onnx_to_tflite.static_shapes import fix_shapes
from edgekit.errors import PassRefused
from edgekit.pass_settings import Precision, Target
from edgekit.tflite.flatbuffer import write_lite
from edgekit.tflite.ir import LiteGraph, count_op_types
from edgekit.tflite.legacy_rewrites import avoid_newer_kernels
from edgekit.tflite.rewrites.constant_broadcasts import shrink_constants
from edgekit.tflite.rewrites.constant_folding import fold
from edgekit.tflite.rewrites.fusion import fuse
from edgekit.tflite.rewrites.long_signals import speed_up_signals
from edgekit.tflite.rewrites.quantize import quantize_constants, quantize_graph
from edgekit.tflite.rewrites.weight_precision import (
    store_float16,
    store_int8,
    use_dynamic_kernels,
    use_dynamic_products,
)
from edgekit.tflite.runtime_support import list_version_conflicts


def convert_to_tflite(
    proto: ModelProto,
    dims: Mapping[str, int],
    *,
    precision: Precision = "same",
    target: Target = "litert",
) -> bytes:
    """Convert an ONNX model to a .tflite file; a free batch axis gets size 1.

    Args:
        proto: Float model, or int8 model as QDQ, with external data loaded.
        dims: Sizes of free dimensions by name; a dimension that is not named gets size 1.
        precision: ``same`` keeps floats and turns QDQ into integers with the same scales;
            ``float16`` stores weights in 16 bits; ``dynamic`` stores weights in 8 bits and
            quantizes activations at run time; ``int16x8`` turns QDQ into 16-bit activations and
            8-bit weights.
        target: ``tflite-runtime`` uses only operators and op versions that release 2.14 supports.

    Returns:
        The bytes of the file.

    Raises:
        PassRefused: An operator has no TFLite counterpart; the message names the node and a remedy.
    """
    return write_lite(convert_to_lite_graph(proto, dims, precision=precision, target=target))


def convert_to_lite_graph(
    proto: ModelProto,
    dims: Mapping[str, int],
    *,
    precision: Precision = "same",
    target: Target = "litert",
) -> LiteGraph:
    """Convert an ONNX model to a TFLite graph.

    Arguments and errors are those of ``convert_to_tflite``.
    """
    fixed = fix_shapes(proto, dims)
    fuse_gelu(fixed)
    graph = convert_nodes(fixed)
    optimize_lite_graph(graph, precision=precision, target=target)
    return graph


def optimize_lite_graph(
    graph: LiteGraph, *, precision: Precision = "same", target: Target = "litert"
) -> None:
    """Fold, fuse and quantize a converted graph in place.

    Args:
        graph: Result of ``convert_nodes``.
        precision: As for ``convert_to_tflite``.
        target: As for ``convert_to_tflite``.

    Raises:
        PassRefused: ``int16x8`` is asked of a graph without activation ranges, or the target lacks
            operators of the graph.
    """
    if precision == "int16x8" and "QUANTIZE" not in count_op_types(graph.ops):
        raise PassRefused(
            "int16x8: the model has no activation ranges",
            hint="quantize it first: edgekit apply quantize-static",
        )
    quantize_constants(graph)
    fold(graph)
    shrink_constants(graph)
    fuse(graph)
    fold(graph)
    quantize_graph(graph, activations="int16" if precision == "int16x8" else "int8")
    fold(graph)
    use_dynamic_products(graph, target=target)
    speed_up_signals(graph)
    if precision == "float16":
        store_float16(graph)
    if precision == "dynamic":
        store_int8(graph, per_channel=target == "litert")
        fold(graph)
        use_dynamic_kernels(graph, target=target)
    if target == "tflite-runtime":
        avoid_newer_kernels(graph)
    shrink_constants(graph)
    fold(graph)
    if target == "tflite-runtime" and (lines := list_version_conflicts(graph)):
        raise PassRefused("; ".join(lines), hint="use ai-edge-litert, or onnxruntime")
