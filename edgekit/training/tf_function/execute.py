"""Execution of a TFLite graph in TensorFlow, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.conversion.onnx_to_tflite.layout import (
    Value,
    permutation,
    plain_order,
    split_mixed_axis,
)
from edgekit.errors import PassRefused
from edgekit.tflite.evaluate import MOVING
from edgekit.tflite.ir import LiteGraph, Op, Tensor
from edgekit.training.tf_function.elementwise import apply_activation
from edgekit.training.tf_function.ops import TABLE
from edgekit.training.tf_function.quantized import dequantize, quantize

# Operators that take integers held as floats: those that only move or compare them.
_HOLDING = MOVING | {
    "CONCATENATION", "DEQUANTIZE", "GATHER", "GATHER_ND", "MAX_POOL_2D", "PACK", "QUANTIZE",
    "SPLIT", "SPLIT_V", "TILE", "UNPACK",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """TFLite graph of fixed shapes, ready to run.

    Args:
        graph: operators in order of execution.
        values: tensor and layout of each ONNX value, by name.
        scales: name of the learned scale of each integer tensor, by ``id`` of the tensor.
    """

    graph: LiteGraph
    values: Mapping[str, Value]
    scales: Mapping[int, str]


def check_supported(graph: LiteGraph) -> None:
    """Check that TensorFlow can compute every operator of a graph.

    Raises:
        PassRefused: an operator is not in the table; names it and the ONNX node.
    """
    for op in graph.ops:
        if op.op_type not in TABLE:
            raise PassRefused(
                f"{op.origin or op.op_type}: {op.op_type} is not supported in TensorFlow",
                hint="leave out the steps that use training, or replace the operator before export",
            )


def propagate_scales(graph: LiteGraph, scales: dict[int, str]) -> None:
    """Propagate learned scales through operators that only move integers.

    Args:
        graph: operators in order of execution.
        scales: name of the learned scale of each integer tensor, by ``id``; extended in place.
    """
    for op in graph.ops:
        first = op.inputs[0] if op.inputs else None
        if first is None or op.op_type not in _HOLDING or op.op_type in ("QUANTIZE", "DEQUANTIZE"):
            continue
        if id(first) in scales:
            scales.update((id(output), scales[id(first)]) for output in op.outputs)


class Run:
    """One execution of a plan, with the values computed so far.

    Args:
        plan: the graph to run.
        read: returns the value of an initializer by name, ``None`` if it is not learned.
        scale: returns a learned scale by name.
        taps: ONNX values to record, by name.

    Attributes:
        tapped: the recorded values, in ONNX's layout, by name.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        read: Callable[[str], Any],
        scale: Callable[[str], Any],
        taps: Mapping[str, Value],
    ) -> None:
        self._plan = plan
        self._read = read
        self._scale = scale
        self._held: dict[int, Any] = {}
        self.tapped: dict[str, Any] = {}
        self._taps: dict[int, list[str]] = {}
        for name, value in taps.items():
            self._taps.setdefault(id(value.tensor), []).append(name)

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph and return its outputs by name."""
        graph = self._plan.graph
        for name, tensor in graph.inputs.items():
            self._put(tensor, feeds[name])
        for op in graph.ops:
            made = self._run_op(op)
            for tensor, value in zip(op.outputs, made, strict=True):
                self._put(tensor, value)
        outputs = {k: self._cast_held(t, self._get(t)) for k, t in graph.outputs.items()}
        for names in self._taps.values():  # constants that no operator reads
            for name in set(names) - self.tapped.keys():
                self._get(self._plan.values[name].tensor)
        return outputs

    def _run_op(self, op: Op) -> list[Any]:
        args = [None if t is None else self._get(t) for t in op.inputs]
        if any(_is_held_as_float(t, a) for t, a in zip(op.inputs, args, strict=True)):
            args = self._cast_alike(op, args)
        name = self._find_scale_name(op)
        if name is None:
            result = TABLE[op.op_type](op, args)
        else:
            result = (quantize if op.op_type == "QUANTIZE" else dequantize)(
                op, args, self._scale(name)
            )
        result = list(result) if isinstance(result, list | tuple) else [result]
        result[0] = apply_activation(op, result[0])
        return result

    def _find_scale_name(self, op: Op) -> str | None:
        if op.op_type == "QUANTIZE":
            return self._plan.scales.get(id(op.outputs[0]))
        if op.op_type == "DEQUANTIZE":
            return self._plan.scales.get(id(op.inputs[0]))
        return None

    def _cast_alike(self, op: Op, args: list[Any]) -> list[Any]:
        """Cast integer inputs alike: to floats if the operator moves them, else to integers."""
        if op.op_type not in _HOLDING:
            return [self._cast_held(t, a) for t, a in zip(op.inputs, args, strict=True)]
        pairs = zip(op.inputs, args, strict=True)
        float_types = {t.dtype for t, a in pairs if t is not None and _is_held_as_float(t, a)}
        return [
            tf.cast(a, tf.float32) if t is not None and t.dtype in float_types else a
            for t, a in zip(op.inputs, args, strict=True)
        ]

    def _cast_held(self, tensor: Tensor | None, value: Any) -> Any:  # noqa: ANN401
        if tensor is None or not _is_held_as_float(tensor, value):
            return value
        return tf.cast(value, tensor.dtype)

    def _get(self, tensor: Tensor) -> Any:  # noqa: ANN401 - TensorFlow has no types
        if id(tensor) not in self._held:
            self._put(tensor, self._read_constant(tensor))
        return self._held[id(tensor)]

    def _read_constant(self, tensor: Tensor) -> Any:  # noqa: ANN401
        learned = None if tensor.source is None else self._read(tensor.source)
        if learned is None:
            return tensor.data
        return tf.cast(tf.reshape(learned, tensor.shape), tensor.dtype)

    def _put(self, tensor: Tensor, value: Any) -> None:  # noqa: ANN401
        for name in self._taps.get(id(tensor), ()):
            layout = self._plan.values[name]
            # Operators read the tapped tensor itself, so that it gets a gradient.
            self.tapped[name] = tf.convert_to_tensor(_to_onnx_layout(layout, value))
            value = _to_storage_layout(layout, self.tapped[name])
        self._held[id(tensor)] = value


def _is_held_as_float(tensor: Tensor | None, value: Any) -> bool:  # noqa: ANN401
    """Check whether an integer tensor is held as floats."""
    if tensor is None or value is None:
        return False
    dtype = value.dtype.as_numpy_dtype if tf.is_tensor(value) else value.dtype
    return bool(np.issubdtype(dtype, np.floating)) and "int" in tensor.dtype


def _to_onnx_layout(layout: Value, value: Any) -> Any:  # noqa: ANN401
    if layout.is_plain and layout.mixed is None:
        return value
    shape, order = split_mixed_axis(layout)
    parts = tf.reshape(value, shape)
    return tf.reshape(
        tf.transpose(parts, permutation(order, plain_order(len(order)))), layout.shape
    )


def _to_storage_layout(layout: Value, value: Any) -> Any:  # noqa: ANN401
    if layout.is_plain and layout.mixed is None:
        return value
    shape, order = split_mixed_axis(layout)
    sizes = [0] * len(order)
    for size, axis in zip(shape, order, strict=True):
        sizes[axis] = size
    return tf.reshape(tf.transpose(tf.reshape(value, sizes), order), layout.tensor.shape)
