"""Reader of .tflite files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.errors import UserError
from edgekit.tflite.buffers import decode_constant
from edgekit.tflite.ir import LiteGraph, Op, Quantization, Shape, Tensor
from edgekit.tflite.schema import OP_NAMES, TYPE_NAMES, find_union, tables, unpack_options

_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError)
_RANK_LIMIT = 32
_EXTERNAL_BUFFER = 24  # vtable offset of the field; ai-edge-litert 2.0 has no accessor for it


def read_lite(data: bytes, shapes: Mapping[int, Shape] | None = None) -> LiteGraph:
    """Read a .tflite file, written by ``write_lite`` or by another tool, as a graph.

    Inputs and outputs have the names and the order that the agent reports
    (``edgekit_agent.runtimes.litert``): those of the first signature that covers the inputs, else
    those of the tensors. Constants are views of ``data``; integers of fewer than 8 bits are
    unpacked to ``int8`` or ``uint8`` and keep their ``dtype``. Operators have all options of the
    schema; ``custom_options`` holds the bytes of a custom operator, ``intermediates`` the tensors
    that only carry the scales inside an integer LSTM. All graphs after the first are in ``inner``.

    Args:
        data: Bytes of the file.
        shapes: Shapes of tensors of the first graph by tensor index, where the shapes in the file
            are placeholders.

    Raises:
        UserError: The file is no TFLite file, is damaged, or has unsupported content (sparse or
            block-quantized tensors, constant strings).
    """
    if data[4:8] != b"TFL3":
        raise UserError("not a TFLite file")
    try:
        return _read_model(
            _File(data=data, model=tables.Model.GetRootAs(data), shapes=shapes or {})
        )
    except _DAMAGE as error:
        raise _build_damage_error("it is truncated, or an offset is out of range") from error


def _build_damage_error(reason: str) -> UserError:
    return UserError(f"the TFLite file is damaged: {reason}", hint="download or export it again")


@dataclass(kw_only=True)
class _File:
    """A file being read; ``read`` counts the elements, so that a damaged file ends soon."""

    data: bytes
    model: Any
    shapes: Mapping[int, Shape] = field(default_factory=dict)
    read: int = field(default=0)

    def read_elements(self, length: int, get: Callable[[int], Any]) -> list[Any]:
        """Return the elements of a vector.

        Raises:
            UserError: The vector claims more elements than a file of this size can hold.
        """
        self.read += length
        if self.read > 4 * len(self.data) + 65536:
            raise _build_damage_error("it declares more parts than its size allows")
        return [get(i) for i in range(length)]

    def read_buffer(self, number: int) -> memoryview:
        """Return the bytes of a buffer, inside the flatbuffer or behind it."""
        if number >= self.model.BuffersLength():
            raise _build_damage_error(f"there is no buffer {number}")
        buffer = self.model.Buffers(number)
        if buffer.DataLength():
            return memoryview(buffer.DataAsNumpy())
        start, size = buffer.Offset(), buffer.Size()
        if start <= 1:
            return memoryview(b"")
        if start + size > len(self.data):
            raise _build_damage_error(f"buffer {number} is outside the file")
        return memoryview(self.data)[start : start + size]


def _read_model(file: _File) -> LiteGraph:
    if file.model.Version() != 3:
        raise UserError(f"TFLite schema version {file.model.Version()} is not supported")
    subgraphs = file.read_elements(file.model.SubgraphsLength(), file.model.Subgraphs)
    if not subgraphs:
        raise _build_damage_error("it contains no graph")
    codes = file.read_elements(file.model.OperatorCodesLength(), file.model.OperatorCodes)
    op_types = [_read_op_type(code) for code in codes]
    graph, *inner = (
        _read_graph(file, one, op_types, main=i == 0) for i, one in enumerate(subgraphs)
    )
    graph.inner = inner
    return graph


def _read_op_type(code: Any) -> str:  # noqa: ANN401 - generated types
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    op_type = OP_NAMES.get(number)
    if op_type is None:
        raise UserError(f"unknown operator {number}", hint="the file is too new")
    return f"CUSTOM:{_decode_text(code.CustomCode())}" if op_type == "CUSTOM" else op_type


def _decode_text(name: bytes | None) -> str:
    """Return a name as LiteRT reads it, up to the first NUL."""
    return (name or b"").partition(b"\0")[0].decode()


def _read_graph(file: _File, subgraph: Any, op_types: Sequence[str], *, main: bool) -> LiteGraph:  # noqa: ANN401
    operators = file.read_elements(subgraph.TensorsLength(), subgraph.Tensors)
    tensors = [_read_tensor(file, one, i) for i, one in enumerate(operators)]
    for i, shape in file.shapes.items() if main else ():
        if i < len(tensors) and not tensors[i].is_constant:
            tensors[i].shape = shape
    operators = file.read_elements(subgraph.OperatorsLength(), subgraph.Operators)
    ops = [_read_operator(file, one, tensors, op_types) for one in operators]
    inputs = file.read_elements(subgraph.InputsLength(), subgraph.Inputs)
    outputs = file.read_elements(subgraph.OutputsLength(), subgraph.Outputs)
    named = _read_signature(file, inputs, outputs) if main else None
    sides = named or (
        _name_by_tensors(inputs, tensors, main),
        _name_by_tensors(outputs, tensors, main),
    )
    ends = [{name: _get_tensor(tensors, i) for name, i in side.items()} for side in sides]
    graph = LiteGraph(ops=ops, inputs=ends[0], outputs=ends[1])
    _check_order(graph)
    return graph


def _read_tensor(file: _File, table: Any, index: int) -> Tensor:  # noqa: ANN401 - generated types
    name = _decode_text(table.Name()) or f"tensor{index}"
    if table.Sparsity() is not None:
        raise UserError(f"tensor {name} is sparse", hint="export the model with dense weights")
    if table._tab.Offset(_EXTERNAL_BUFFER):
        raise UserError(f"the values of tensor {name} are stored in another file")
    shape = _read_shape(file, table)
    tensor = Tensor(
        name=name,
        dtype=TYPE_NAMES[table.Type()],
        shape=shape,
        quantization=_read_quantization(table.Quantization(), name, shape),
        is_variable=bool(table.IsVariable()),
    )
    raw = file.read_buffer(table.Buffer())
    if raw:
        try:
            tensor.data = decode_constant(raw, tensor.dtype, shape)
        except UserError as error:
            raise UserError(f"tensor {name}: {error.message}") from error
    return tensor


def _read_shape(file: _File, table: Any) -> Shape:  # noqa: ANN401 - generated types
    if max(table.ShapeLength(), table.ShapeSignatureLength()) > _RANK_LIMIT:
        raise _build_damage_error("a tensor has too many axes")
    if table.ShapeSignatureLength():
        shape = file.read_elements(table.ShapeSignatureLength(), table.ShapeSignature)
    else:
        shape = file.read_elements(table.ShapeLength(), table.Shape)
    if min(shape, default=0) < -1:
        raise _build_damage_error("a tensor has a negative size")
    return tuple(shape)


def _read_quantization(table: Any, name: str, shape: Shape) -> Quantization | None:  # noqa: ANN401
    if table is None:
        return None
    if table.DetailsType():
        raise UserError(f"tensor {name} is quantized in a way that is not supported")
    if not table.ScaleLength():
        return None
    scales = table.ScaleAsNumpy().astype(np.float32)
    zeros = table.ZeroPointAsNumpy() if table.ZeroPointLength() else np.zeros(1, np.int64)
    axis = table.QuantizedDimension() if len(scales) > 1 else 0
    if len(scales) > 1 and (axis not in range(len(shape)) or shape[axis] not in (-1, len(scales))):
        raise _build_damage_error(f"the scales of tensor {name} do not match its shape")
    zero_points = np.broadcast_to(zeros, scales.shape).astype(np.int64)
    return Quantization(scales=scales, zero_points=zero_points, axis=axis)


def _read_operator(file: _File, table: Any, tensors: list[Tensor], op_types: Sequence[str]) -> Op:  # noqa: ANN401
    inputs = file.read_elements(table.InputsLength(), table.Inputs)
    return Op(
        op_type=op_types[table.OpcodeIndex()],
        inputs=[None if i == -1 else _get_tensor(tensors, i) for i in inputs],
        outputs=[
            _get_tensor(tensors, i)
            for i in file.read_elements(table.OutputsLength(), table.Outputs)
        ],
        options=_read_options(file, table, tensors, op_types[table.OpcodeIndex()]),
    )


def _read_options(file: _File, table: Any, tensors: list[Tensor], op_type: str) -> dict[str, Any]:  # noqa: ANN401
    options: dict[str, Any] = {}
    if table.BuiltinOptions() is not None:
        _check_options(op_type, 0, table.BuiltinOptionsType())
        options = unpack_options(0, table.BuiltinOptionsType(), table.BuiltinOptions())
    elif table.BuiltinOptions2() is not None:
        _check_options(op_type, 1, table.BuiltinOptions2Type())
        options = unpack_options(1, table.BuiltinOptions2Type(), table.BuiltinOptions2())
    if op_type.startswith("CUSTOM:"):
        options["custom_options"] = _read_custom_options(file, table)
    if table.IntermediatesLength():
        inside = file.read_elements(table.IntermediatesLength(), table.Intermediates)
        options["intermediates"] = [_get_tensor(tensors, i) for i in inside]
    return options


def _check_options(op_type: str, union: int, number: int) -> None:
    """Refuse options of another operator: LiteRT ignores them, so its output is undefined."""
    expected_union, expected_number = find_union(op_type)
    if expected_union is not None and (expected_union, expected_number) != (union, number):
        raise _build_damage_error(f"the options of {op_type} belong to another operator")


def _read_custom_options(file: _File, table: Any) -> bytes:  # noqa: ANN401 - generated types
    start, size = table.LargeCustomOptionsOffset(), table.LargeCustomOptionsSize()
    if start > 1:
        if start + size > len(file.data):
            raise _build_damage_error("the options of an operator are outside the file")
        return file.data[start : start + size]
    length = table.CustomOptionsLength()
    return bytes(table.CustomOptionsAsNumpy()) if length else b""


def _get_tensor(tensors: Sequence[Tensor], index: int) -> Tensor:
    if not 0 <= index < len(tensors):
        raise _build_damage_error(f"there is no tensor {index}")
    return tensors[index]


def _read_signature(
    file: _File, inputs: list[int], outputs: list[int]
) -> tuple[dict[str, int], dict[str, int]] | None:
    """Read tensor indices by name from the first signature that covers the inputs."""
    model = file.model
    signatures = file.read_elements(model.SignatureDefsLength(), model.SignatureDefs)
    for one in (s for s in signatures if s.SubgraphIndex() == 0):
        inputs_by_name = file.read_elements(one.InputsLength(), one.Inputs)
        if sorted(t.TensorIndex() for t in inputs_by_name) == sorted(inputs):
            outputs_by_name = file.read_elements(one.OutputsLength(), one.Outputs)
            return _sort_signature(inputs_by_name, inputs), _sort_signature(
                outputs_by_name, outputs
            )
    return None


def _sort_signature(maps: Sequence[Any], order: list[int]) -> dict[str, int]:
    """Sort a signature's tensor indices in the graph's order; a signature's own is arbitrary."""
    pairs = sorted((_decode_text(t.Name()), t.TensorIndex()) for t in maps)
    return dict(sorted(pairs, key=lambda pair: order.index(pair[1])))


