"""Operators, op versions and types that tflite-runtime 2.14 does not support."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.tflite.ir import LiteGraph, Op
from edgekit.tflite.op_usage import OpUse
from edgekit.tflite.op_versions import get_version

# The highest version of each operator that tflite-runtime 2.14.0 loads, found by loading files
# that hold one operator each; it agrees with lite/core/kernels/register.cc of TensorFlow 2.14.
_FIRST_ONLY = frozenset((
    "ADD_N", "ASSIGN_VARIABLE", "ATAN2", "BITCAST", "BITWISE_XOR", "BROADCAST_ARGS",
    "BUCKETIZE", "CALL_ONCE", "CEIL", "COMPLEX_ABS", "CONV_3D", "CONV_3D_TRANSPOSE", "COS",
    "CUMSUM", "DENSIFY", "DYNAMIC_UPDATE_SLICE", "ELU", "EMBEDDING_LOOKUP_SPARSE",
    "EXPAND_DIMS", "FLOOR", "HARD_SWISH", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT",
    "HASHTABLE_LOOKUP", "HASHTABLE_SIZE", "IF", "IMAG", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR",
    "LSH_PROJECTION", "MATRIX_DIAG", "MATRIX_SET_DIAG", "MULTINOMIAL", "NEG",
    "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "ONE_HOT", "POW", "PRELU",
    "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "RANK", "READ_VARIABLE", "REAL", "REDUCE_ALL",
    "REDUCE_ANY", "RELU_0_TO_1", "RELU_N1_TO_1", "RESHAPE", "REVERSE_SEQUENCE", "RFFT2D",
    "RIGHT_SHIFT", "ROUND", "SCATTER_ND", "SEGMENT_SUM", "SHAPE", "SIN", "SKIP_GRAM", "SQRT",
    "SQUARE", "UNIQUE", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_MIN", "UNSORTED_SEGMENT_PROD",
    "UNSORTED_SEGMENT_SUM", "VAR_HANDLE", "WHILE", "ZEROS_LIKE",
))  # fmt: skip
_HIGHEST = dict.fromkeys(_FIRST_ONLY, 1) | {
    "ABS": 5, "ADD": 5, "ARG_MAX": 3, "ARG_MIN": 3, "AVERAGE_POOL_2D": 3, "BATCH_MATMUL": 4,
    "BATCH_TO_SPACE_ND": 4, "BIDIRECTIONAL_SEQUENCE_LSTM": 3, "BIDIRECTIONAL_SEQUENCE_RNN": 3,
    "BROADCAST_TO": 3, "CAST": 5, "CONCATENATION": 4, "CONV_2D": 7, "DEPTHWISE_CONV_2D": 7,
    "DEPTH_TO_SPACE": 2, "DEQUANTIZE": 5, "DIV": 2, "EMBEDDING_LOOKUP": 3, "EQUAL": 4, "EXP": 2,
    "FAKE_QUANT": 2, "FILL": 4, "FLOOR_DIV": 3, "FLOOR_MOD": 2, "FULLY_CONNECTED": 10,
    "GATHER": 6, "GATHER_ND": 4, "GELU": 2, "GREATER": 2, "GREATER_EQUAL": 3,
    "L2_NORMALIZATION": 2, "LEAKY_RELU": 2, "LESS": 3, "LESS_EQUAL": 2, "LOGISTIC": 3,
    "LOG_SOFTMAX": 2, "LSTM": 4, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4,
    "MIRROR_PAD": 3, "MUL": 7, "NOT_EQUAL": 3, "PACK": 4, "PAD": 4, "PADV2": 4, "QUANTIZE": 3,
    "RANGE": 2, "REDUCE_MAX": 3, "REDUCE_MIN": 3, "REDUCE_PROD": 2, "RELU": 3, "RELU6": 3,
    "RESIZE_BILINEAR": 4, "RESIZE_NEAREST_NEIGHBOR": 4, "REVERSE_V2": 3, "RNN": 3, "RSQRT": 2,
    "SELECT": 4, "SELECT_V2": 2, "SIGN": 2, "SLICE": 6, "SOFTMAX": 3, "SPACE_TO_BATCH_ND": 4,
    "SPACE_TO_DEPTH": 2, "SPARSE_TO_DENSE": 3, "SPLIT": 4, "SPLIT_V": 2,
    "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2, "STRIDED_SLICE": 8, "SUB": 5, "SUM": 2, "SVDF": 4,
    "TANH": 3, "TILE": 3, "TOPK_V2": 3, "TRANSPOSE": 6, "TRANSPOSE_CONV": 4,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 4, "UNIDIRECTIONAL_SEQUENCE_RNN": 3, "UNPACK": 4,
    "WHERE": 2,
    "CUSTOM:AudioSpectrogram": 1, "CUSTOM:Mfcc": 1, "CUSTOM:TFLite_Detection_PostProcess": 1,
}  # fmt: skip
_LATER_TYPES = ("bfloat16", "int2", "uint4", "float8_e4m3fn", "float8_e5m2")
_INTEGERS = ("int8", "int16")


def list_version_conflicts(graph: LiteGraph) -> list[str]:
    """List the reasons why tflite-runtime 2.14 cannot run a graph; empty where it can."""
    lines = (
        line for one in (graph, *graph.inner) for op in one.ops for line in _iter_conflicts(op)
    )
    return list(dict.fromkeys(lines))


def _iter_conflicts(op: Op) -> Iterator[str]:
    op_type = op.op_type.removeprefix("CUSTOM:")
    location = f"{op_type} ({op.origin})" if op.origin else op_type
    highest, version = _HIGHEST.get(op.op_type), get_version(op)
    if highest is None:
        yield f"{location}: tflite-runtime 2.14 has no such operator"
    elif version > highest:
        yield f"{location}: version {version} is needed, tflite-runtime 2.14 has {highest}"
    use = OpUse(op)
    if op.op_type == "FULLY_CONNECTED" and use.type(0) in _INTEGERS and use.scales(1) > 1:
        yield (
            f"{location}: tflite-runtime 2.14 supports one scale for the weights, not "
            "one per channel"
        )
    tensors = [t for t in (*op.inputs, *op.outputs) if t is not None]
    for dtype in dict.fromkeys(t.dtype for t in tensors if t.dtype in _LATER_TYPES):
        yield f"{location}: tflite-runtime 2.14 has no type {dtype}"
