"""Conversion rules of Where, TopK, ArgMax, Compress and other selections of entries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, plain_order, to_storage_shape
from edgekit.conversion.onnx_to_tflite.ops.elementwise import align_value, align_values
from edgekit.conversion.onnx_to_tflite.ops.indexing import gather_constant
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

_SORTED_TYPES = ("float32", "int32", "int64")


def move_last(order: Order, axis: int) -> Order:
    """Move an ONNX axis to the end of a storage order."""
    return (*(each for each in order if each != axis), axis)


def _where(low: Lowering, node: NodeProto) -> None:
    values = [low.value(node, place) for place in range(3)]
    parts, order = align_values(low, values)
    shape = to_storage_shape(low.shape_of(node.output[0]), order)
    low.bind(node, emit_move(low, "SELECT_V2", parts, shape, data=(1, 2)), order)


def _top_k(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis", -1) % len(value.order)
    count = low.integers(node, 1)[0] if low.has(node, 1) else int(get_attribute(node, "k"))
    order = move_last(value.order, axis)
    tensor = low.to_order(value, order)
    best, places = emit_top_k(low, tensor, count, largest=bool(get_attribute(node, "largest", 1)))
    if node.output[0]:
        low.bind(node, best, order)
    if len(node.output) > 1 and node.output[1]:
        low.bind(node, low.cast(places, "int64"), order, output=1)


def emit_top_k(
    low: Lowering, tensor: Tensor, count: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """Return the first entries along the last axis by size, and their indices (int32).

    Equal entries keep their order.

    Args:
        low: receives the operators.
        tensor: in a storage order with the sorted axis last.
        count: number of entries.
        largest: start with the largest rather than the smallest.
    """
    given = low.cast(tensor, tensor.dtype if tensor.dtype in _SORTED_TYPES else "int32")
    dtype = given.dtype
    if not largest:
        given = low.emit("NEG", [given], given.shape, dtype=dtype)
    shape = (*given.shape[:-1], count)
    best = Tensor(name=f"{tensor.name}/top", dtype=dtype, shape=shape)
    places = Tensor(name=f"{tensor.name}/places", dtype="int32", shape=shape)
    low.emit_many("TOPK_V2", [given, low.int32(count)], [best, places])
    if not largest:
        best = low.emit("NEG", [best], shape, dtype=dtype)
    return low.cast(best, tensor.dtype), places


def _arg_extremum(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis", 0) % len(value.order)
    size = value.shape[axis]
    order = move_last(value.order, axis)
    tensor = low.to_order(value, order)
    backward = bool(get_attribute(node, "select_last_index", 0))
    if backward:
        inputs = [tensor, low.int32([len(order) - 1])]
        tensor = emit_move(low, "REVERSE_V2", inputs, tensor.shape)
    places = _find_extremum(low, node, tensor)
    if backward:
        last = low.store(np.asarray(size - 1, np.int64))
        places = low.emit("SUB", [last, places], places.shape, dtype="int64")
    if get_attribute(node, "keepdims", 1):
        low.bind(node, low.reshape(places, (*places.shape, 1)), order)
        return
    low.bind(node, places, tuple(each - (each > axis) for each in order[:-1]))


def _find_extremum(low: Lowering, node: NodeProto, tensor: Tensor) -> Tensor:
    """Find the index of the largest or smallest entry along the last axis, as int64."""
    is_largest = node.op_type == "ArgMax"
    if tensor.dtype == "int64":
        places = emit_top_k(low, tensor, 1, largest=is_largest)[1]
        return low.cast(low.reshape(places, places.shape[:-1]), "int64")
    if tensor.dtype not in ("float32", "int8", "uint8", "int32"):
        tensor = low.cast(tensor, "int32")
    kind = "ARG_MAX" if is_largest else "ARG_MIN"
    axis = low.int32(len(tensor.shape) - 1)
    options = {"output_type": "int64"}
    return low.emit(kind, [tensor, axis], tensor.shape[:-1], dtype="int64", options=options)


def _cumsum(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = low.integers(node, 1)[0]
    tensor = low.cast(
        value.tensor, value.tensor.dtype if value.tensor.dtype in _SORTED_TYPES else "int32"
    )
    options = {
        "exclusive": bool(get_attribute(node, "exclusive", 0)),
        "reverse": bool(get_attribute(node, "reverse", 0)),
    }
    inputs = [tensor, low.int32(value.axis(axis))]
    made = low.emit("CUMSUM", inputs, tensor.shape, dtype=tensor.dtype, options=options)
    low.bind(node, low.cast(made, value.tensor.dtype), value.order)


def _one_hot(low: Lowering, node: NodeProto) -> None:
    depth = low.integers(node, 1)[0]
    indices = low.cast(low.plain(node, 0), "int32")
    below = low.emit("LESS", [indices, low.int32(0)], indices.shape, dtype="bool")
    from_end = low.emit("ADD", [indices, low.int32(depth)], indices.shape, dtype="int32")
    inputs = [below, from_end, indices]
    indices = low.emit("SELECT_V2", inputs, indices.shape, dtype="int32")
    values = low.plain(node, 2)
    dtype = values.dtype
    ends = [
        low.reshape(emit_move(low, "SLICE", [values, low.int32([p]), low.int32([1])], (1,)), ())
        for p in (1, 0)
    ]
    shape = low.shape_of(node.output[0])
    axis = get_attribute(node, "axis", -1) % len(shape)
    options = {"axis": axis}
    inputs = [indices, low.int32(depth), *ends]
    low.bind(node, low.emit("ONE_HOT", inputs, shape, dtype=dtype, options=options))


def _non_zero(low: Lowering, node: NodeProto) -> None:
    tensor = low.plain(node, 0)
    rank = len(tensor.shape)
    if tensor.dtype != "bool":
        zero = low.store(np.zeros((), tensor.dtype))
        tensor = low.emit("NOT_EQUAL", [tensor, zero], tensor.shape, dtype="bool")
    rows = low.emit("WHERE", [tensor], (-1, rank), dtype="int64")
    made = low.emit("TRANSPOSE", [rows, low.int32([1, 0])], (rank, -1), dtype="int64")
    low.bind(node, made)


def _compress(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis")
    if axis is None:
        tensor = low.plain(node, 0)
        flat = low.reshape(tensor, (int(np.prod(tensor.shape)),))
        value, axis = Value(tensor=flat, order=(0,)), 0
    known = low.constant(node, 1)
    if known is not None:
        low.bind(node, gather_constant(low, value, axis, np.flatnonzero(known)), value.order)
        return
    place = value.axis(axis)
    condition = low.plain(node, 1)
    taken = low.emit("WHERE", [condition], (-1, 1), dtype="int64")
    taken = low.emit("RESHAPE", [taken, low.int32([-1])], (-1,), dtype="int64")
    shape = (*value.tensor.shape[:place], -1, *value.tensor.shape[place + 1 :])
    options = {"axis": place, "batch_dims": 0}
    made = emit_move(low, "GATHER", [value.tensor, taken], shape, options=options)
    low.bind(node, made, value.order)


def _trilu(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    shape = value.shape
    offset = low.integers(node, 1)[0] if low.has(node, 1) else 0
    ones = np.ones(shape[-2:], bool)
    mask = np.triu(ones, offset) if get_attribute(node, "upper", 1) else np.tril(ones, offset)
    kept = Value(tensor=low.store(mask), order=plain_order(2))
    zero = low.store(np.zeros((), value.tensor.dtype))
    inputs = [align_value(low, kept, value.order), value.tensor, zero]
    low.bind(
        node, emit_move(low, "SELECT_V2", inputs, value.tensor.shape, data=(1, 2)), value.order
    )


def _reverse_sequence(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    options = {
        "seq_dim": value.axis(get_attribute(node, "time_axis", 0)),
        "batch_dim": value.axis(get_attribute(node, "batch_axis", 1)),
    }
    inputs = [value.tensor, low.plain(node, 1)]
    made = emit_move(low, "REVERSE_SEQUENCE", inputs, value.tensor.shape, options=options)
    low.bind(node, made, value.order)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
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
