"""Element-wise functions without a TFLite operator, composed of other operators."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.arithmetic import (
    broadcast,
    clamp,
    emit_binary,
    emit_unary,
    evaluate_polynomial,
)
from edgekit.conversion.onnx_to_tflite.ops.elementwise import make_composite_rule
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.tflite.ir import Tensor

# erf(x) = x * P(x^2) / Q(x^2) on [-4, 4]; beyond, erf is 1 or -1 to float32's last digit.
# Source: Eigen, MathFunctionsImpl.h, generic_fast_erf_float (Mozilla Public License 2.0), a
# minimax fit; its largest error in float32 is 5e-7.
_ERF_ABOVE = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_BELOW = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
)  # fmt: skip
_ERF_BOUND = 4.0


def erf(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Approximate the error function by a ratio of polynomials, with an error of at most 1e-6."""
    x = clamp(builder, tensor, -_ERF_BOUND, _ERF_BOUND)
    square = emit_unary(builder, "SQUARE", x)
    above = emit_binary(builder, "MUL", x, evaluate_polynomial(builder, square, _ERF_ABOVE))
    return emit_binary(builder, "DIV", above, evaluate_polynomial(builder, square, _ERF_BELOW))


def softplus(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Compute ``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``: it cannot overflow."""
    decay = emit_unary(
        builder, "EXP", emit_unary(builder, "NEG", emit_unary(builder, "ABS", tensor))
    )
    rest = emit_unary(builder, "LOG", emit_binary(builder, "ADD", decay, 1.0))
    return emit_binary(builder, "ADD", emit_unary(builder, "RELU", tensor), rest)


def _tan(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    return emit_binary(builder, "DIV", emit_unary(builder, "SIN", x), emit_unary(builder, "COS", x))


def _sqrt_one_minus_square(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    """Compute ``sqrt(1 - x^2)`` as ``sqrt((1 - x) * (1 + x))``, which is exact near the ends."""
    less, more = emit_binary(builder, "SUB", 1.0, x), emit_binary(builder, "ADD", x, 1.0)
    return emit_unary(builder, "SQRT", emit_binary(builder, "MUL", less, more))


def _asin(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    return emit_binary(builder, "ATAN2", x, _sqrt_one_minus_square(builder, x))


def _acos(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    return emit_binary(builder, "ATAN2", _sqrt_one_minus_square(builder, x), x)


def _atan(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    ones = broadcast(builder, builder.float32([1.0]), x.shape)  # ATAN2 does not broadcast
    return emit_binary(builder, "ATAN2", x, ones)


def _sinh(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    """Compute sinh as ``sign(x) * (1 - exp(-2|x|)) * exp(|x|) / 2``.

    ELU computes the bracket exactly near zero, where ``exp(x) - 1`` would not be exact.
    """
    size = emit_unary(builder, "ABS", x)
    shrunk = emit_unary(builder, "ELU", emit_binary(builder, "MUL", size, -2.0))
    exponential = emit_binary(builder, "MUL", emit_unary(builder, "EXP", size), -0.5)
    return emit_binary(
        builder,
        "MUL",
        emit_unary(builder, "SIGN", x),
        emit_binary(builder, "MUL", shrunk, exponential),
    )


def _cosh(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    up, down = (
        emit_unary(builder, "EXP", x),
        emit_unary(builder, "EXP", emit_unary(builder, "NEG", x)),
    )
    return emit_binary(builder, "MUL", emit_binary(builder, "ADD", up, down), 0.5)


def _asinh(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    size = emit_unary(builder, "ABS", x)
    root = emit_unary(
        builder, "SQRT", emit_binary(builder, "ADD", emit_unary(builder, "SQUARE", x), 1.0)
    )
    result = emit_unary(builder, "LOG", emit_binary(builder, "ADD", size, root))
    return emit_binary(builder, "MUL", emit_unary(builder, "SIGN", x), result)


def _acosh(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    less, more = emit_binary(builder, "SUB", x, 1.0), emit_binary(builder, "ADD", x, 1.0)
    root = emit_unary(builder, "SQRT", emit_binary(builder, "MUL", less, more))
    return emit_unary(builder, "LOG", emit_binary(builder, "ADD", x, root))


def _atanh(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    ratio = emit_binary(
        builder, "DIV", emit_binary(builder, "ADD", x, 1.0), emit_binary(builder, "SUB", 1.0, x)
    )
    return emit_binary(builder, "MUL", emit_unary(builder, "LOG", ratio), 0.5)


def mish(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Compute ``x * tanh(log(1 + exp(x)))``.

    This is ``x * n / (n + 2)`` with ``n = exp(x) * (exp(x) + 2)``.
    """
    # Beyond 20 the ratio is 1 to float32's last digit, and nothing overflows yet.
    exponential = emit_unary(builder, "EXP", clamp(builder, tensor, None, 20.0))
    n = emit_binary(builder, "MUL", exponential, emit_binary(builder, "ADD", exponential, 2.0))
    return emit_binary(
        builder, "MUL", tensor, emit_binary(builder, "DIV", n, emit_binary(builder, "ADD", n, 2.0))
    )


def _softsign(builder: TfliteGraphBuilder, x: Tensor) -> Tensor:
    return emit_binary(
        builder, "DIV", x, emit_binary(builder, "ADD", emit_unary(builder, "ABS", x), 1.0)
    )


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "Acos": make_composite_rule(_acos),
    "Acosh": make_composite_rule(_acosh),
    "Asin": make_composite_rule(_asin),
    "Asinh": make_composite_rule(_asinh),
    "Atan": make_composite_rule(_atan),
    "Atanh": make_composite_rule(_atanh),
    "Cos": make_composite_rule(lambda builder, x: emit_unary(builder, "COS", x)),
    "Cosh": make_composite_rule(_cosh),
    "Erf": make_composite_rule(erf),
    "Mish": make_composite_rule(mish),
    "Sin": make_composite_rule(lambda builder, x: emit_unary(builder, "SIN", x)),
    "Sinh": make_composite_rule(_sinh),
    "Softplus": make_composite_rule(softplus),
    "Softsign": make_composite_rule(_softsign),
    "Tan": make_composite_rule(_tan),
}
