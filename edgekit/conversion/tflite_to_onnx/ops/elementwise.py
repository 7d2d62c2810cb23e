"""Conversion rules of element-wise operators: unary ones, and binary ones with broadcasting."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_inner_type
from edgekit.conversion.tflite_to_onnx.ops.activations import make_unary_rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def make_binary_rule(*op_types: str) -> Rule:
    """Make the rule of a binary operator with broadcasting.

    Args:
        *op_types: ONNX operator types; the first takes both inputs, each other one the last result.
    """
    return partial(_convert_binary, op_types=op_types)


def _convert_binary(builder: OnnxGraphBuilder, op: Op, *, op_types: tuple[str, ...]) -> None:
    inputs, order = align_inputs(builder, op, [0, 1])
    name = builder.node(op_types[0], inputs)
    for op_type in op_types[1:]:
        name = builder.node(op_type, [name])
    builder.bind(op, name, order)


def add_n(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert ADD_N to Sum."""
    inputs, order = align_inputs(builder, op, range(len(op.inputs)))
    builder.bind(op, builder.node("Sum", inputs), order)


def squared_difference(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SQUARED_DIFFERENCE to Sub and Mul."""
    inputs, order = align_inputs(builder, op, [0, 1])
    difference = builder.node("Sub", inputs)
    builder.bind(op, builder.node("Mul", [difference, difference]), order)


def square(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SQUARE to Mul."""
    order = builder.order(op, 0)
    x = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, builder.node("Mul", [x, x]), order)


def rsqrt(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RSQRT to Sqrt and Reciprocal."""
    order = builder.order(op, 0)
    root = builder.node("Sqrt", [builder.read(builder.tensor(op, 0), order)])
    builder.bind(op, builder.node("Reciprocal", [root]), order)


def floor_div(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert FLOOR_DIV to Div and Floor, for integers to Mod, Sub and Div.

    ONNX's Div of integers rounds towards zero. Without the remainder the division is exact.
    """
    (a, b), order = align_inputs(builder, op, [0, 1])
    quotient = builder.node("Div", [a, b])
    if builder.tensor(op, 0).dtype.startswith("float"):
        builder.bind(op, builder.node("Floor", [quotient]), order)
        return
    rest = builder.node("Mod", [a, b])
    exact = builder.node("Sub", [a, rest])
    builder.bind(op, builder.node("Div", [exact, b]), order)


def floor_mod(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert FLOOR_MOD, the remainder with the sign of the divisor, to Mod."""
    (a, b), order = align_inputs(builder, op, [0, 1])
    if not builder.tensor(op, 0).dtype.startswith("float"):
        builder.bind(op, builder.node("Mod", [a, b]), order)
        return
    zero = builder.numbers(np.zeros((), get_inner_type(builder.tensor(op, 0))))
    rest = builder.node("Mod", [a, b], {"fmod": 1})  # the result has the sign of the dividend
    signs = [builder.node("Less", [side, zero]) for side in (rest, b)]
    is_exact = builder.node("Equal", [rest, zero])
    is_other = builder.node("And", [builder.node("Xor", signs), builder.node("Not", [is_exact])])
    result = builder.node("Where", [is_other, builder.node("Add", [rest, b]), rest])
    builder.bind(op, result, order)


def zeros_like(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert ZEROS_LIKE to ConstantOfShape."""
    order = builder.order(op, 0)
    sizes = builder.node("Shape", [builder.read(builder.tensor(op, 0), order)])
    zeros = builder.node("ConstantOfShape", [sizes])
    dtype = get_inner_type(op.outputs[0])
    builder.bind(op, zeros if dtype == "float32" else builder.cast(zeros, dtype), order)


RULES: dict[str, Rule] = {
    "ABS": make_unary_rule("Abs"),
    "ADD": make_binary_rule("Add"),
    "ADD_N": add_n,
    "CEIL": make_unary_rule("Ceil"),
    "COS": make_unary_rule("Cos"),
    "DIV": make_binary_rule("Div"),
    "EQUAL": make_binary_rule("Equal"),
    "EXP": make_unary_rule("Exp"),
    "FLOOR": make_unary_rule("Floor"),
    "FLOOR_DIV": floor_div,
    "FLOOR_MOD": floor_mod,
    "GREATER": make_binary_rule("Greater"),
    "GREATER_EQUAL": make_binary_rule("GreaterOrEqual"),
    "LESS": make_binary_rule("Less"),
    "LESS_EQUAL": make_binary_rule("LessOrEqual"),
    "LOG": make_unary_rule("Log"),
    "LOGICAL_AND": make_binary_rule("And"),
    "LOGICAL_NOT": make_unary_rule("Not"),
    "LOGICAL_OR": make_binary_rule("Or"),
    "MAXIMUM": make_binary_rule("Max"),
    "MINIMUM": make_binary_rule("Min"),
    "MUL": make_binary_rule("Mul"),
    "NEG": make_unary_rule("Neg"),
    "NOT_EQUAL": make_binary_rule("Equal", "Not"),
    "POW": make_binary_rule("Pow"),
    "ROUND": make_unary_rule("Round"),
    "RSQRT": rsqrt,
    "SIGN": make_unary_rule("Sign"),
    "SIN": make_unary_rule("Sin"),
    "SQRT": make_unary_rule("Sqrt"),
    "SQUARE": square,
    "SQUARED_DIFFERENCE": squared_difference,
    "SUB": make_binary_rule("Sub"),
    "ZEROS_LIKE": zeros_like,
}
