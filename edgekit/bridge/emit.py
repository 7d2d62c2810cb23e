"""From an ONNX graph to the bytes of a .tflite file, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from edgekit.bridge.flatbuffer import write_lite
from edgekit.bridge.folding import fold
from edgekit.bridge.fusing import fuse
from edgekit.bridge.graph import LiteGraph, kinds
from edgekit.bridge.lowering import lower
from edgekit.bridge.naming import name_compositions
from edgekit.bridge.older import avoid_newer
from edgekit.bridge.precision import (
    store_float16,
    store_int8,
    use_dynamic_kernels,
    use_dynamic_products,
)
from edgekit.bridge.quantising import quantise, store_quantised
from edgekit.bridge.settling import settled
from edgekit.bridge.shrinking import shrink_constants
from edgekit.bridge.signals import fasten_signals
from edgekit.bridge.versions import too_new
from edgekit.errors import PassRefused
from edgekit.recipe import Precision, Target


def emitted(
    proto: ModelProto,
    dims: Mapping[str, int],
    *,
    precision: Precision = "same",
    target: Target = "litert",
) -> bytes:
    """The .tflite file of an ONNX model; a free batch becomes 1.

    Args:
        proto: float, or int8 as QDQ; external data loaded.
        dims: sizes of free dimensions by name, the batch apart.
        precision: ``same`` keeps floats and makes of QDQ integers with the same scales;
            ``float16`` stores weights in 16 bits; ``dynamic`` stores them in 8 bits and quantises
            activations at run time; ``int16x8`` makes of QDQ 16-bit activations and 8-bit weights.
        target: ``tflite-runtime`` keeps to the operators and versions that 2.14 knows.

    Raises:
        PassRefused: an operator has no counterpart; names the node and says what to do.
    """
    return write_lite(lite_graph(proto, dims, precision=precision, target=target))


def lite_graph(
    proto: ModelProto,
    dims: Mapping[str, int],
    *,
    precision: Precision = "same",
    target: Target = "litert",
) -> LiteGraph:
    """What ``emitted`` writes, as plain data; arguments and errors are its own."""
    fixed = settled(proto, dims)
    name_compositions(fixed)
    graph = lower(fixed)
    finish(graph, precision=precision, target=target)
    return graph


def finish(graph: LiteGraph, *, precision: Precision = "same", target: Target = "litert") -> None:
    """Fold, fuse and quantise a lowered graph, in place.

    Args:
        graph: as ``lower`` makes it.
        precision: as ``emitted`` has it.
        target: as ``emitted`` has it.

    Raises:
        PassRefused: ``int16x8`` of a graph that says no ranges of its activations; operators that
            the target does not have.
    """
    if precision == "int16x8" and "QUANTIZE" not in kinds(graph.ops):
        raise PassRefused(
            "int16x8: the model says no ranges of its activations",
            hint="quantize it first: edgekit apply quantize",
        )
    store_quantised(graph)
    fold(graph)
    shrink_constants(graph)
    fuse(graph)
    fold(graph)
    quantise(graph, activations="int16" if precision == "int16x8" else "int8")
    fold(graph)
    use_dynamic_products(graph, target=target)
    fasten_signals(graph)
    if precision == "float16":
        store_float16(graph)
    if precision == "dynamic":
        store_int8(graph, per_channel=target == "litert")
        fold(graph)
        use_dynamic_kernels(graph, target=target)
    if target == "tflite-runtime":
        avoid_newer(graph)
    shrink_constants(graph)
    fold(graph)
    if target == "tflite-runtime" and (lines := too_new(graph)):
        raise PassRefused("; ".join(lines), hint="use ai-edge-litert, or onnxruntime")