def _name_by_tensors(indices: list[int], tensors: list[Tensor], main: bool) -> dict[str, int]:
    """Name inputs or outputs by their tensors; equal names in subgraphs get a number."""
    named: dict[str, int] = {}
    for i in indices:
        name = _strip_serving_prefix(_get_tensor(tensors, i).name)
        if name in named and main:
            raise UserError(f"two inputs or outputs are named {name}")
        named[f"{name}:{len(named)}" if name in named else name] = i
    return named


def _strip_serving_prefix(name: str) -> str:
    start = len("serving_default_") if name.startswith("serving_default_") else 0
    return name[start:-2] if name.endswith(":0") else name[start:]


def _check_order(graph: LiteGraph) -> None:
    """Check that operators read only tensors computed before; give empty constants a value."""
    computed = {id(t) for op in graph.ops for t in op.outputs}
    available = {id(t) for t in graph.inputs.values()}
    for op in graph.ops:
        for tensor in (t for t in op.inputs if t is not None):
            if 0 in tensor.shape and id(tensor) not in computed | available:
                tensor.data = decode_constant(memoryview(b""), tensor.dtype, tensor.shape)
            if not (id(tensor) in available or tensor.is_constant or tensor.is_variable):
                raise _build_damage_error(f"{op.op_type} reads {tensor.name} before it is computed")
        available |= {id(t) for t in op.outputs}
