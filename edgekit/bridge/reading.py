"""Reader of .tflite files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.bridge.graph import LiteGraph, Op, Quantization, Shape, Tensor
from edgekit.bridge.schema import KIND_NAMES, TYPE_NAMES, tables, union_of, unpacked_options
from edgekit.bridge.stored import array_of
from edgekit.errors import UserError

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
        return _model(_File(data=data, model=tables.Model.GetRootAs(data), shapes=shapes or {}))
    except _DAMAGE as error:
        raise _damaged("it ends or points where it should not") from error


def _damaged(why: str) -> UserError:
    return UserError(f"the TFLite file is damaged: {why}", hint="fetch or export it again")


@dataclass(kw_only=True)
class _File:
    """A file being read; ``read`` counts the elements, so that a damaged file ends soon."""

    data: bytes
    model: Any
    shapes: Mapping[int, Shape] = field(default_factory=dict)
    read: int = field(default=0)

    def each(self, length: int, get: Callable[[int], Any]) -> list[Any]:
        """Return the elements of a vector.

        Raises:
            UserError: The vector claims more elements than a file of this size can hold.
        """
        self.read += length
        if self.read > 4 * len(self.data) + 65536:
            raise _damaged("it claims more parts than its size allows")
        return [get(i) for i in range(length)]

    def raw(self, number: int) -> memoryview:
        """Return the bytes of a buffer, inside the flatbuffer or behind it."""
        if number >= self.model.BuffersLength():
            raise _damaged(f"there is no buffer {number}")
        buffer = self.model.Buffers(number)
        if buffer.DataLength():
            return memoryview(buffer.DataAsNumpy())
        start, size = buffer.Offset(), buffer.Size()
        if start <= 1:
            return memoryview(b"")
        if start + size > len(self.data):
            raise _damaged(f"buffer {number} lies behind its end")
        return memoryview(self.data)[start : start + size]


def _model(file: _File) -> LiteGraph:
    if file.model.Version() != 3:
        raise UserError(f"TFLite schema version {file.model.Version()} is not supported")
    subgraphs = file.each(file.model.SubgraphsLength(), file.model.Subgraphs)
    if not subgraphs:
        raise _damaged("it holds no graph")
    codes = file.each(file.model.OperatorCodesLength(), file.model.OperatorCodes)
    kinds = [_kind(code) for code in codes]
    graph, *inner = (_graph(file, one, kinds, main=i == 0) for i, one in enumerate(subgraphs))
    graph.inner = inner
    return graph


def _kind(code: Any) -> str:  # noqa: ANN401 - generated types
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind = KIND_NAMES.get(number)
    if kind is None:
        raise UserError(f"unknown operator {number}", hint="the file is too new")
    return f"CUSTOM:{_text(code.CustomCode())}" if kind == "CUSTOM" else kind


def _text(name: bytes | None) -> str:
    """Return a name as LiteRT reads it, up to the first NUL."""
    return (name or b"").partition(b"\0")[0].decode()


def _graph(file: _File, subgraph: Any, kinds: Sequence[str], *, main: bool) -> LiteGraph:  # noqa: ANN401
    found = file.each(subgraph.TensorsLength(), subgraph.Tensors)
    tensors = [_tensor(file, one, i) for i, one in enumerate(found)]
    for i, shape in file.shapes.items() if main else ():
        if i < len(tensors) and not tensors[i].is_constant:
            tensors[i].shape = shape
    found = file.each(subgraph.OperatorsLength(), subgraph.Operators)
    ops = [_operator(file, one, tensors, kinds) for one in found]
    inputs = file.each(subgraph.InputsLength(), subgraph.Inputs)
    outputs = file.each(subgraph.OutputsLength(), subgraph.Outputs)
    named = _signature(file, inputs, outputs) if main else None
    sides = named or (_positional(inputs, tensors, main), _positional(outputs, tensors, main))
    ends = [{name: _at(tensors, i) for name, i in side.items()} for side in sides]
    graph = LiteGraph(ops=ops, inputs=ends[0], outputs=ends[1])
    _check_order(graph)
    return graph


def _tensor(file: _File, table: Any, index: int) -> Tensor:  # noqa: ANN401 - generated types
    name = _text(table.Name()) or f"tensor{index}"
    if table.Sparsity() is not None:
        raise UserError(f"tensor {name} is sparse", hint="export the model with dense weights")
    if table._tab.Offset(_EXTERNAL_BUFFER):
        raise UserError(f"the values of tensor {name} lie in another file")
    shape = _shape(file, table)
    tensor = Tensor(
        name=name,
        dtype=TYPE_NAMES[table.Type()],
        shape=shape,
        quantization=_quantization(table.Quantization(), name, shape),
        is_variable=bool(table.IsVariable()),
    )
    raw = file.raw(table.Buffer())
    if raw:
        try:
            tensor.data = array_of(raw, tensor.dtype, shape)
        except UserError as error:
            raise UserError(f"tensor {name}: {error.message}") from error
    return tensor


def _shape(file: _File, table: Any) -> Shape:  # noqa: ANN401 - generated types
    if max(table.ShapeLength(), table.ShapeSignatureLength()) > _RANK_LIMIT:
        raise _damaged("a tensor has too many axes")
    if table.ShapeSignatureLength():
        shape = file.each(table.ShapeSignatureLength(), table.ShapeSignature)
    else:
        shape = file.each(table.ShapeLength(), table.Shape)
    if min(shape, default=0) < -1:
        raise _damaged("a tensor has a negative size")
    return tuple(shape)


def _quantization(table: Any, name: str, shape: Shape) -> Quantization | None:  # noqa: ANN401
    if table is None:
        return None
    if table.DetailsType():
        raise UserError(f"tensor {name} is quantised in a way that is not supported")
    if not table.ScaleLength():
        return None
    scales = table.ScaleAsNumpy().astype(np.float32)
    zeros = table.ZeroPointAsNumpy() if table.ZeroPointLength() else np.zeros(1, np.int64)
    axis = table.QuantizedDimension() if len(scales) > 1 else 0
    if len(scales) > 1 and (axis not in range(len(shape)) or shape[axis] not in (-1, len(scales))):
        raise _damaged(f"the scales of tensor {name} don't fit its shape")
    zero_points = np.broadcast_to(zeros, scales.shape).astype(np.int64)
    return Quantization(scales=scales, zero_points=zero_points, axis=axis)


def _operator(file: _File, table: Any, tensors: list[Tensor], kinds: Sequence[str]) -> Op:  # noqa: ANN401
    inputs = file.each(table.InputsLength(), table.Inputs)
    return Op(
        kind=kinds[table.OpcodeIndex()],
        inputs=[None if i == -1 else _at(tensors, i) for i in inputs],
        outputs=[_at(tensors, i) for i in file.each(table.OutputsLength(), table.Outputs)],
        options=_options(file, table, tensors, kinds[table.OpcodeIndex()]),
    )


def _options(file: _File, table: Any, tensors: list[Tensor], kind: str) -> dict[str, Any]:  # noqa: ANN401
    options: dict[str, Any] = {}
    if table.BuiltinOptions() is not None:
        _check_options(kind, 0, table.BuiltinOptionsType())
        options = unpacked_options(0, table.BuiltinOptionsType(), table.BuiltinOptions())
    elif table.BuiltinOptions2() is not None:
        _check_options(kind, 1, table.BuiltinOptions2Type())
        options = unpacked_options(1, table.BuiltinOptions2Type(), table.BuiltinOptions2())
    if kind.startswith("CUSTOM:"):
        options["custom_options"] = _custom(file, table)
    if table.IntermediatesLength():
        inside = file.each(table.IntermediatesLength(), table.Intermediates)
        options["intermediates"] = [_at(tensors, i) for i in inside]
    return options


def _check_options(kind: str, union: int, number: int) -> None:
    """Refuse options of another operator: LiteRT ignores them, so its output is undefined."""
    place, own = union_of(kind)
    if place is not None and (place, own) != (union, number):
        raise _damaged(f"the options of {kind} are those of another operator")


def _custom(file: _File, table: Any) -> bytes:  # noqa: ANN401 - generated types
    start, size = table.LargeCustomOptionsOffset(), table.LargeCustomOptionsSize()
    if start > 1:
        if start + size > len(file.data):
            raise _damaged("options of an operator lie behind its end")
        return file.data[start : start + size]
    length = table.CustomOptionsLength()
    return bytes(table.CustomOptionsAsNumpy()) if length else b""


def _at(tensors: Sequence[Tensor], index: int) -> Tensor:
    if not 0 <= index < len(tensors):
        raise _damaged(f"there is no tensor {index}")
    return tensors[index]


def _signature(
    file: _File, inputs: list[int], outputs: list[int]
) -> tuple[dict[str, int], dict[str, int]] | None:
    """Read tensor indices by name from the first signature that covers the inputs."""
    model = file.model
    signatures = file.each(model.SignatureDefsLength(), model.SignatureDefs)
    for one in (s for s in signatures if s.SubgraphIndex() == 0):
        fed = file.each(one.InputsLength(), one.Inputs)
        if sorted(t.TensorIndex() for t in fed) == sorted(inputs):
            given = file.each(one.OutputsLength(), one.Outputs)
            return _in_order(fed, inputs), _in_order(given, outputs)
    return None


def _in_order(maps: Sequence[Any], places: list[int]) -> dict[str, int]:
    """Sort a signature's tensor indices in the graph's order; a signature's own is arbitrary."""
    pairs = sorted((_text(t.Name()), t.TensorIndex()) for t in maps)
    return dict(sorted(pairs, key=lambda pair: places.index(pair[1])))


