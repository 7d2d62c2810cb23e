"""Removal of axes along which constants only repeat and their readers broadcast."""

from __future__ import annotations

import numpy as np

from edgekit.tflite.ir import Array, LiteGraph, Op, Shape, Tensor, constant

# Operators that broadcast all their inputs against each other.
_BROADCASTING = frozenset((
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE", "FLOOR_DIV",
    "FLOOR_MOD", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL",
    "LOGICAL_AND", "LOGICAL_OR", "SELECT_V2",
))  # fmt: skip
# Kernels that broadcast over more axes need newer op versions, or do not exist.
_MOST_AXES = 4
# Savings of fewer bytes are not worth a broadcast.
_LEAST_SAVED_BYTES = 4096


def shrink_constants(graph: LiteGraph) -> None:
    """Store constants that repeat along an axis once, where their readers broadcast, in place.

    Such constants come from Expand, Tile, and sums of rows and columns.
    """
    for one in (graph, *graph.inner):
        for op in one.ops:
            if op.op_type in _BROADCASTING and len(op.outputs) == 1:
                _shrink_inputs(op, kept_axes=0)
            elif op.op_type == "BATCH_MATMUL":
                _shrink_inputs(op, kept_axes=2)


def _shrink_inputs(op: Op, *, kept_axes: int) -> None:
    """Shrink the constant inputs of an operator, except along its last ``kept_axes`` axes."""
    shape = op.outputs[0].shape
    if len(shape) > _MOST_AXES or -1 in shape:
        return
    for position, tensor in enumerate(op.inputs):
        if tensor is None or tensor.data is None or not _has_one_scale(tensor):
            continue
        others = [t.shape for n, t in enumerate(op.inputs) if t is not None and n != position]
        small = _shrink(tensor.data, shape, others, kept_axes)
        if tensor.data.nbytes - small.nbytes >= _LEAST_SAVED_BYTES:
            shrunk = constant(tensor.name, small, quantization=tensor.quantization)
            shrunk.dtype = tensor.dtype  # int4 values are held as int8
            op.inputs[position] = shrunk


def _has_one_scale(tensor: Tensor) -> bool:
    return tensor.quantization is None or tensor.quantization.scales.size == 1


def _shrink(array: Array, shape: Shape, others: list[Shape], kept_axes: int) -> Array:
    """Cut repeating axes to size 1, as long as the other inputs give the output its shape."""
    bits = array.view(f"u{array.itemsize}")  # bits: -0.0 differs from 0.0, NaN equals itself
    for axis in range(array.ndim - kept_axes):
        first = np.take(bits, [0], axis=axis)
        if array.shape[axis] == 1 or (bits != first).any():
            continue
        cut = np.take(array, [0], axis=axis)
        shapes = [
            operand_shape[: len(operand_shape) - kept_axes]
            for operand_shape in (cut.shape, *others)
        ]
        if np.broadcast_shapes(*shapes) == shape[: len(shape) - kept_axes]:
            array, bits = cut, first
    return array
