"""Conversion rules of element-wise operators: unary ones, and binary ones with broadcasting."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_inner_type
from edgekit.conversion.tflite_to_onnx.ops.activations import make_unary_rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def make_binary_rule(*kinds: str) -> Rule:
    """Make the rule of a binary operator with broadcasting.

    Args:
        *kinds: ONNX operator types; the first takes both inputs, each other one the last result.
    """
    return partial(_lift_binary, kinds=kinds)


def _lift_binary(lifting: Lifting, op: Op, *, kinds: tuple[str, ...]) -> None:
    inputs, order = align_inputs(lifting, op, [0, 1])
    name = lifting.node(kinds[0], inputs)
    for kind in kinds[1:]:
        name = lifting.node(kind, [name])
    lifting.bind(op, name, order)


def add_n(lifting: Lifting, op: Op) -> None:
    """Convert ADD_N to Sum."""
    inputs, order = align_inputs(lifting, op, range(len(op.inputs)))
    lifting.bind(op, lifting.node("Sum", inputs), order)


def squared_difference(lifting: Lifting, op: Op) -> None:
    """Convert SQUARED_DIFFERENCE to Sub and Mul."""
    inputs, order = align_inputs(lifting, op, [0, 1])
    difference = lifting.node("Sub", inputs)
    lifting.bind(op, lifting.node("Mul", [difference, difference]), order)


def square(lifting: Lifting, op: Op) -> None:
    """Convert SQUARE to Mul."""
    order = lifting.order(op, 0)
    x = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, lifting.node("Mul", [x, x]), order)


def rsqrt(lifting: Lifting, op: Op) -> None:
    """Convert RSQRT to Sqrt and Reciprocal."""
    order = lifting.order(op, 0)
    root = lifting.node("Sqrt", [lifting.read(lifting.tensor(op, 0), order)])
    lifting.bind(op, lifting.node("Reciprocal", [root]), order)


def floor_div(lifting: Lifting, op: Op) -> None:
    """Convert FLOOR_DIV to Div and Floor, for integers to Mod, Sub and Div.

    ONNX's Div of integers rounds towards zero. Without the remainder the division is exact.
    """
    (a, b), order = align_inputs(lifting, op, [0, 1])
    quotient = lifting.node("Div", [a, b])
    if lifting.tensor(op, 0).dtype.startswith("float"):
        lifting.bind(op, lifting.node("Floor", [quotient]), order)
        return
    rest = lifting.node("Mod", [a, b])
    exact = lifting.node("Sub", [a, rest])
    lifting.bind(op, lifting.node("Div", [exact, b]), order)


def floor_mod(lifting: Lifting, op: Op) -> None:
    """Convert FLOOR_MOD, the remainder with the sign of the divisor, to Mod."""
    (a, b), order = align_inputs(lifting, op, [0, 1])
    if not lifting.tensor(op, 0).dtype.startswith("float"):
        lifting.bind(op, lifting.node("Mod", [a, b]), order)
        return
    zero = lifting.numbers(np.zeros((), get_inner_type(lifting.tensor(op, 0))))
    rest = lifting.node("Mod", [a, b], {"fmod": 1})  # the result has the sign of the dividend
    signs = [lifting.node("Less", [side, zero]) for side in (rest, b)]
    is_exact = lifting.node("Equal", [rest, zero])
    is_other = lifting.node("And", [lifting.node("Xor", signs), lifting.node("Not", [is_exact])])
    made = lifting.node("Where", [is_other, lifting.node("Add", [rest, b]), rest])
    lifting.bind(op, made, order)


def zeros_like(lifting: Lifting, op: Op) -> None:
    """Convert ZEROS_LIKE to ConstantOfShape."""
    order = lifting.order(op, 0)
    sizes = lifting.node("Shape", [lifting.read(lifting.tensor(op, 0), order)])
    zeros = lifting.node("ConstantOfShape", [sizes])
    dtype = get_inner_type(op.outputs[0])
    lifting.bind(op, zeros if dtype == "float32" else lifting.cast(zeros, dtype), order)


LIFTS: dict[str, Rule] = {
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
