"""Op versions: the version of an operator that its types, shapes and options require."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.tflite.ir import Op
from edgekit.tflite.op_usage import OpUse

_Rule = Callable[[OpUse], int]


def get_version(op: Op) -> int:
    """Return the lowest op version that supports an operator's types, ranks, options and scales.

    Source: TensorFlow, ``lite/tools/versioning/op_version.cc``.
    """
    use = OpUse(op)
    if op.op_type in _RULES:
        return _RULES[op.op_type](use)
    versions = _BY_TYPE.get(op.op_type, {})
    return versions.get(use.type(0) or "", versions.get("", 1))


def _has_narrow_bias(use: OpUse) -> bool:
    # Kernels of 16-bit activations took only a 64-bit bias before this option existed.
    return bool(use.option("quantized_bias_type", "float32") == "int32")


def _conv(use: OpUse) -> int:
    types = use.types
    if types == ("int16", "int8") and _has_narrow_bias(use):
        return 8
    source, weight = use.op.inputs[0], use.op.inputs[1]
    if source is not None and weight is not None and source.shape[-1:] != weight.shape[-1:]:
        return 6
    if use.hybrid:
        return 5 if use.scales(1) > 1 else 2
    return {("int16", "int8"): 4, ("int8", "int8"): 3, ("int8", "int4"): 7}.get(types, 1)


def _depthwise(use: OpUse) -> int:
    if use.hybrid:
        return 6 if use.scales(1) > 1 else 4
    versions = {("int16", "int8"): 5, ("int8", "int8"): 3, ("int8", "int4"): 7}
    dilated = use.option("dilation_w_factor", 1) != 1 or use.option("dilation_h_factor", 1) != 1
    return versions.get(use.types, 2 if dilated else 1)


def _dense(use: OpUse) -> int:
    types = use.types
    if use.hybrid and use.scales(1) > 1:
        return 12
    if types == ("int16", "int8"):
        return 11 if _has_narrow_bias(use) else 7
    if types == ("int8", "int4"):
        return 10
    rules = [
        (use.hybrid and use.option("asymmetric_quantize_inputs"), 9),
        (len(use.op.inputs) == 2, 6),
        (use.option("keep_num_dims"), 5),
        (types == ("int8", "int8"), 4),
        (use.hybrid, 3),
        (use.option("weights_format", "DEFAULT") != "DEFAULT", 2),
    ]
    return next((version for holds, version in rules if holds), 1)


def _transpose_conv(use: OpUse) -> int:
    sixteen = use.type(2) == "int16"
    if sixteen and _has_narrow_bias(use):
        return 5
    if use.option("fused_activation_function", "NONE") != "NONE":
        return 4
    if use.type(3) is not None:
        return 3
    return 2 if use.type(1) == "int8" else 1


def _gather(use: OpUse) -> int:
    if use.type(0) == "int4":
        return 7
    if use.type(1) == "int16":
        return 6
    if use.option("batch_dims", 0):
        return 5
    return {"int16": 4, "bool": 3, "int8": 2}.get(use.type(0) or "", 1)


def _gather_nd(use: OpUse) -> int:
    if use.type(1) == "int16" and use.type(0) != "bool":
        return 4
    return {"bool": 5, "int16": 3, "string": 2}.get(use.type(0) or "", 1)


def _mul(use: OpUse) -> int:
    dtype = use.type(0)
    if dtype == "int16":
        return 4 if use.scales(0) else 7
    if dtype in ("uint32", "complex64", "int64"):
        return {"uint32": 7, "complex64": 6, "int64": 5}[dtype]
    ends = [t.quantization for t in (*use.inputs[:2], *use.op.outputs[:1])]
    scales = [float(q.scales[0]) for q in ends if q is not None]
    if len(scales) == 3 and all(scales) and scales[0] * scales[1] / scales[2] >= 1.0:
        return 3
    return 2 if dtype == "int8" else 1


def _add(use: OpUse) -> int:
    if use.type(0) == "int16":
        if not use.scales(0):
            return 5
        return 1 if use.option("pot_scale_int16", True) else 3
    return {"int64": 4, "int8": 2}.get(use.type(0) or "", 1)


def _sub(use: OpUse) -> int:
    if use.type(0) == "int16" and not use.option("pot_scale_int16", True):
        return 5
    if use.type(0) == "int64":
        return 4
    if use.broadcasts and use.rank > 4:
        return 3
    return 2 if use.type(0) == "int8" else 1


def _extreme(use: OpUse) -> int:
    if use.type(0) == "int16":
        return 4
    if use.broadcasts and use.rank > 4:
        return 3
    return 2 if use.type(0) == "int8" else 1


def _div(use: OpUse) -> int:
    return 2 if use.broadcasts and use.rank > 4 else 1


def _transpose(use: OpUse) -> int:
    if use.rank > 5:
        return 6
    if use.type(0) == "int16":
        return 5
    if use.rank > 4:
        return 4
    return {"bool": 3, "int8": 2}.get(use.type(0) or "", 1)


def _slice(use: OpUse) -> int:
    if use.type(0) == "uint32":
        return 6
    if use.rank > 4:
        return 5
    return {"int16": 4, "string": 3, "int8": 2}.get(use.type(0) or "", 1)


def _strided_slice(use: OpUse) -> int:
    if use.option("offset"):
        return 8
    if use.type(0) == "uint32":
        return 7
    if use.option("ellipsis_mask", 0) or use.option("new_axis_mask", 0):
        return 6
    if use.rank > 4 and use.type(0) != "string":
        return 4
    return {"string": 5, "bool": 3, "int8": 2}.get(use.type(0) or "", 1)


def _pad(use: OpUse) -> int:
    if use.rank > 4:
        return 4
    return {"int16": 3, "int8": 2}.get(use.type(0) or "", 1)


def _space(use: OpUse) -> int:
    if use.type(0) == "int16":
        return 4
    if use.inputs and len(use.inputs[0].shape) != 4:
        return 3
    return 2 if use.type(0) == "int8" else 1


def _resize(use: OpUse) -> int:
    if use.type(0) == "int16":
        return 4
    nearest = use.op.op_type == "RESIZE_NEAREST_NEIGHBOR"
    if use.option("half_pixel_centers") or (nearest and use.option("align_corners")):
        return 3
    return 2 if use.type(0) == "int8" else 1


def _split(use: OpUse) -> int:
    return {"int16": 4, "int32": 3, "int8": 2}.get(use.type(1) or "", 1)


def _fill(use: OpUse) -> int:
    versions = {"float16": 4, "int8": 3, "int16": 3, "bool": 2, "string": 2}
    return versions.get(use.type(1) or "", 1)


def _select(use: OpUse) -> int:
    if use.type(0) == "uint32":
        return 4
    if use.rank == 5:
        return 3
    return 2 if use.type(0) == "int8" else 1


def _cast(use: OpUse) -> int:
    both = {use.type(0), use.out}
    versions = {"bfloat16": 7, "int4": 6, "float64": 5, "float16": 5, "uint16": 4, "int8": 3}
    versions["uint32"] = 2
    return max((versions.get(dtype or "", 1) for dtype in both), default=1)


def _quantize(use: OpUse) -> int:
    if "int4" in (use.type(0), use.out):
        return 4
    parameters = use.op.outputs[0].quantization
    if parameters is not None and len(parameters.scales) > 1:
        return 3
    return 2 if use.out == "int16" else 1


def _dequantize(use: OpUse) -> int:
    if use.type(0) == "int8" and use.scales(0) > 1:
        return 5
    return {"int4": 6, "int16": 3, "float16": 3, "int8": 2}.get(use.type(0) or "", 1)


def _abs(use: OpUse) -> int:
    if use.type(0) == "int16":
        return 3 if use.scales(0) else 4
    return {"int32": 5, "int8": 2, "uint8": 2}.get(use.type(0) or "", 1)


def _topk(use: OpUse) -> int:
    if "int16" in (use.type(0), use.type(1), *(t.dtype for t in use.op.outputs[1:])):
        return 3
    return 2 if use.type(0) == "int8" else 1


def _batch_matmul(use: OpUse) -> int:
    if use.hybrid and use.option("asymmetric_quantize_inputs"):
        return 4
    return {"int16": 3, "int8": 2}.get(use.type(0) or "", 1)


def _lstm(use: OpUse) -> int:
    weights = use.type(2)
    if use.option("kernel_type", "FULL") == "BASIC":
        return 2
    if (use.type(0), weights) == ("int16", "int8"):
        return 5
    if (use.type(0), weights) == ("float32", "int8"):
        return 4 if use.option("asymmetric_quantize_inputs") else 3
    return 1


def _sequence_lstm(use: OpUse) -> int:
    if (use.type(0), use.type(2)) == ("int16", "int8"):
        return 5
    if use.option("diagonal_recurrent_tensors"):
        return 4
    if (use.type(0), use.type(2)) == ("float32", "int8"):
        return 3 if use.option("asymmetric_quantize_inputs") else 2
    return 1


def _rnn(use: OpUse) -> int:
    if (use.type(1), use.out) != ("int8", "float32"):
        return 1
    return 3 if use.option("asymmetric_quantize_inputs") else 2


def _both_lstm(use: OpUse) -> int:
    return 3 if use.hybrid and use.option("asymmetric_quantize_inputs") else 1


def _svdf(use: OpUse) -> int:
    if use.hybrid:
        return 4 if use.option("asymmetric_quantize_inputs") else 2
    return 3 if use.type(0) == "int8" else 1


def _sparse_to_dense(use: OpUse) -> int:
    return {"int8": 3, "uint8": 3, "int64": 2}.get(use.type(2) or "", 1)


def _fake_quant(use: OpUse) -> int:
    return 2 if use.option("narrow_range") else 1


def _l2_norm(use: OpUse) -> int:
    return 2 if use.out == "int8" else 1


_RULES: dict[str, _Rule] = {
    "ABS": _abs, "ADD": _add, "BATCH_MATMUL": _batch_matmul, "BATCH_TO_SPACE_ND": _space,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _both_lstm, "BIDIRECTIONAL_SEQUENCE_RNN": _rnn, "CAST": _cast,
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "DEQUANTIZE": _dequantize, "DIV": _div,
    "FAKE_QUANT": _fake_quant, "FILL": _fill, "FULLY_CONNECTED": _dense, "GATHER": _gather,
    "GATHER_ND": _gather_nd, "L2_NORMALIZATION": _l2_norm, "LSTM": _lstm, "MAXIMUM": _extreme,
    "MINIMUM": _extreme, "MUL": _mul, "PAD": _pad, "PADV2": _pad, "QUANTIZE": _quantize,
    "RESIZE_BILINEAR": _resize, "RESIZE_NEAREST_NEIGHBOR": _resize, "RNN": _rnn,
    "SELECT": _select, "SLICE": _slice, "SPACE_TO_BATCH_ND": _space,
    "SPARSE_TO_DENSE": _sparse_to_dense, "SPLIT": _split, "STRIDED_SLICE": _strided_slice,
    "SUB": _sub, "SVDF": _svdf, "TOPK_V2": _topk, "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv, "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _rnn,
}  # fmt: skip

_INT8 = {"int8": 2}
_INT8_16 = {"int8": 2, "int16": 3}
# Operators whose version depends on the type of the first input alone; "" is any other type.
_BY_TYPE: dict[str, dict[str, int]] = {
    "ARG_MAX": {"bool": 3, "int8": 2},
    "ARG_MIN": {"bool": 3, "int8": 2},
    "AVERAGE_POOL_2D": _INT8_16,
    "BROADCAST_TO": {"int8": 3, "int16": 3, "": 2},
    "CONCATENATION": {"uint32": 4, "int16": 3, "int8": 2},
    "DEPTH_TO_SPACE": _INT8,
    "EQUAL": {"int16": 4, "string": 3, "int8": 2},
    "EXP": {"int8": 2, "int16": 2},
    "FLOOR_DIV": {"int16": 3, "int8": 3, "float32": 2},
    "FLOOR_MOD": {"int16": 2, "int8": 2},
    "GELU": {"int8": 2, "uint8": 2},
    "GREATER": _INT8,
    "GREATER_EQUAL": _INT8_16,
    "LEAKY_RELU": {"int16": 2},
    "LESS": _INT8_16,
    "LESS_EQUAL": _INT8,
    "LOG": {"int8": 2, "int16": 2},
    "LOGISTIC": _INT8_16,
    "LOG_SOFTMAX": _INT8,
    "MAX_POOL_2D": _INT8_16,
    "MEAN": _INT8_16,
    "MIRROR_PAD": _INT8_16,
    "NOT_EQUAL": {"string": 3, "int8": 2},
    "PACK": {"int8": 2, "int16": 3, "uint32": 4},
    "RANGE": {"int64": 2},
    "REDUCE_MAX": _INT8_16,
    "REDUCE_MIN": _INT8_16,
    "REDUCE_PROD": {"int8": 2, "int16": 2},
    "RELU": {"int16": 3, "int8": 2, "uint8": 2},
    "RELU6": _INT8_16,
    "REVERSE_V2": {"int8": 3, "bool": 2},
    "RSQRT": _INT8_16,
    "SELECT_V2": {"uint32": 2},
    "SIGN": {"int32": 2},
    "SOFTMAX": _INT8_16,
    "SPACE_TO_DEPTH": _INT8,
    "SPLIT_V": _INT8,
    "SQUARED_DIFFERENCE": _INT8,
    "SQUEEZE": {"string": 2},
    "SUM": _INT8,
    "TANH": _INT8_16,
    "TILE": {"int8": 3, "string": 2},
    "UNPACK": {"int8": 2, "uint8": 2, "bool": 3, "int16": 4},
    "WHERE": {"bool": 1, "": 2},
}
