"""The TFLite graph that conversion rules write: values, layouts, constants and operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.conversion.onnx_to_tflite.layout import (
    MixedAxis,
    Order,
    Value,
    is_reshape,
    merge_axes,
    permutation,
    plain_order,
    split_mixed_axis,
    to_storage_shape,
)
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import get_opset
from edgekit.onnx_graph.shape_inference import get_fixed_shape
from edgekit.tflite.ir import Array, LiteGraph, Op, Shape, Tensor, constant

_MAX_TRANSPOSE_RANK = 6  # by TRANSPOSE of tflite-runtime 2.14
_INPUT_TYPES = {
    "bool", "str", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "bfloat16",
}  # fmt: skip
# Most TFLite kernels support none of these types: they are computed in 32 bits, and the
# graph's own inputs and outputs keep their type.
_COMPUTE_TYPES = {"float64": "float32", "float16": "float32", "bfloat16": "float32"}


class TfliteGraphBuilder:
    """A TFLite graph under construction, with the helpers that rules use to extend it.

    A rule reads a node's inputs with ``value`` (or ``plain``, ``integers`` ...), adds operators
    with ``emit``, and sets the node's outputs with ``bind``.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        self.index = GraphIndex(proto)
        self.types = _read_types(proto)
        self._values: dict[str, Value] = {}
        self._constants: dict[tuple[str, bytes, Shape], Tensor] = {}
        self._from_constants: set[int] = set()
        self._transposed: dict[tuple[int, Order], Tensor] = {}
        self._origin = ""
        self.opset = max(get_opset(proto), 1)
        self.graph = LiteGraph(ops=[], inputs={}, outputs={})
        for model_input in proto.graph.input:
            if model_input.name in self.index.initializers:
                continue
            dtype, shape = self._get_input_type(model_input.name)
            tensor = Tensor(name=model_input.name, dtype=dtype, shape=shape)
            self.graph.inputs[model_input.name] = tensor
            self._origin = f"input {model_input.name}"
            computed = self.cast(tensor, get_computed_type(dtype))
            self._values[model_input.name] = Value(tensor=computed, order=plain_order(len(shape)))

    def _get_input_type(self, name: str) -> tuple[str, Shape]:
        if name not in self.types:
            raise PassRefused(
                f"input {name} is not a tensor of fixed shape", hint="export the model with tensors"
            )
        dtype, shape = self.types[name]
        if dtype not in _INPUT_TYPES:
            raise PassRefused(f"input {name} has type {dtype}, which .tflite files do not support")
        return dtype, shape

    # ------------------------------------------------------------ reading a node

    def has(self, node: NodeProto, position: int) -> bool:
        """Return whether a node has an input at a position; an empty name counts as none."""
        return len(node.input) > position and bool(node.input[position])

    def value(self, node: NodeProto, position: int, *, mixed: bool = False) -> Value:
        """Return an input in the layout in which it is stored.

        Args:
            node: The reader.
            position: Position of the input.
            mixed: Accept an axis whose entries are in another order than in ONNX.
        """
        self._origin = describe_node(node)
        value = self._find_value(node.input[position])
        return value if mixed else self.unmix(value)

    def plain(self, node: NodeProto, position: int) -> Tensor:
        """Return an input with its axes stored in ONNX's order."""
        return self.to_order(self.value(node, position), None)

    def constant(self, node: NodeProto, position: int) -> Array | None:
        """Return the constant value of an input in ONNX's layout; ``None`` without one."""
        if not self.has(node, position):
            return None
        return self.index.constant(node.input[position])

    def integers(self, node: NodeProto, position: int) -> tuple[int, ...]:
        """Return the value of an input that must be constant: axes, pads, sizes.

        Raises:
            PassRefused: The input is computed at run time.
        """
        array = self.constant(node, position)
        if array is None:
            raise self.refusal(node, f"needs a constant as input {position}, but it is computed")
        return tuple(int(n) for n in array.ravel())

    def shape_of(self, name: str) -> Shape:
        """Return the shape of an ONNX value in ONNX's order.

        Raises:
            PassRefused: The shape is not fixed.
        """
        if name not in self.types:
            raise PassRefused(
                f"{name}: its shape depends on the data, or cannot be inferred",
                hint="export the model with fixed shapes",
            )
        return self.types[name][1]

    def dtype_of(self, name: str) -> str:
        """Return the type in which an ONNX value is computed; every float becomes float32."""
        self.shape_of(name)
        return get_computed_type(self.types[name][0])

    def is_stored(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a constant, or computed from constants alone."""
        return tensor.is_constant or id(tensor) in self._from_constants

    # ------------------------------------------------------------ adding to the graph

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        shape: Shape,
        *,
        dtype: str = "float32",
        options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Add an operator with one output and return that output.

        Args:
            op_type: As ``Op.op_type``.
            inputs: Inputs in the operator's order.
            shape: Shape of the output in storage order.
            dtype: Type of the output.
            options: As ``Op.options``.
        """
        output = Tensor(name=f"{self._origin}/{op_type.lower()}", dtype=dtype, shape=shape)
        self.emit_many(op_type, inputs, [output], options=options)
        return output

    def emit_many(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an operator with existing output tensors."""
        self.graph.ops.append(
            Op(
                op_type=op_type,
                inputs=list(inputs),
                outputs=list(outputs),
                options=dict(options or {}),
                origin=self._origin,
            )
        )
        if inputs and all(t is None or self.is_stored(t) for t in inputs):
            self._from_constants |= {id(t) for t in outputs}

    def store(self, array: Array, name: str = "constant") -> Tensor:
        """Return a new constant; equal constants are stored once."""
        key = (array.dtype.name, array.tobytes(), tuple(array.shape))
        if key not in self._constants:
            self._constants[key] = constant(name, array)
        return self._constants[key]

    def int32(self, numbers: Sequence[int] | int) -> Tensor:
        """Return a constant of 32-bit integers."""
        return self.store(np.asarray(numbers, np.int32))

    def float32(self, numbers: Sequence[float] | float) -> Tensor:
        """Return a constant of 32-bit floats."""
        return self.store(np.asarray(numbers, np.float32))

    def to_order(self, value: Value, order: Order | None) -> Tensor:
        """Return a value with its axes stored in an order; ``None`` is ONNX's order.

        A transpose is added only where data has to move.
        """
        value = self.unmix(value)
        order = plain_order(len(value.order)) if order is None else order
        perm = permutation(value.order, order)
        if perm == plain_order(len(perm)):
            return value.tensor
        key = (id(value.tensor), perm)
        if key not in self._transposed:
            self._transposed[key] = self.transpose(value.tensor, perm)
        return self._transposed[key]

    def unmix(self, value: Value) -> Value:
        """Return a value with the entries of every axis in ONNX's order."""
        if value.mixed is None:
            return value
        shape, order = split_mixed_axis(value)
        first = value.order.index(value.mixed.axis)
        parts = range(first, first + len(value.mixed.sizes))
        rest = range(parts.stop, len(order))
        perm = (*range(first), *sorted(parts, key=order.__getitem__), *rest)
        ordered = self.transpose(self.reshape(value.tensor, shape), perm)
        return Value(tensor=self.reshape(ordered, value.tensor.shape), order=value.order)

    def mix_alike(self, tensor: Tensor, axis: int, mixed: MixedAxis) -> Tensor:
        """Reorder the entries of a stored axis as those of another value's merged axis.

        Args:
            tensor: A weight, say, with the entries of its axis in ONNX's order.
            axis: The storage axis.
            mixed: The order wanted.
        """
        before, after = tensor.shape[:axis], tensor.shape[axis + 1 :]
        parts = self.reshape(tensor, (*before, *mixed.sizes, *after))
        count = len(mixed.sizes)
        perm = (
            *range(axis),
            *(axis + part for part in mixed.order),
            *range(axis + count, len(parts.shape)),
        )
        return self.reshape(self.transpose(parts, perm), tensor.shape)

    def transpose(self, tensor: Tensor, perm: Order) -> Tensor:
        """Transpose a tensor; a RESHAPE is used where it does the same."""
        shape = to_storage_shape(tensor.shape, perm)
        if is_reshape(tensor.shape, perm):
            return self.reshape(tensor, shape)
        if len(perm) > _MAX_TRANSPOSE_RANK:
            parts, perm = merge_axes(tensor.shape, perm)
            tensor = self.reshape(tensor, parts)
        moved_shape = to_storage_shape(tensor.shape, perm)
        transposed = self.emit(
            "TRANSPOSE", [tensor, self.int32(perm)], moved_shape, dtype=tensor.dtype
        )
        return self.reshape(transposed, shape)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Reshape a tensor; the tensor itself is returned if it has the shape already."""
        if tensor.shape == shape:
            return tensor
        return self.emit("RESHAPE", [tensor, self.int32(shape)], shape, dtype=tensor.dtype)

    def cast(self, tensor: Tensor, dtype: str) -> Tensor:
        """Cast a tensor; the tensor itself is returned if it has the type already."""
        if tensor.dtype == dtype:
            return tensor
        if "uint64" in (tensor.dtype, dtype):
            raise PassRefused(
                f"{self._origin}: TFLite has no operators for uint64",
                hint="export the model with int64 instead",
            )
        options = {"in_data_type": tensor.dtype, "out_data_type": dtype}
        return self.emit("CAST", [tensor], tensor.shape, dtype=dtype, options=options)

    def bind(
        self,
        node: NodeProto,
        tensor: Tensor,
        order: Order | None = None,
        *,
        output: int = 0,
        mixed: MixedAxis | None = None,
    ) -> None:
        """Set a node's output to a tensor with axes stored in an order; ``None`` is ONNX's."""
        order = plain_order(len(tensor.shape)) if order is None else order
        self._values[node.output[output]] = Value(tensor=tensor, order=order, mixed=mixed)

    def refusal(self, node: NodeProto, reason: str, *, hint: str = "") -> PassRefused:
        """Return the error for a node that cannot be converted."""
        hint = hint or "replace it before export, or run this model with onnxruntime"
        return PassRefused(f"{describe_node(node)} {reason}", hint=hint)

    @property
    def values(self) -> Mapping[str, Value]:
        """Return every ONNX value converted so far, by name."""
        return self._values

    # ------------------------------------------------------------ inside

    def _find_value(self, name: str) -> Value:
        if name not in self._values:
            array = self.index.constant(name)
            if array is None:
                raise PassRefused(f"{name}: no node of the graph computes this value")
            array = array.astype(get_computed_type(array.dtype.name), copy=False)
            tensor = constant(name, array)
            tensor.source = name
            self._values[name] = Value(tensor=tensor, order=plain_order(array.ndim))
        return self._values[name]

    def _iter_ends(self) -> Iterator[Tensor]:
        yield from self.graph.inputs.values()
        yield from self.graph.outputs.values()

    def finish(self) -> LiteGraph:
        """Complete the graph: add its outputs in ONNX's layout."""
        for model_output in self.proto.graph.output:
            self._origin = f"output {model_output.name}"
            tensor = self.to_order(self._find_value(model_output.name), None)
            dtype = _to_dtype(model_output.type.tensor_type.elem_type)
            if get_computed_type(dtype) == tensor.dtype:
                tensor = self.cast(tensor, dtype)
            if tensor.is_constant or any(tensor is end for end in self._iter_ends()):
                # Runtimes need not copy inputs, constants or other outputs to an output.
                inputs = [tensor, self.int32(tensor.shape)]
                tensor = self.emit("RESHAPE", inputs, tensor.shape, dtype=tensor.dtype)
            self.graph.outputs[model_output.name] = tensor
        return self.graph


def describe_node(node: NodeProto) -> str:
    """Describe a node in a message: its operator, and its name or first output."""
    return f"{node.op_type} {node.name or node.output[0]}"


def get_computed_type(dtype: str) -> str:
    """Return the type in which values of a type are computed: float32 for floats of any width."""
    return _COMPUTE_TYPES.get(dtype, dtype)


def get_attribute(node: NodeProto, name: str, default: Any = None) -> Any:  # noqa: ANN401 - by name
    """Return an attribute of a node, text as ``str``; the default where it is absent."""
    value = read_attribute(node, name, default)
    return value.decode() if isinstance(value, bytes) else value


def _read_types(proto: ModelProto) -> dict[str, tuple[str, Shape]]:
    graph = proto.graph
    types = {t.name: (_to_dtype(t.data_type), tuple(t.dims)) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = get_fixed_shape(value.type)
        if shape is not None:
            types[value.name] = (_to_dtype(value.type.tensor_type.elem_type), shape)
    return types


def _to_dtype(elem_type: int) -> str:
    if elem_type == TensorProto.STRING:
        return "str"
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name)
