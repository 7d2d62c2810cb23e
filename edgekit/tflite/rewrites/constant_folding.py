"""Constant folding, and removal of operators that are redundant or duplicates."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from edgekit.tflite.evaluate import MOVING, evaluate_op
from edgekit.tflite.ir import LiteGraph, Op, Quantization, Shape, Tensor, constant

# Duplicates of these are not equal: each call gives another value or has another effect.
_NEVER_SHARED = {"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "WHILE", "IF"}
# A folded constant (of FILL or TILE, say) may exceed the size of its inputs by this much.
_MOST_GROWTH_BYTES = 4096


def fold(graph: LiteGraph) -> None:
    """Simplify a graph and its subgraphs in place, without changing their outputs.

    Operators on constants are computed. Data movement after a DEQUANTIZE of a constant is applied
    to the integers, while the DEQUANTIZE itself stays. Inverse transposes cancel, reshapes merge,
    and equal operators and equal constants are shared.
    """
    share_constants(graph)
    for one in (graph, *graph.inner):
        _ConstantFolder(one).run()
        one.drop_unread()
    share_constants(graph)


class _ConstantFolder:
    """One pass over the operators of a graph, in which each sees simplified inputs."""

    def __init__(self, graph: LiteGraph) -> None:
        self.graph = graph
        self.fixed = {id(t) for t in graph.outputs.values()}
        self.fed = {id(t) for t in graph.inputs.values()}
        self.replaced: dict[int, Tensor] = {}
        self.made_by: dict[int, Op] = {}
        self.seen: dict[Hashable, Op] = {}

    def run(self) -> None:
        """Simplify every operator in order."""
        kept_ops: list[Op] = []
        for op in self.graph.ops:
            op.inputs = [t if t is None else self.replaced.get(id(t), t) for t in op.inputs]
            if self._replace_op(op):
                continue
            self._merge(op)
            if self._replace_op(op):
                continue
            kept_ops.append(op)
            self.made_by.update({id(t): op for t in op.outputs})
        self.graph.ops = kept_ops
        self.graph.substitute(self.replaced)

    def _replace_op(self, op: Op) -> bool:
        replacement = (
            self._fold_constant(op) or _find_unchanged_input(op) or self._find_duplicate(op)
        )
        if replacement is None:
            return False
        if id(op.outputs[0]) in self.fixed:
            # Runtimes need not copy inputs, constants or other outputs to an output.
            if replacement.is_constant or {id(replacement)} & (self.fed | self.fixed):
                return False
            self.fixed.add(id(replacement))
        self.replaced.update({id(op.outputs[0]): replacement})
        return True

    def _fold_constant(self, op: Op) -> Tensor | None:
        inputs = [t for t in op.inputs if t is not None]
        if len(inputs) != len(op.inputs) or not inputs:
            return None
        if any(t.data is None or t.quantization is not None or t.dtype == "int4" for t in inputs):
            return None
        output = op.outputs[0]
        stored = sum(t.data.nbytes for t in inputs if t.data is not None)
        size = math.prod(output.shape) * np.dtype(output.dtype).itemsize
        if size > stored + _MOST_GROWTH_BYTES:
            return None
        array = evaluate_op(op, [t.data for t in inputs if t.data is not None])
        if array is None:
            return None
        if -1 not in output.shape and array.shape != output.shape:
            array = array.reshape(output.shape)
        return constant(inputs[0].name, array)

    def _find_duplicate(self, op: Op) -> Tensor | None:
        if len(op.outputs) != 1 or op.op_type in _NEVER_SHARED or op.outputs[0].is_variable:
            return None
        output = op.outputs[0]
        key = (
            op.op_type,
            tuple(_tensor_key(t) for t in op.inputs),
            repr(sorted(op.options.items())),
            output.dtype,
            _quantization_key(output.quantization),
        )
        other = self.seen.setdefault(key, op)
        return None if other is op or id(output) in self.fixed else other.outputs[0]

    def _merge(self, op: Op) -> None:
        """Merge an operator with the operator that computes its input."""
        if op.op_type not in MOVING or op.inputs[0] is None:
            return
        before = self.made_by.get(id(op.inputs[0]))
        if before is not None and before.op_type == "DEQUANTIZE":
            _move_integers(op, before)
        if op.op_type in ("EXPAND_DIMS", "SQUEEZE") and -1 not in op.outputs[0].shape:
            _change_to_reshape(op)
        if op.op_type == "TRANSPOSE":
            _merge_transposes(op, before)
            _replace_by_reshape(op)
        if op.op_type == "RESHAPE" and -1 not in op.outputs[0].shape:
            while before is not None and before.op_type == "RESHAPE":
                op.inputs[0] = before.inputs[0]
                before = self.made_by.get(id(op.inputs[0]))


def _tensor_key(tensor: Tensor | None) -> Hashable:
    if tensor is None or tensor.data is None or tensor.data.nbytes > 256:
        return id(tensor) if tensor is not None else None
    return _constant_key(tensor)


def _find_unchanged_input(op: Op) -> Tensor | None:
    """Return the input of an operator that passes it on unchanged; ``None`` for other operators."""
    source = op.inputs[0] if op.inputs else None
    if source is None or len(op.outputs) != 1:
        return None
    if op.op_type in ("RESHAPE", "CAST", "BROADCAST_TO", "EXPAND_DIMS", "SQUEEZE"):
        output = op.outputs[0]
        is_same = source.shape == output.shape and -1 not in source.shape
        return source if is_same and source.dtype == output.dtype else None
    if op.op_type == "TRANSPOSE":
        perm = _read_perm(op)
        return source if perm is not None and perm == tuple(range(len(perm))) else None
    if op.op_type == "CONCATENATION" and len(op.inputs) == 1:
        return source if op.options.get("fused_activation_function", "NONE") == "NONE" else None
    return None


def _read_perm(op: Op) -> tuple[int, ...] | None:
    order = op.inputs[1]
    if order is None or order.data is None:
        return None
    return tuple(int(n) for n in order.data)


def _merge_transposes(op: Op, before: Op | None) -> None:
    if before is None or before.op_type != "TRANSPOSE":
        return
    first, second = _read_perm(before), _read_perm(op)
    if first is None or second is None:
        return
    order = np.asarray([first[axis] for axis in second], np.int32)
    op.inputs = [before.inputs[0], constant("perm", order)]


def _replace_by_reshape(op: Op) -> None:
    """Replace a TRANSPOSE that only moves axes of size 1 by a RESHAPE."""
    perm, source = _read_perm(op), op.inputs[0]
    if perm is None or source is None or -1 in source.shape:
        return
    long_axes = [axis for axis in perm if source.shape[axis] != 1]
    if long_axes == sorted(long_axes):
        _change_to_reshape(op)


def _change_to_reshape(op: Op) -> None:
    op.op_type, op.options = "RESHAPE", {}
    op.inputs = [op.inputs[0], constant("shape", np.asarray(op.outputs[0].shape, np.int32))]


def _move_integers(op: Op, before: Op) -> None:
    """Rewrite ``constant -> DEQUANTIZE -> move`` as ``moved constant -> DEQUANTIZE``."""
    stored = before.inputs[0]
    if stored is None or stored.data is None or not all(_is_known(t) for t in op.inputs[1:]):
        return
    quantization = stored.quantization
    if quantization is not None and (quantization.scales.size > 1 or quantization.axis):
        quantization = _move_quantization(op, stored.shape, quantization)
        if quantization is None:
            return
    integers = Op(
        op_type=op.op_type,
        inputs=[stored, *op.inputs[1:]],
        outputs=[Tensor(name="", dtype=stored.data.dtype.name, shape=op.outputs[0].shape)],
        options=op.options,
    )
    rest = [t.data for t in op.inputs[1:] if t is not None and t.data is not None]
    moved_values = evaluate_op(integers, [stored.data, *rest])
    if moved_values is None:
        return
    moved_values = moved_values.reshape(op.outputs[0].shape)
    moved_constant = constant(stored.name, moved_values, quantization=quantization)
    moved_constant.dtype = stored.dtype  # int4 values are held as int8
    op.op_type, op.inputs, op.options = "DEQUANTIZE", [moved_constant], dict(before.options)


def _is_known(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_constant


def _move_quantization(op: Op, shape: Shape, quantization: Quantization) -> Quantization | None:
    """Return the quantization of a constant that was moved; ``None`` if its axis is split."""
    if op.op_type == "SLICE":
        return _slice_quantization(op, quantization)
    axis = _find_moved_axis(op, shape, quantization)
    return None if axis is None else replace(quantization, axis=axis)


def _slice_quantization(op: Op, quantization: Quantization) -> Quantization:
    """Return the quantization of the part of a constant that a SLICE takes."""
    begin, output = op.inputs[1], op.outputs[0]
    if begin is None or begin.data is None:
        raise ValueError("the start of a slice is computed")
    first = int(begin.data[quantization.axis])
    part = slice(first, first + output.shape[quantization.axis])
    return replace(
        quantization,
        scales=quantization.scales[part],
        zero_points=quantization.zero_points[part],
    )


def _find_moved_axis(op: Op, shape: Shape, quantization: Quantization) -> int | None:
    """Find the quantized axis after a data movement; ``None`` where the axis is split up."""
    axis = quantization.axis
    if op.op_type == "TRANSPOSE":
        perm = _read_perm(op)
        return None if perm is None else perm.index(axis)
    if op.op_type not in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE"):
        return None
    output_shape = op.outputs[0].shape
    before = math.prod(shape[:axis])
    for output_axis, size in enumerate(output_shape):
        if size == shape[axis] and math.prod(output_shape[:output_axis]) == before:
            return output_axis
    return None


def share_constants(graph: LiteGraph) -> None:
    """Replace equal constants of a graph by one tensor; each subgraph is treated on its own."""
    for one in (graph, *graph.inner):
        stored: dict[Hashable, Tensor] = {}
        for op in one.ops:
            op.inputs = [
                t if t is None or t.data is None else stored.setdefault(_constant_key(t), t)
                for t in op.inputs
            ]


def _constant_key(tensor: Tensor) -> Hashable:
    if tensor.data is None:
        return id(tensor)
    return (
        tensor.dtype,
        tensor.shape,
        tensor.data.tobytes(),
        _quantization_key(tensor.quantization),
    )


def _quantization_key(quantization: Quantization | None) -> Hashable:
    if quantization is None:
        return None
    return (quantization.scales.tobytes(), quantization.zero_points.tobytes(), quantization.axis)
