"""Conversion rules of matrix products."""

from __future__ import annotations

from edgekit.conversion.onnx_to_tflite.layout import Order, plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_quantization
from edgekit.tflite.ir import Op, Tensor


def fully_connected(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert FULLY_CONNECTED with weights [out, in] to MatMul or Gemm.

    MatMul is used for float outputs that keep the rank (3 or more) of the input. Otherwise the
    input is reshaped to a matrix for Gemm.
    """
    x, weights = builder.tensor(op, 0), builder.tensor(op, 1)
    bias = builder.bias(op, 2, [x, weights])
    result = op.outputs[0]
    keeps = len(result.shape) > 2 and len(x.shape) == len(result.shape)
    if keeps and get_quantization(result) is None:
        name = builder.node("MatMul", [builder.read(x), builder.weights(op, 1, (1, 0))])
        builder.bind(op, builder.node("Add", [name, bias]) if bias else name)
        return
    inputs = [_to_matrix(builder, x, weights.shape[1]), builder.weights(op, 1)]
    name = builder.node("Gemm", [*inputs, bias] if bias else inputs, {"transB": 1})
    if len(result.shape) != 2:
        name = builder.node("Reshape", [name, _output_shape(builder, x, result)])
    builder.bind(op, name)


def _to_matrix(builder: OnnxGraphBuilder, x: Tensor, depth: int) -> str:
    name = builder.read(x)
    if len(x.shape) == 2 and x.shape[1] == depth:
        return name
    return builder.reshape(name, (-1, depth), quantized_like=x)


def _output_shape(builder: OnnxGraphBuilder, x: Tensor, result: Tensor) -> str:
    """Return the shape of the output: a constant, or computed where sizes are not known."""
    shape = builder.shape(result)
    if min(shape[1:], default=1) >= 0:
        return builder.ints(-1, *shape[1:]) if shape else builder.ints()
    sizes = builder.node("Shape", [builder.read(x)])
    front = builder.node("Slice", [sizes, builder.ints(0), builder.ints(-1)])
    return builder.node("Concat", [front, builder.ints(shape[-1])], {"axis": 0})


def batch_matmul(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert BATCH_MATMUL to MatMul; either operand may have its last two axes swapped."""
    sides = [
        (0, op.options.get("adj_x", op.options.get("adjoint_lhs", False))),
        (1, op.options.get("adj_y", op.options.get("adjoint_rhs", False))),
    ]
    inputs = []
    for position, turned in sides:
        order = _matrix_order(builder.tensor(op, position), turned)
        inputs.append(builder.weights(op, position, order))
    builder.bind(op, builder.node("MatMul", inputs))


def _matrix_order(tensor: Tensor, turned: bool) -> Order:
    order = plain_order(len(tensor.shape))
    return (*order[:-2], order[-1], order[-2]) if turned else order


RULES = {"BATCH_MATMUL": batch_matmul, "FULLY_CONNECTED": fully_connected}
