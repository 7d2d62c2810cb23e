"""Conversion rules of Where, TopK, ArgMax, Compress and other selections of entries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, plain_order, to_storage_shape
from edgekit.conversion.onnx_to_tflite.ops.elementwise import align_value, align_values
from edgekit.conversion.onnx_to_tflite.ops.indexing import gather_constant
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

_SORTED_TYPES = ("float32", "int32", "int64")


def move_last(order: Order, axis: int) -> Order:
    """Move an ONNX axis to the end of a storage order."""
    return (*(each for each in order if each != axis), axis)


def _where(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    values = [builder.value(node, position) for position in range(3)]
    parts, order = align_values(builder, values)
    shape = to_storage_shape(builder.shape_of(node.output[0]), order)
    builder.bind(node, emit_move(builder, "SELECT_V2", parts, shape, data=(1, 2)), order)


def _top_k(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis", -1) % len(value.order)
    count = builder.integers(node, 1)[0] if builder.has(node, 1) else int(get_attribute(node, "k"))
    order = move_last(value.order, axis)
    tensor = builder.to_order(value, order)
    best, indices = emit_top_k(
        builder, tensor, count, largest=bool(get_attribute(node, "largest", 1))
    )
    if node.output[0]:
        builder.bind(node, best, order)
    if len(node.output) > 1 and node.output[1]:
        builder.bind(node, builder.cast(indices, "int64"), order, output=1)


def emit_top_k(
    builder: TfliteGraphBuilder, tensor: Tensor, count: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """Return the first entries along the last axis by size, and their indices (int32).

    Equal entries keep their order.

    Args:
        builder: receives the operators.
        tensor: in a storage order with the sorted axis last.
        count: number of entries.
        largest: start with the largest rather than the smallest.
    """
    operand = builder.cast(tensor, tensor.dtype if tensor.dtype in _SORTED_TYPES else "int32")
    dtype = operand.dtype
    if not largest:
        operand = builder.emit("NEG", [operand], operand.shape, dtype=dtype)
    shape = (*operand.shape[:-1], count)
    best = Tensor(name=f"{tensor.name}/top", dtype=dtype, shape=shape)
    indices = Tensor(name=f"{tensor.name}/places", dtype="int32", shape=shape)
    builder.emit_many("TOPK_V2", [operand, builder.int32(count)], [best, indices])
    if not largest:
        best = builder.emit("NEG", [best], shape, dtype=dtype)
    return builder.cast(best, tensor.dtype), indices


def _arg_extremum(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    size = value.shape[axis]
    order = move_last(value.order, axis)
    tensor = builder.to_order(value, order)
    backward = bool(get_attribute(node, "select_last_index", 0))
    if backward:
        inputs = [tensor, builder.int32([len(order) - 1])]
        tensor = emit_move(builder, "REVERSE_V2", inputs, tensor.shape)
    indices = _find_extremum(builder, node, tensor)
    if backward:
        last = builder.store(np.asarray(size - 1, np.int64))
        indices = builder.emit("SUB", [last, indices], indices.shape, dtype="int64")
    if get_attribute(node, "keepdims", 1):
        builder.bind(node, builder.reshape(indices, (*indices.shape, 1)), order)
        return
    builder.bind(node, indices, tuple(each - (each > axis) for each in order[:-1]))


def _find_extremum(builder: TfliteGraphBuilder, node: NodeProto, tensor: Tensor) -> Tensor:
    """Find the index of the largest or smallest entry along the last axis, as int64."""
    is_largest = node.op_type == "ArgMax"
    if tensor.dtype == "int64":
        indices = emit_top_k(builder, tensor, 1, largest=is_largest)[1]
        return builder.cast(builder.reshape(indices, indices.shape[:-1]), "int64")
    if tensor.dtype not in ("float32", "int8", "uint8", "int32"):
        tensor = builder.cast(tensor, "int32")
    op_type = "ARG_MAX" if is_largest else "ARG_MIN"
    axis = builder.int32(len(tensor.shape) - 1)
    options = {"output_type": "int64"}
    return builder.emit(op_type, [tensor, axis], tensor.shape[:-1], dtype="int64", options=options)


def _cumsum(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = builder.integers(node, 1)[0]
    tensor = builder.cast(
        value.tensor, value.tensor.dtype if value.tensor.dtype in _SORTED_TYPES else "int32"
    )
    options = {
        "exclusive": bool(get_attribute(node, "exclusive", 0)),
        "reverse": bool(get_attribute(node, "reverse", 0)),
    }
    inputs = [tensor, builder.int32(value.axis(axis))]
    result = builder.emit("CUMSUM", inputs, tensor.shape, dtype=tensor.dtype, options=options)
    builder.bind(node, builder.cast(result, value.tensor.dtype), value.order)


def _one_hot(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    depth = builder.integers(node, 1)[0]
    indices = builder.cast(builder.plain(node, 0), "int32")
    below = builder.emit("LESS", [indices, builder.int32(0)], indices.shape, dtype="bool")
    from_end = builder.emit("ADD", [indices, builder.int32(depth)], indices.shape, dtype="int32")
    inputs = [below, from_end, indices]
    indices = builder.emit("SELECT_V2", inputs, indices.shape, dtype="int32")
    values = builder.plain(node, 2)
    dtype = values.dtype
    ends = [
        builder.reshape(
            emit_move(builder, "SLICE", [values, builder.int32([p]), builder.int32([1])], (1,)), ()
        )
        for p in (1, 0)
    ]
    shape = builder.shape_of(node.output[0])
    axis = get_attribute(node, "axis", -1) % len(shape)
    options = {"axis": axis}
    inputs = [indices, builder.int32(depth), *ends]
    builder.bind(node, builder.emit("ONE_HOT", inputs, shape, dtype=dtype, options=options))


def _non_zero(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    tensor = builder.plain(node, 0)
    rank = len(tensor.shape)
    if tensor.dtype != "bool":
        zero = builder.store(np.zeros((), tensor.dtype))
        tensor = builder.emit("NOT_EQUAL", [tensor, zero], tensor.shape, dtype="bool")
    rows = builder.emit("WHERE", [tensor], (-1, rank), dtype="int64")
    result = builder.emit("TRANSPOSE", [rows, builder.int32([1, 0])], (rank, -1), dtype="int64")
    builder.bind(node, result)


def _compress(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis")
    if axis is None:
        tensor = builder.plain(node, 0)
        flat = builder.reshape(tensor, (int(np.prod(tensor.shape)),))
        value, axis = Value(tensor=flat, order=(0,)), 0
    constant_condition = builder.constant(node, 1)
    if constant_condition is not None:
        builder.bind(
            node,
            gather_constant(builder, value, axis, np.flatnonzero(constant_condition)),
            value.order,
        )
        return
    storage_axis = value.axis(axis)
    condition = builder.plain(node, 1)
    chosen_indices = builder.emit("WHERE", [condition], (-1, 1), dtype="int64")
    chosen_indices = builder.emit(
        "RESHAPE", [chosen_indices, builder.int32([-1])], (-1,), dtype="int64"
    )
    shape = (*value.tensor.shape[:storage_axis], -1, *value.tensor.shape[storage_axis + 1 :])
    options = {"axis": storage_axis, "batch_dims": 0}
    result = emit_move(builder, "GATHER", [value.tensor, chosen_indices], shape, options=options)
    builder.bind(node, result, value.order)


def _trilu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    shape = value.shape
    offset = builder.integers(node, 1)[0] if builder.has(node, 1) else 0
    ones = np.ones(shape[-2:], bool)
    mask = np.triu(ones, offset) if get_attribute(node, "upper", 1) else np.tril(ones, offset)
    mask_value = Value(tensor=builder.store(mask), order=plain_order(2))
    zero = builder.store(np.zeros((), value.tensor.dtype))
    inputs = [align_value(builder, mask_value, value.order), value.tensor, zero]
    builder.bind(
        node, emit_move(builder, "SELECT_V2", inputs, value.tensor.shape, data=(1, 2)), value.order
    )


def _reverse_sequence(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    options = {
        "seq_dim": value.axis(get_attribute(node, "time_axis", 0)),
        "batch_dim": value.axis(get_attribute(node, "batch_axis", 1)),
    }
    inputs = [value.tensor, builder.plain(node, 1)]
    result = emit_move(builder, "REVERSE_SEQUENCE", inputs, value.tensor.shape, options=options)
    builder.bind(node, result, value.order)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "ArgMax": _arg_extremum,
    "ArgMin": _arg_extremum,
    "Compress": _compress,
    "CumSum": _cumsum,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "TopK": _top_k,
    "Trilu": _trilu,
    "Where": _where,
}
