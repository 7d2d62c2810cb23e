"""Operators that only move entries, run in types that their kernels support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.errors import PassRefused
from edgekit.tflite.ir import Shape, Tensor

_NUMBERS = frozenset({"float32", "int8", "uint8", "int16", "int32", "int64"})
_AND_BOOL = _NUMBERS | {"bool"}
# Types that both LiteRT 2 and tflite-runtime 2.14 support.
_TAKEN: dict[str, frozenset[str]] = {
    "BROADCAST_TO": _AND_BOOL,
    "CONCATENATION": _AND_BOOL,
    "DEPTH_TO_SPACE": frozenset({"float32", "int8", "uint8", "int32", "int64"}),
    "GATHER": _AND_BOOL,
    "GATHER_ND": frozenset({"float32", "int8", "uint8", "int16", "int32", "int64"}),
    "MIRROR_PAD": frozenset({"float32", "int8", "uint8", "int32", "int64"}),
    "PACK": frozenset({"float32", "int8", "uint8", "int16", "int32", "int64"}),
    "PADV2": frozenset({"float32", "int8", "uint8", "int32", "int64"}),
    "PAD": frozenset({"float32", "int8", "uint8", "int16", "int32", "int64"}),
    "REVERSE_SEQUENCE": frozenset({"float32", "uint8", "int16", "int32", "int64"}),
    "REVERSE_V2": frozenset({"float32", "uint8", "int8", "int16", "int32", "int64", "bool"}),
    "SCATTER_ND": frozenset({"float32", "int8", "uint8", "int32", "int64", "bool"}),
    "SELECT_V2": frozenset({"float32", "int8", "uint8", "int16", "int32", "int64", "bool"}),
    "SLICE": _AND_BOOL,
    "SPACE_TO_DEPTH": frozenset({"float32", "int8", "uint8", "int32", "int64"}),
    "SPLIT": _NUMBERS,
    "SPLIT_V": _NUMBERS,
    "STRIDED_SLICE": _AND_BOOL,
    "TILE": frozenset({"float32", "int8", "uint8", "int32", "int64", "bool"}),
}
# Types that hold every value of a type, in order of preference.
_HOLDS: dict[str, tuple[str, ...]] = {
    "bool": ("uint8", "int8", "int32"),
    "int8": ("int16", "int32"),
    "uint8": ("int16", "int32"),
    "int16": ("int32",),
    "uint16": ("int32",),
    "uint32": ("int64",),
    "float16": ("float32",),
}


def emit_move(
    builder: TfliteGraphBuilder,
    op_type: str,
    inputs: Sequence[Tensor | None],
    shape: Shape,
    *,
    data: Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Add an operator of one output that only moves entries; return the output.

    Args:
        builder: receives the operators.
        op_type: TFLite operator type.
        inputs: in the operator's order.
        shape: of the output, in storage order.
        data: positions of the inputs whose entries are moved; all have the type of the output.
        options: as ``Op.options``.

    Raises:
        PassRefused: no kernel takes the type, or a type that holds all its values.
    """
    dtype = _dtype(inputs, data[0])
    working = working_type(op_type, dtype)
    operands = [
        builder.cast(t, working) if position in data and t is not None else t
        for position, t in enumerate(inputs)
    ]
    result = builder.emit(op_type, operands, shape, dtype=working, options=options)
    if dtype == working and (first := inputs[data[0]]) is not None:
        result.quantization = first.quantization
    return builder.cast(result, dtype)


def working_type(op_type: str, dtype: str) -> str:
    """Return the type in which an operator moves values of a type.

    Args:
        op_type: TFLite operator type.
        dtype: of the values.

    Raises:
        PassRefused: no kernel takes the type, or a type that holds all its values.
    """
    for candidate in (dtype, *_HOLDS.get(dtype, ())):
        if candidate in _TAKEN[op_type]:
            return candidate
    raise PassRefused(
        f"has {dtype} values, which TFLite's {op_type} does not support",
        hint="export the model with float32 or int64 values there",
    )


def _dtype(inputs: Sequence[Tensor | None], position: int) -> str:
    tensor = inputs[position]
    if tensor is None:
        raise ValueError(f"input {position} is absent")
    return tensor.dtype
