"""Conversion rules of matrix products."""

from __future__ import annotations

from edgekit.conversion.onnx_to_tflite.layout import Order, plain_order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_quantization
from edgekit.tflite.ir import Op, Tensor


def fully_connected(lifting: Lifting, op: Op) -> None:
    """Convert FULLY_CONNECTED with weights [out, in] to MatMul or Gemm.

    MatMul is used for float outputs that keep the rank (3 or more) of the input. Otherwise the
    input is reshaped to a matrix for Gemm.
    """
    x, weights = lifting.tensor(op, 0), lifting.tensor(op, 1)
    bias = lifting.bias(op, 2, [x, weights])
    made = op.outputs[0]
    keeps = len(made.shape) > 2 and len(x.shape) == len(made.shape)
    if keeps and get_quantization(made) is None:
        name = lifting.node("MatMul", [lifting.read(x), lifting.weights(op, 1, (1, 0))])
        lifting.bind(op, lifting.node("Add", [name, bias]) if bias else name)
        return
    inputs = [_to_matrix(lifting, x, weights.shape[1]), lifting.weights(op, 1)]
    name = lifting.node("Gemm", [*inputs, bias] if bias else inputs, {"transB": 1})
    if len(made.shape) != 2:
        name = lifting.node("Reshape", [name, _output_shape(lifting, x, made)])
    lifting.bind(op, name)


def _to_matrix(lifting: Lifting, x: Tensor, depth: int) -> str:
    name = lifting.read(x)
    if len(x.shape) == 2 and x.shape[1] == depth:
        return name
    return lifting.reshape(name, (-1, depth), like=x)


def _output_shape(lifting: Lifting, x: Tensor, made: Tensor) -> str:
    """Return the shape of the output: a constant, or computed where sizes are not known."""
    shape = lifting.shape(made)
    if min(shape[1:], default=1) >= 0:
        return lifting.ints(-1, *shape[1:]) if shape else lifting.ints()
    sizes = lifting.node("Shape", [lifting.read(x)])
    front = lifting.node("Slice", [sizes, lifting.ints(0), lifting.ints(-1)])
    return lifting.node("Concat", [front, lifting.ints(shape[-1])], {"axis": 0})


def batch_matmul(lifting: Lifting, op: Op) -> None:
    """Convert BATCH_MATMUL to MatMul; either operand may have its last two axes swapped."""
    sides = [
        (0, op.options.get("adj_x", op.options.get("adjoint_lhs", False))),
        (1, op.options.get("adj_y", op.options.get("adjoint_rhs", False))),
    ]
    inputs = []
    for position, turned in sides:
        order = _matrix_order(lifting.tensor(op, position), turned)
        inputs.append(lifting.weights(op, position, order))
    lifting.bind(op, lifting.node("MatMul", inputs))


def _matrix_order(tensor: Tensor, turned: bool) -> Order:
    order = plain_order(len(tensor.shape))
    return (*order[:-2], order[-1], order[-2]) if turned else order


LIFTS = {"BATCH_MATMUL": batch_matmul, "FULLY_CONNECTED": fully_connected}
