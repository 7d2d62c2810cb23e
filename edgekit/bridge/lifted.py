"""The ONNX model that a lift writes: names, constants, types, and integers under scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from edgekit.bridge.graph import Array, Quantization, Shape, Tensor
from edgekit.errors import PassRefused
from edgekit.graphs.onnx_file import inner_graphs

# IR versions of opset 17 and 21: what runtimes of that time take.
_IR_VERSIONS = {17: 8, 21: 10}
_FREE = "N"
_TYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool",
)  # fmt: skip
_SMALL = ("int4", "int8", "uint8", "int16")


class Written:
    """A model being written, inner graphs included.

    Args:
        opset: of the standard operators.
        taken: names that no value inside may have.
    """

    def __init__(self, *, opset: int, taken: Iterable[str]) -> None:
        self.opset = opset
        self.initializers: list[TensorProto] = []
        self._taken = set(taken)
        self._stored: dict[tuple[str, Shape, bytes], str] = {}

    def unique(self, name: str) -> str:
        """A name that no other value has."""
        found, number = name, 0
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def stored(self, array: Array) -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self.unique(f"constant_{len(self._stored)}")
            little = array.astype(array.dtype.newbyteorder("="), copy=False)
            self.initializers.append(numpy_helper.from_array(little, self._stored[key]))
        return self._stored[key]

    def model(self, graph: GraphProto) -> ModelProto:
        """The finished model."""
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSIONS[self.opset],
            producer_name="edgekit",
        )


def name_outputs(nodes: list[NodeProto], values: Mapping[str, str]) -> None:
    """Give the values that are outputs their names, in place; a copy where one cannot be renamed.

    Args:
        nodes: of the main graph.
        values: by the name that each is to have.
    """
    made = {name for node in nodes for name in node.output}
    names: dict[str, str] = {}
    for name, value in values.items():
        if value in made and value not in names:
            names[value] = name
        elif value != name:
            nodes.append(helper.make_node("Identity", [names.get(value, value)], [name]))
    _rename(nodes, names)


def _rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Give values other names, in place, in inner graphs too."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for graph in inner_graphs(node):
            _rename(graph.node, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def described(name: str, tensor: Tensor, *, free: bool) -> ValueInfoProto:
    """An input or output as the model declares it.

    Args:
        name: of the signature.
        tensor: the TFLite tensor.
        free: the batch is named ``N`` rather than 1.
    """
    sizes: list[int | str] = []
    for axis, size in enumerate(tensor.shape):
        if axis == 0 and size in (1, -1):
            sizes.append(_FREE if free else 1)
        else:
            sizes.append(size if size >= 0 else f"{name}_{axis}")
    kind = _type_of("float16", name) if tensor.dtype == "float16" else onnx_type(tensor)
    return helper.make_tensor_value_info(name, kind, sizes)


def inner_type(tensor: Tensor) -> str:
    """numpy's name of a tensor's type inside the graph: quantised and 16-bit floats are float32."""
    is_float = quantized(tensor) is not None or tensor.dtype == "float16"
    return "float32" if is_float else tensor.dtype


def onnx_type(tensor: Tensor) -> int:
    """The ONNX type of a tensor inside the graph.

    Raises:
        PassRefused: ONNX graphs here have no such type.
    """
    return _type_of(inner_type(tensor), tensor.name)


def _type_of(dtype: str, name: str) -> int:
    if dtype not in _TYPES:
        raise PassRefused(
            f"{name}: values of type {dtype} have no counterpart",
            hint="export the model with float32, integer or boolean values",
        )
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def quantized(tensor: Tensor) -> Quantization | None:
    """How a tensor's small integers stand for reals; ``None`` where they are what they are."""
    return tensor.quantization if tensor.dtype in _SMALL else None


def activation_type(dtype: str) -> tuple[str, int]:
    """Under which type activations are rounded, and what is added to the zero point for it.

    Signed 8 bits become unsigned: integer kernels on x86 are twice as fast on them.
    """
    return ("uint8", 128) if dtype in ("int8", "int4") else (dtype, 0)


def as_activations(data: Array, q: Quantization) -> tuple[Array, Quantization]:
    """A constant's integers in the type that activations have."""
    dtype, shift = activation_type(data.dtype.name)
    moved = (data.astype(np.int32) + shift).astype(dtype)
    return moved, Quantization(scales=q.scales, zero_points=q.zero_points + shift, axis=q.axis)


def within_reach(
    tensor: Tensor, q: Quantization, limits: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Limits without those that a tensor's integers cannot pass anyway."""
    scale, zero, reach = float(q.scales[0]), int(q.zero_points[0]), np.iinfo(tensor.dtype)
    low, high = limits
    if low is not None and round(low / scale) + zero <= reach.min:
        low = None
    if high is not None and round(high / scale) + zero >= reach.max:
        high = None
    return low, high
