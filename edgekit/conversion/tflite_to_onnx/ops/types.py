"""Conversion rules of CAST, QUANTIZE and DEQUANTIZE."""

from __future__ import annotations

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_inner_type, get_quantization
from edgekit.tflite.ir import Op


def dequantize(lifting: Lifting, op: Op) -> None:
    """Convert DEQUANTIZE to its input: quantized and float16 tensors are read as float32 anyway."""
    lifting.bind_same(op, lifting.tensor(op, 0))


def quantize(lifting: Lifting, op: Op) -> None:
    """Convert QUANTIZE from floats or from integers of another scale."""
    order = lifting.order(op, 0)
    lifting.bind(op, lifting.read(lifting.tensor(op, 0), order), order)


def cast(lifting: Lifting, op: Op) -> None:
    """Convert CAST.

    Raises:
        PassRefused: the input or the output is quantized; CAST would ignore its scale.
    """
    x, made, order = lifting.tensor(op, 0), op.outputs[0], lifting.order(op, 0)
    if get_quantization(x) is not None or get_quantization(made) is not None:
        raise lifting.refusal(
            op, "casts quantized values without applying their scale, which is not supported"
        )
    name = lifting.read(x, order)
    dtype = get_inner_type(made)
    lifting.bind(op, name if get_inner_type(x) == dtype else lifting.cast(name, dtype), order)


LIFTS: dict[str, Rule] = {"CAST": cast, "DEQUANTIZE": dequantize, "QUANTIZE": quantize}