def _positional(indices: list[int], tensors: list[Tensor], main: bool) -> dict[str, int]:
    """Name inputs or outputs by their tensors; equal names in subgraphs get a number."""
    named: dict[str, int] = {}
    for i in indices:
        name = _plain(_at(tensors, i).name)
        if name in named and main:
            raise UserError(f"two inputs or outputs are named {name}")
        named[f"{name}:{len(named)}" if name in named else name] = i
    return named


def _plain(name: str) -> str:
    start = len("serving_default_") if name.startswith("serving_default_") else 0
    return name[start:-2] if name.endswith(":0") else name[start:]


def _check_order(graph: LiteGraph) -> None:
    """Check that operators read only tensors computed before; give empty constants a value."""
    made = {id(t) for op in graph.ops for t in op.outputs}
    known = {id(t) for t in graph.inputs.values()}
    for op in graph.ops:
        for tensor in (t for t in op.inputs if t is not None):
            if 0 in tensor.shape and id(tensor) not in made | known:
                tensor.data = array_of(memoryview(b""), tensor.dtype, tensor.shape)
            if not (id(tensor) in known or tensor.is_constant or tensor.is_variable):
                raise _damaged(f"{op.kind} reads {tensor.name} before it is computed")
        known |= {id(t) for t in op.outputs}
