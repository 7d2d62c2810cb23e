"""Names of the TensorFlow Lite schema: operators, types, and the options of every operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.errors import UserError, make_missing_extra_error

try:
    from ai_edge_litert import schema_py_generated
except ImportError as error:
    raise make_missing_extra_error("ai-edge-litert", "litert") from error

tables = schema_py_generated


def _read_enum(enum: type, *, lower: bool = False) -> dict[str, int]:
    words = {k: v for k, v in vars(enum).items() if not k.startswith("_")}
    return {k.lower(): v for k, v in words.items()} if lower else words


OP_CODES = _read_enum(tables.BuiltinOperator)
OP_NAMES = {number: name for name, number in OP_CODES.items()}
TYPES = _read_enum(tables.TensorType, lower=True)
TYPE_NAMES = {number: name for name, number in TYPES.items()}
UNIONS = (_read_enum(tables.BuiltinOptions), _read_enum(tables.BuiltinOptions2))
_UNION_NAMES = tuple({number: name for name, number in union.items()} for union in UNIONS)

# Options that are numbers in the file and names in the graph.
_ENUMS: dict[str, dict[str, int]] = {
    "padding": _read_enum(tables.Padding),
    "fused_activation_function": _read_enum(tables.ActivationFunctionType),
    "mode": _read_enum(tables.MirrorPadMode),
    "weights_format": _read_enum(tables.FullyConnectedOptionsWeightsFormat),
    "kernel_type": _read_enum(tables.LSTMKernelType),
    "combiner": _read_enum(tables.CombinerType),
    "in_data_type": TYPES,
    "out_data_type": TYPES,
    "output_type": TYPES,
    "out_type": TYPES,
    "idx_out_type": TYPES,
    "key_dtype": TYPES,
    "value_dtype": TYPES,
    "quantized_bias_type": TYPES,
}
_ENUM_NAMES = {key: {v: k for k, v in enum.items()} for key, enum in _ENUMS.items()}

# Operators whose options table is not named after them.
_TABLES = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "LSH_PROJECTION": "LSHProjectionOptions",
    "LSTM": "LSTMOptions",
    "RNN": "RNNOptions",
    "SVDF": "SVDFOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "BidirectionalSequenceLSTMOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
    "BIDIRECTIONAL_SEQUENCE_RNN": "BidirectionalSequenceRNNOptions",
    "RANDOM_STANDARD_NORMAL": "RandomOptions",
    "RANDOM_UNIFORM": "RandomOptions",
    "MULTINOMIAL": "RandomOptions",
    "STABLEHLO_COMPOSITE": "StableHLOCompositeOptions",
}


def find_options_table(op_type: str) -> str | None:
    """Return the name of the schema table with an operator's options; ``None`` without options."""
    name = _TABLES.get(op_type) or op_type.title().replace("_", "") + "Options"
    if not any(name in union for union in UNIONS):
        return None
    return name if vars(getattr(tables, name + "T")()) else None


def find_union(op_type: str) -> tuple[int | None, int]:
    """Return the union and the number of an operator's options table; ``None``, 0 without one."""
    name = find_options_table(op_type)
    for position, union in enumerate(UNIONS):
        if name in union:
            return position, union[name]
    return None, 0


def pack_options(op_type: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - generated types
    """Convert options to the schema's options object; ``None`` for operators without options.

    Raises:
        UserError: The schema has no such option or option value.
    """
    name = find_options_table(op_type)
    if name is None:
        if options:
            raise UserError(f"{op_type} has no option {', '.join(options)}")
        return None
    table = getattr(tables, name + "T")()
    for key, value in options.items():
        field = _to_camel(key)
        if not hasattr(table, field):
            raise UserError(f"{op_type} has no option {key}")
        setattr(table, field, _to_number(op_type, key, value))
    return table


def unpack_options(union: int, number: int, table: Any) -> dict[str, Any]:  # noqa: ANN401
    """Read the options of an operator by name, defaults of the schema included.

    Args:
        union: 0 for ``builtin_options`` of the file, 1 for ``builtin_options_2``.
        number: Number of the table within the union.
        table: Bytes and position of the table, as flatbuffers reads them.

    Raises:
        UserError: The schema has no such table or option.
    """
    name = _UNION_NAMES[union].get(number, "NONE")
    if name == "NONE":
        raise UserError(f"unknown operator options ({number})", hint="the file is too new")
    reader = getattr(tables, name)()
    reader.Init(table.Bytes, table.Pos)
    fields = vars(getattr(tables, name + "T").InitFromObj(reader))
    words = {_to_snake(field): value for field, value in fields.items() if value is not None}
    return {key: _to_word(name, key, value) for key, value in words.items()}


def _to_number(op_type: str, key: str, value: Any) -> Any:  # noqa: ANN401 - an option of any type
    if not isinstance(value, str) or key not in _ENUMS:
        return value
    if value not in _ENUMS[key]:
        raise UserError(f"{op_type}: {key} cannot be {value}")
    return _ENUMS[key][value]


def _to_word(name: str, key: str, value: Any) -> Any:  # noqa: ANN401 - an option of any type
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, (bool, int, float, str, list)):
        raise UserError(f"{name}: unknown value of {key}", hint="the file is too new")
    if isinstance(value, int) and not isinstance(value, bool) and key in _ENUM_NAMES:
        return _ENUM_NAMES[key][value]
    return value


def _to_camel(key: str) -> str:
    return re.sub(r"_(\w)", lambda m: m[1].upper(), key)


def _to_snake(field: str) -> str:
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), field)
