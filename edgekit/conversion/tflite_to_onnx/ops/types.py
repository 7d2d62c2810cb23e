"""Conversion rules of CAST, QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_inner_type, get_quantization
from edgekit.tflite.ir import Op


def dequantize(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert DEQUANTIZE to its input: quantized and float16 tensors are read as float32 anyway."""
    builder.bind_same(op, builder.tensor(op, 0))


def quantize(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert QUANTIZE from floats or from integers of another scale."""
    order = builder.order(op, 0)
    builder.bind(op, builder.read(builder.tensor(op, 0), order), order)


def cast(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert CAST.

    Raises:
        PassRefused: the input or the output is quantized; CAST would ignore its scale.
    """
    x, result, order = builder.tensor(op, 0), op.outputs[0], builder.order(op, 0)
    if get_quantization(x) is not None or get_quantization(result) is not None:
        raise builder.refusal(
            op, "casts quantized values without applying their scale, which is not supported"
        )
    name = builder.read(x, order)
    dtype = get_inner_type(result)
    builder.bind(op, name if get_inner_type(x) == dtype else builder.cast(name, dtype), order)


RULES: dict[str, Rule] = {"CAST": cast, "DEQUANTIZE": dequantize, "QUANTIZE": quantize}
