"""Static cost of a TFLite graph: multiply-accumulates, weights and peak activation memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from edgekit.onnx_graph.cost import Cost
from edgekit.tflite.buffers import BITS, count_stored_bytes
from edgekit.tflite.ir import LiteGraph, Op, Shape, Tensor


def compute_lite_cost(graph: LiteGraph) -> Cost:
    """Compute the static cost of a graph; free sizes count as 1.

    ``macs`` counts convolutions, fully connected layers and batched products of the main graph;
    operators of subgraphs count in ``ops`` only.
    """
    macs = [(op, _MACS[op.op_type](op)) for op in graph.ops if op.op_type in _MACS]
    stored = list({id(t): t for g in (graph, *graph.inner) for t in _list_constants(g)}.values())
    return Cost(
        ops=dict(sorted(Counter(_list_operators(graph)).items())),
        opset=None,
        parameters=sum(math.prod(t.shape) for t in stored if _is_weight(t)),
        weight_bytes=sum(count_stored_bytes(t.dtype, t.shape) for t in stored),
        macs=sum(count or 0 for _, count in macs),
        unknown=tuple(op.outputs[0].name for op, count in macs if count is None),
        peak_activation_bytes=_compute_peak(graph),
    )


def _list_operators(graph: LiteGraph) -> list[str]:
    return [op.op_type.removeprefix("CUSTOM:") for g in (graph, *graph.inner) for op in g.ops]


def _list_constants(graph: LiteGraph) -> list[Tensor]:
    inputs = [t for op in graph.ops for t in op.inputs if t is not None]
    return [t for t in (*inputs, *graph.outputs.values()) if t.is_constant]


def _is_weight(tensor: Tensor) -> bool:
    plain = tensor.dtype.startswith("float") or tensor.dtype in ("int8", "uint8", *BITS)
    return plain or tensor.quantization is not None  # biases are int32 with a scale


def _fix_shape(tensor: Tensor | None) -> Shape:
    return () if tensor is None else tuple(max(1, d) if d < 0 else d for d in tensor.shape)


def _compute_peak(graph: LiteGraph) -> int | None:
    """Return the peak bytes of live activations in file order; ``None`` if a size is unknown."""
    last = {id(t): i for i, op in enumerate(graph.ops) for t in op.inputs if t is not None}
    last |= {id(t): len(graph.ops) for t in graph.outputs.values()}
    alive = {id(t): t for t in graph.inputs.values()}
    peak = 0
    for i, op in enumerate(graph.ops):
        alive |= {id(t): t for t in op.outputs}
        if any(t.dtype in ("string", "resource", "variant") for t in alive.values()):
            return None
        peak = max(peak, sum(count_stored_bytes(t.dtype, _fix_shape(t)) for t in alive.values()))
        alive = {key: t for key, t in alive.items() if last.get(key, i) > i}
    return peak


def _build_filter_counter(position: int, *axes: int) -> Callable[[Op], int | None]:
    """Return a counter of multiplications: output elements times weight sizes along the axes."""

    def count(op: Op) -> int | None:
        weights = _fix_shape(op.inputs[position])
        if len(weights) <= max(axes, default=0):
            return None
        return math.prod(_fix_shape(op.outputs[0])) * math.prod(weights[a] for a in axes)

    return count


def _count_transpose_conv(op: Op) -> int | None:
    """Count the multiplications of a TRANSPOSE_CONV; ``None`` if its filter is unknown."""
    weights, source = _fix_shape(op.inputs[1]), _fix_shape(op.inputs[2])
    return math.prod(source) * math.prod(weights[:3]) if len(weights) == 4 else None


def _count_batch_matmul(op: Op) -> int | None:
    left = _fix_shape(op.inputs[0])
    if len(left) < 2:
        return None
    return math.prod(_fix_shape(op.outputs[0])) * left[-2 if op.options.get("adj_x") else -1]


_MACS: dict[str, Callable[[Op], int | None]] = {
    "CONV_2D": _build_filter_counter(1, 1, 2, 3),
    "DEPTHWISE_CONV_2D": _build_filter_counter(1, 1, 2),
    "CONV_3D": _build_filter_counter(1, 0, 1, 2, 3),
    "FULLY_CONNECTED": _build_filter_counter(1, 1),
    "TRANSPOSE_CONV": _count_transpose_conv,
    "BATCH_MATMUL": _count_batch_matmul,
}
