"""Element-wise functions without a TFLite operator, composed of other operators."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.graph import Tensor
from edgekit.bridge.lowering import Lowering
from edgekit.bridge.rules.elementwise import mapped
from edgekit.bridge.rules.maths import broadcast, clamped, pair, polynomial, single

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
    x = clamped(low, tensor, -_ERF_BOUND, _ERF_BOUND)
    square = single(low, "SQUARE", x)
    above = pair(low, "MUL", x, polynomial(low, square, _ERF_ABOVE))
    return pair(low, "DIV", above, polynomial(low, square, _ERF_BELOW))


def softplus(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute ``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``: it cannot overflow."""
    decay = single(low, "EXP", single(low, "NEG", single(low, "ABS", tensor)))
    rest = single(low, "LOG", pair(low, "ADD", decay, 1.0))
    return pair(low, "ADD", single(low, "RELU", tensor), rest)


def _tan(low: Lowering, x: Tensor) -> Tensor:
    return pair(low, "DIV", single(low, "SIN", x), single(low, "COS", x))


def _leg(low: Lowering, x: Tensor) -> Tensor:
    """Compute ``sqrt(1 - x^2)`` as ``sqrt((1 - x) * (1 + x))``, which is exact near the ends."""
    less, more = pair(low, "SUB", 1.0, x), pair(low, "ADD", x, 1.0)
    return single(low, "SQRT", pair(low, "MUL", less, more))


def _asin(low: Lowering, x: Tensor) -> Tensor:
    return pair(low, "ATAN2", x, _leg(low, x))


def _acos(low: Lowering, x: Tensor) -> Tensor:
    return pair(low, "ATAN2", _leg(low, x), x)


def _atan(low: Lowering, x: Tensor) -> Tensor:
    ones = broadcast(low, low.float32([1.0]), x.shape)  # ATAN2 does not broadcast
    return pair(low, "ATAN2", x, ones)


def _sinh(low: Lowering, x: Tensor) -> Tensor:
    """Compute sinh as ``sign(x) * (1 - exp(-2|x|)) * exp(|x|) / 2``.

    ELU computes the bracket exactly near zero, where ``exp(x) - 1`` would not be exact.
    """
    size = single(low, "ABS", x)
    shrunk = single(low, "ELU", pair(low, "MUL", size, -2.0))
    grown = pair(low, "MUL", single(low, "EXP", size), -0.5)
    return pair(low, "MUL", single(low, "SIGN", x), pair(low, "MUL", shrunk, grown))


def _cosh(low: Lowering, x: Tensor) -> Tensor:
    up, down = single(low, "EXP", x), single(low, "EXP", single(low, "NEG", x))
    return pair(low, "MUL", pair(low, "ADD", up, down), 0.5)


def _asinh(low: Lowering, x: Tensor) -> Tensor:
    size = single(low, "ABS", x)
    root = single(low, "SQRT", pair(low, "ADD", single(low, "SQUARE", x), 1.0))
    made = single(low, "LOG", pair(low, "ADD", size, root))
    return pair(low, "MUL", single(low, "SIGN", x), made)


def _acosh(low: Lowering, x: Tensor) -> Tensor:
    less, more = pair(low, "SUB", x, 1.0), pair(low, "ADD", x, 1.0)
    root = single(low, "SQRT", pair(low, "MUL", less, more))
    return single(low, "LOG", pair(low, "ADD", x, root))


def _atanh(low: Lowering, x: Tensor) -> Tensor:
    ratio = pair(low, "DIV", pair(low, "ADD", x, 1.0), pair(low, "SUB", 1.0, x))
    return pair(low, "MUL", single(low, "LOG", ratio), 0.5)


def mish(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute ``x * tanh(log(1 + exp(x)))``.

    This is ``x * n / (n + 2)`` with ``n = exp(x) * (exp(x) + 2)``.
    """
    # Beyond 20 the ratio is 1 to float32's last digit, and nothing overflows yet.
    grown = single(low, "EXP", clamped(low, tensor, None, 20.0))
    n = pair(low, "MUL", grown, pair(low, "ADD", grown, 2.0))
    return pair(low, "MUL", tensor, pair(low, "DIV", n, pair(low, "ADD", n, 2.0)))


def _softsign(low: Lowering, x: Tensor) -> Tensor:
    return pair(low, "DIV", x, pair(low, "ADD", single(low, "ABS", x), 1.0))


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "Acos": mapped(_acos),
    "Acosh": mapped(_acosh),
    "Asin": mapped(_asin),
    "Asinh": mapped(_asinh),
    "Atan": mapped(_atan),
    "Atanh": mapped(_atanh),
    "Cos": mapped(lambda low, x: single(low, "COS", x)),
    "Cosh": mapped(_cosh),
    "Erf": mapped(erf),
    "Mish": mapped(mish),
    "Sin": mapped(lambda low, x: single(low, "SIN", x)),
    "Sinh": mapped(_sinh),
    "Softplus": mapped(softplus),
    "Softsign": mapped(_softsign),
    "Tan": mapped(_tan),
}
