"""Names, constants, types and quantization of the ONNX model that the conversion writes."""

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

from edgekit.errors import PassRefused
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.tflite.ir import Array, Quantization, Shape, Tensor

# IR versions of opsets 17 and 21, which the runtimes of their time support.
_IR_VERSIONS = {17: 8, 21: 10}
_FREE = "N"
_TYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool",
)  # fmt: skip
_SMALL = ("int4", "int8", "uint8", "int16")


class OnnxModelBuilder:
    """An ONNX model under construction, subgraphs included.

    Args:
        opset: Opset version of the standard operators.
        reserved_names: Names that no inner value may have.
    """

    def __init__(self, *, opset: int, reserved_names: Iterable[str]) -> None:
        self.opset = opset
        self.initializers: list[TensorProto] = []
        self._taken = set(reserved_names)
        self._stored: dict[tuple[str, Shape, bytes], str] = {}

    def unique(self, name: str) -> str:
        """Return a name that no other value has."""
        candidate, number = name, 0
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate

    def store(self, array: Array) -> str:
        """Store a constant and return its name; equal constants are stored once."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self.unique(f"constant_{len(self._stored)}")
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            self.initializers.append(numpy_helper.from_array(native, self._stored[key]))
        return self._stored[key]

    def model(self, graph: GraphProto) -> ModelProto:
        """Build the model around its main graph."""
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSIONS[self.opset],
            producer_name="edgekit",
        )


def name_outputs(nodes: list[NodeProto], values: Mapping[str, str]) -> None:
    """Rename values to the graph's output names in place, or add an Identity to do so.

    Args:
        nodes: Nodes of the main graph.
        values: Value of each output, by output name.
    """
    computed = {name for node in nodes for name in node.output}
    names: dict[str, str] = {}
    for name, value in values.items():
        if value in computed and value not in names:
            names[value] = name
        elif value != name:
            nodes.append(helper.make_node("Identity", [names.get(value, value)], [name]))
    _rename(nodes, names)


def _rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Rename values in place, in subgraphs too."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for graph in iter_inner_graphs(node):
            _rename(graph.node, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)


def declare_value(name: str, tensor: Tensor, *, free: bool) -> ValueInfoProto:
    """Return the declaration of a model input or output.

    Args:
        name: Name in the signature.
        tensor: The TFLite tensor.
        free: Name the batch axis ``N`` rather than declare it as 1.
    """
    sizes: list[int | str] = []
    for axis, size in enumerate(tensor.shape):
        if axis == 0 and size in (1, -1):
            sizes.append(_FREE if free else 1)
        else:
            sizes.append(size if size >= 0 else f"{name}_{axis}")
    element_type = (
        _to_onnx_type("float16", name) if tensor.dtype == "float16" else get_onnx_type(tensor)
    )
    return helper.make_tensor_value_info(name, element_type, sizes)


def get_inner_type(tensor: Tensor) -> str:
    """Return a tensor's type in the ONNX graph: float32 for quantized and float16 tensors."""
    is_float = get_quantization(tensor) is not None or tensor.dtype == "float16"
    return "float32" if is_float else tensor.dtype


def get_onnx_type(tensor: Tensor) -> int:
    """Return the ONNX element type of a tensor inside the graph.

    Raises:
        PassRefused: The type has no ONNX counterpart here.
    """
    return _to_onnx_type(get_inner_type(tensor), tensor.name)


def _to_onnx_type(dtype: str, name: str) -> int:
    if dtype not in _TYPES:
        raise PassRefused(
            f"{name}: values of type {dtype} have no ONNX counterpart",
            hint="export the model with float32, integer or boolean values",
        )
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def get_quantization(tensor: Tensor) -> Quantization | None:
    """Return the quantization of an integer tensor of up to 16 bits; ``None`` for other tensors."""
    return tensor.quantization if tensor.dtype in _SMALL else None


def get_activation_type(dtype: str) -> tuple[str, int]:
    """Return the integer type in which activations are rounded, and the shift of their zero point.

    Signed 8 bits become unsigned, because integer kernels on x86 are twice as fast on them.
    """
    return ("uint8", 128) if dtype in ("int8", "int4") else (dtype, 0)


def to_activation_type(data: Array, q: Quantization) -> tuple[Array, Quantization]:
    """Convert the integers of a constant and its quantization to the type of activations."""
    dtype, shift = get_activation_type(data.dtype.name)
    shifted = (data.astype(np.int32) + shift).astype(dtype)
    return shifted, Quantization(scales=q.scales, zero_points=q.zero_points + shift, axis=q.axis)


def drop_implied_limits(
    tensor: Tensor, q: Quantization, limits: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Drop activation limits that a tensor's integer range implies anyway."""
    scale, zero, bounds = float(q.scales[0]), int(q.zero_points[0]), np.iinfo(tensor.dtype)
    low, high = limits
    if low is not None and round(low / scale) + zero <= bounds.min:
        low = None
    if high is not None and round(high / scale) + zero >= bounds.max:
        high = None
    return low, high
