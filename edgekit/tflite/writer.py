"""Writer of .tflite files: compact and reproducible to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError, make_missing_extra_error
from edgekit.tflite.buffers import count_stored_bytes, encode_constant
from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor
from edgekit.tflite.op_versions import get_version
from edgekit.tflite.schema import OP_CODES, TYPES, find_union, pack_options, tables

try:
    import flatbuffers
except ImportError as error:
    raise make_missing_extra_error("flatbuffers", "litert") from error

_ALIGNMENT_BYTES = 16  # force_align of the schema, which its Python code ignores
_LIMIT_BYTES = 2**31 - 2**16  # a flatbuffer cannot exceed 2 GiB
_LAST_OLD_CODE = 127  # value of the deprecated 8-bit field for newer operators


def write_lite(graph: LiteGraph, *, signature: str = "serving_default") -> bytes:
    """Write a graph as the bytes of a .tflite file.

    Equal parts are stored once: constants, and tables of tensors and of options. Inputs and outputs
    keep their names. Other tensors lose theirs, which would be a third of a small model's file.
    Runtimes report inputs and outputs in alphabetical order, so callers must feed them by name.
    Every operator gets the lowest op version that supports it (``version_rules``), so that old
    runtimes accept the file.

    Args:
        graph: Subgraphs of any depth are listed in ``graph.inner``.
        signature: Key of the signature that names inputs and outputs.

    Raises:
        UserError: The schema lacks an operator, option or type, or the file would exceed 2 GiB.
    """
    file = _File(builder=flatbuffers.Builder(1024))
    file.buffers.append(file.table("Buffer"))  # index 0 means no value
    subgraphs = [_write_subgraph(file, one, named=one is graph) for one in (graph, *graph.inner)]
    names = _write_signature(file, graph, signature)
    model = file.table(
        "Model",
        OperatorCodes=file.vector([_write_code(file, *code) for code in file.codes]),
        Subgraphs=file.vector(subgraphs),
        Buffers=file.vector(file.buffers),
        SignatureDefs=file.vector([names]),
        Version=3,
    )
    file.builder.Finish(model, b"TFL3")
    return bytes(file.builder.Output())


@dataclass(kw_only=True, eq=False)
class _File:
    """A file being written, with the positions of its parts for reuse."""

    builder: Any
    codes: dict[tuple[str, int], int] = field(default_factory=dict)
    buffers: list[int] = field(default_factory=list)
    stored: dict[bytes, int] = field(default_factory=dict)
    placed: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def write_once(self, key: tuple[Any, ...], make: Callable[[], int]) -> int:
        """Return the position of a part, which is written only once for each key."""
        if key not in self.placed:
            self.placed[key] = make()
        return self.placed[key]

    def text(self, words: str) -> int:
        """Write a string and return its position."""
        return int(self.builder.CreateSharedString(words))

    def numbers(self, values: NDArray[Any]) -> int:
        """Write a vector of numbers and return its position."""
        key = (values.dtype.str, values.tobytes())
        return self.write_once(key, lambda: self.builder.CreateNumpyVector(values))

    def vector(self, offsets: Sequence[int]) -> int:
        """Write a vector of tables and return its position."""
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def table(self, name: str, **fields: int | None) -> int:
        """Write a table and return its position; fields that are ``None`` are left out."""
        getattr(tables, name + "Start")(self.builder)
        for key, value in fields.items():
            if value is not None:
                getattr(tables, f"{name}Add{key}")(self.builder, value)
        return int(getattr(tables, name + "End")(self.builder))

    def table_once(self, name: str, **fields: int | None) -> int:
        """Return the position of a table, which is written only once for equal fields."""
        key = (name, *fields.items())
        return self.write_once(key, lambda: self.table(name, **fields))


def _iter_tensors(graph: LiteGraph) -> Iterator[Tensor]:
    yield from graph.inputs.values()
    for op in graph.ops:
        inside = op.options.get("intermediates", ())
        yield from (t for t in (*op.inputs, *op.outputs, *inside) if t is not None)
    yield from graph.outputs.values()


def _number_tensors(graph: LiteGraph) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for tensor in _iter_tensors(graph):
        numbers.setdefault(id(tensor), len(numbers))
    return numbers


def _to_int32(values: Iterable[int]) -> NDArray[np.int32]:
    return np.fromiter(values, np.int32)


def _write_subgraph(file: _File, graph: LiteGraph, *, named: bool) -> int:
    numbers = _number_tensors(graph)
    names = _name_ends(graph) if named else {}
    distinct = {id(t): t for t in _iter_tensors(graph)}
    tensors = [_write_tensor(file, t, names.get(key)) for key, t in distinct.items()]
    operators = [_write_operator(file, op, numbers) for op in graph.ops]
    return file.table(
        "SubGraph",
        Tensors=file.vector(tensors),
        Inputs=file.numbers(_to_int32(numbers[id(t)] for t in graph.inputs.values())),
        Outputs=file.numbers(_to_int32(numbers[id(t)] for t in graph.outputs.values())),
        Operators=file.vector(operators),
    )


def _name_ends(graph: LiteGraph) -> dict[int, str]:
    ends = {id(t): name for name, t in graph.outputs.items()}
    return ends | {id(t): name for name, t in graph.inputs.items()}


def _write_tensor(file: _File, tensor: Tensor, name: str | None) -> int:
    if tensor.dtype not in TYPES:
        raise UserError(f"tensor {tensor.name}: TFLite has no type {tensor.dtype}")
    # A free size is 1 until the runtime resizes it; the shape signature records that it is free.
    fixed = tuple(max(1, d) if d < 0 else d for d in tensor.shape)
    return file.table_once(
        "Tensor",
        Name=None if name is None else file.text(name),
        Shape=file.numbers(_to_int32(fixed)) if fixed else None,
        ShapeSignature=file.numbers(_to_int32(tensor.shape)) if fixed != tensor.shape else None,
        Quantization=_write_quantization(file, tensor.quantization),
        Buffer=_write_buffer(file, tensor),
        Type=TYPES[tensor.dtype],
        IsVariable=tensor.is_variable,
        HasRank=not fixed,  # else a scalar looks like a tensor of unknown shape
    )


def _write_quantization(file: _File, quantization: Quantization | None) -> int | None:
    if quantization is None:
        return None
    scales = np.asarray(quantization.scales, np.float32)
    zeros = np.asarray(quantization.zero_points, np.int64)

    def make() -> int:
        return file.table(
            "QuantizationParameters",
            Scale=file.numbers(scales),
            ZeroPoint=file.numbers(zeros),
            QuantizedDimension=quantization.axis,
        )

    return file.write_once(("scales", scales.tobytes(), zeros.tobytes(), quantization.axis), make)


def _write_buffer(file: _File, tensor: Tensor) -> int:
    """Return the index of the buffer with a constant's bytes; 0 where there is no value."""
    if tensor.data is None:
        return 0
    b = file.builder
    if count_stored_bytes(tensor.dtype, tensor.shape) + b.Offset() > _LIMIT_BYTES:
        raise UserError(
            "the model is larger than 2 GiB, the limit of a TFLite file",
            hint="store its weights in fewer bits",
        )
    raw = encode_constant(tensor)
    key = hashlib.sha256(raw).digest()
    if key not in file.stored:
        b.StartVector(1, len(raw), _ALIGNMENT_BYTES)
        b.head -= len(raw)
        b.Bytes[b.head : b.head + len(raw)] = raw
        file.stored[key] = len(file.buffers)
        file.buffers.append(file.table("Buffer", Data=b.EndVector()))
    return file.stored[key]


