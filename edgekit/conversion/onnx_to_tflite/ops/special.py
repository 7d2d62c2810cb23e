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
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering
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


def erf(low: Lowering, tensor: Tensor) -> Tensor:
    """Approximate the error function by a ratio of polynomials, with an error of at most 1e-6."""
    x = clamp(low, tensor, -_ERF_BOUND, _ERF_BOUND)
    square = emit_unary(low, "SQUARE", x)
    above = emit_binary(low, "MUL", x, evaluate_polynomial(low, square, _ERF_ABOVE))
    return emit_binary(low, "DIV", above, evaluate_polynomial(low, square, _ERF_BELOW))


def softplus(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute ``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``: it cannot overflow."""
    decay = emit_unary(low, "EXP", emit_unary(low, "NEG", emit_unary(low, "ABS", tensor)))
    rest = emit_unary(low, "LOG", emit_binary(low, "ADD", decay, 1.0))
    return emit_binary(low, "ADD", emit_unary(low, "RELU", tensor), rest)


def _tan(low: Lowering, x: Tensor) -> Tensor:
    return emit_binary(low, "DIV", emit_unary(low, "SIN", x), emit_unary(low, "COS", x))


def _sqrt_one_minus_square(low: Lowering, x: Tensor) -> Tensor:
    """Compute ``sqrt(1 - x^2)`` as ``sqrt((1 - x) * (1 + x))``, which is exact near the ends."""
    less, more = emit_binary(low, "SUB", 1.0, x), emit_binary(low, "ADD", x, 1.0)
    return emit_unary(low, "SQRT", emit_binary(low, "MUL", less, more))


def _asin(low: Lowering, x: Tensor) -> Tensor:
    return emit_binary(low, "ATAN2", x, _sqrt_one_minus_square(low, x))


def _acos(low: Lowering, x: Tensor) -> Tensor:
    return emit_binary(low, "ATAN2", _sqrt_one_minus_square(low, x), x)


def _atan(low: Lowering, x: Tensor) -> Tensor:
    ones = broadcast(low, low.float32([1.0]), x.shape)  # ATAN2 does not broadcast
    return emit_binary(low, "ATAN2", x, ones)


def _sinh(low: Lowering, x: Tensor) -> Tensor:
    """Compute sinh as ``sign(x) * (1 - exp(-2|x|)) * exp(|x|) / 2``.

    ELU computes the bracket exactly near zero, where ``exp(x) - 1`` would not be exact.
    """
    size = emit_unary(low, "ABS", x)
    shrunk = emit_unary(low, "ELU", emit_binary(low, "MUL", size, -2.0))
    grown = emit_binary(low, "MUL", emit_unary(low, "EXP", size), -0.5)
    return emit_binary(
        low, "MUL", emit_unary(low, "SIGN", x), emit_binary(low, "MUL", shrunk, grown)
    )


def _cosh(low: Lowering, x: Tensor) -> Tensor:
    up, down = emit_unary(low, "EXP", x), emit_unary(low, "EXP", emit_unary(low, "NEG", x))
    return emit_binary(low, "MUL", emit_binary(low, "ADD", up, down), 0.5)


def _asinh(low: Lowering, x: Tensor) -> Tensor:
    size = emit_unary(low, "ABS", x)
    root = emit_unary(low, "SQRT", emit_binary(low, "ADD", emit_unary(low, "SQUARE", x), 1.0))
    made = emit_unary(low, "LOG", emit_binary(low, "ADD", size, root))
    return emit_binary(low, "MUL", emit_unary(low, "SIGN", x), made)


def _acosh(low: Lowering, x: Tensor) -> Tensor:
    less, more = emit_binary(low, "SUB", x, 1.0), emit_binary(low, "ADD", x, 1.0)
    root = emit_unary(low, "SQRT", emit_binary(low, "MUL", less, more))
    return emit_unary(low, "LOG", emit_binary(low, "ADD", x, root))


def _atanh(low: Lowering, x: Tensor) -> Tensor:
    ratio = emit_binary(
        low, "DIV", emit_binary(low, "ADD", x, 1.0), emit_binary(low, "SUB", 1.0, x)
    )
    return emit_binary(low, "MUL", emit_unary(low, "LOG", ratio), 0.5)


def mish(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute ``x * tanh(log(1 + exp(x)))``.

    This is ``x * n / (n + 2)`` with ``n = exp(x) * (exp(x) + 2)``.
    """
    # Beyond 20 the ratio is 1 to float32's last digit, and nothing overflows yet.
    grown = emit_unary(low, "EXP", clamp(low, tensor, None, 20.0))
    n = emit_binary(low, "MUL", grown, emit_binary(low, "ADD", grown, 2.0))
    return emit_binary(
        low, "MUL", tensor, emit_binary(low, "DIV", n, emit_binary(low, "ADD", n, 2.0))
    )


def _softsign(low: Lowering, x: Tensor) -> Tensor:
    return emit_binary(low, "DIV", x, emit_binary(low, "ADD", emit_unary(low, "ABS", x), 1.0))


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "Acos": make_composite_rule(_acos),
    "Acosh": make_composite_rule(_acosh),
    "Asin": make_composite_rule(_asin),
    "Asinh": make_composite_rule(_asinh),
    "Atan": make_composite_rule(_atan),
    "Atanh": make_composite_rule(_atanh),
    "Cos": make_composite_rule(lambda low, x: emit_unary(low, "COS", x)),
    "Cosh": make_composite_rule(_cosh),
    "Erf": make_composite_rule(erf),
    "Mish": make_composite_rule(mish),
    "Sin": make_composite_rule(lambda low, x: emit_unary(low, "SIN", x)),
    "Sinh": make_composite_rule(_sinh),
    "Softplus": make_composite_rule(softplus),
    "Softsign": make_composite_rule(_softsign),
    "Tan": make_composite_rule(_tan),
}