def _write_operator(file: _File, op: Op, numbers: dict[int, int]) -> int:
    builtin = op.op_type in OP_CODES
    if not builtin and not op.op_type.startswith("CUSTOM:"):
        raise UserError(f"{op.origin or op.op_type}: TFLite has no operator {op.op_type}")
    code = file.codes.setdefault((op.op_type, get_version(op)), len(file.codes))
    offset = _write_options(file, op)
    union, number = find_union(op.op_type)
    inside = op.options.get("intermediates", ())
    return file.table(
        "Operator",
        Inputs=file.numbers(_to_int32(-1 if t is None else numbers[id(t)] for t in op.inputs)),
        Outputs=file.numbers(_to_int32(numbers[id(t)] for t in op.outputs)),
        Intermediates=file.numbers(_to_int32(numbers[id(t)] for t in inside)) if inside else None,
        CustomOptions=_write_bytes(file, op.options.get("custom_options")),
        BuiltinOptions=offset if union == 0 else None,
        BuiltinOptions2=offset if union == 1 else None,
        OpcodeIndex=code,
        BuiltinOptionsType=number if union == 0 else None,
        BuiltinOptions2Type=number if union == 1 else None,
    )


def _write_options(file: _File, op: Op) -> int | None:
    options = {k: v for k, v in op.options.items() if k not in ("custom_options", "intermediates")}
    table = pack_options(op.op_type, options)
    if table is None:
        return None
    values = (v.tolist() if isinstance(v, np.ndarray) else v for v in options.values())
    key = ("options", op.op_type, repr(list(zip(options, values, strict=True))))
    return file.write_once(key, lambda: int(table.Pack(file.builder)))


def _write_bytes(file: _File, raw: bytes | None) -> int | None:
    return int(file.builder.CreateByteVector(raw)) if raw else None


def _write_code(file: _File, op_type: str, version: int) -> int:
    custom = op_type.removeprefix("CUSTOM:") if op_type not in OP_CODES else None
    number = OP_CODES["CUSTOM"] if custom is not None else OP_CODES[op_type]
    return file.table(
        "OperatorCode",
        CustomCode=None if custom is None else file.text(custom),
        Version=version,
        BuiltinCode=number,
        DeprecatedBuiltinCode=min(number, _LAST_OLD_CODE),
    )


def _write_signature(file: _File, graph: LiteGraph, key: str) -> int:
    numbers = _number_tensors(graph)

    def side(named: Mapping[str, Tensor]) -> int:
        maps = [
            file.table("TensorMap", Name=file.text(name), TensorIndex=numbers[id(t)])
            for name, t in named.items()
        ]
        return file.vector(maps)

    return file.table(
        "SignatureDef",
        Inputs=side(graph.inputs),
        Outputs=side(graph.outputs),
        SignatureKey=file.text(key),
    )
