"""Exponential and logarithm of float64 arrays with the same bits on every processor.

``np.exp`` and ``np.log`` differ in the last bit between processors and numpy releases. These are
made of elementwise IEEE operations alone, each rounded as the standard says. Range reduction and
approximation are those of fdlibm (Sun Microsystems 1993, ``e_exp.c`` and ``e_log.c``): error below
1 ulp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# ln 2 in two parts; the low 21 bits of the first are 0, so that k * _LN2_HIGH is exact.
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LOG2_E = 1.44269504088896338700
_SQRT_HALF = 0.70710678118654752440
# Smallest and largest arguments whose exponential is neither 0 nor infinite, rounded outwards.
_EXP_RANGE = (-746.0, 710.0)
# Remez approximation of r * (exp(r) + 1) / (exp(r) - 1) in powers of r * r, for |r| <= ln(2) / 2.
_EXP_TERMS = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
# Remez approximation of (log(1 + s) - log(1 - s) - 2 s) / s in powers of s * s, for s <= .1716.
_LOG_TERMS = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
# Values computed at a time: the intermediate arrays stay in the cache and in bounded memory.
_BLOCK = 1 << 14


def exp(values: NDArray[Any] | float) -> Floats:
    """Compute the exponential of each value."""
    return _apply(_exp, values)


def log(values: NDArray[Any] | float) -> Floats:
    """Compute the natural logarithm of each value: -inf for 0, NaN below."""
    return _apply(_log, values)


def sigmoid(values: NDArray[Any] | float) -> Floats:
    """Compute ``1 / (1 + exp(-x))`` of each value, without overflow."""
    array = np.asarray(values, np.float64)
    small = exp(-np.abs(array))
    return np.asarray(np.where(array >= 0, 1.0, small) / (1.0 + small), np.float64)


def softmax(logits: NDArray[Any]) -> Floats:
    """Compute the probabilities along the last axis."""
    powers = exp(_subtract_largest(logits))
    return np.asarray(powers / _sum_last(powers), np.float64)


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Compute the logarithms of the probabilities along the last axis."""
    array = _subtract_largest(logits)
    return np.asarray(array - log(_sum_last(exp(array))), np.float64)


def _apply(compute: Callable[[Floats], Floats], values: NDArray[Any] | float) -> Floats:
    array = np.asarray(values, np.float64)
    flat = array.reshape(-1)
    result = np.empty(flat.size, np.float64)
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _BLOCK):
            result[start : start + _BLOCK] = compute(flat[start : start + _BLOCK])
    return result.reshape(array.shape)


def _exp(x: Floats) -> Floats:
    lowest, highest = _EXP_RANGE
    bounded = np.clip(np.where(np.isnan(x), 0.0, x), lowest, highest)
    k = np.rint(bounded * _LOG2_E)
    high = bounded - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    c = r - _evaluate(_EXP_TERMS, r * r)
    power = 1.0 - ((low - r * c / (2.0 - c)) - high)
    # Two exact factors: 2 ** k itself may be out of range where the product is not.
    exponent = k.astype(np.int64)
    half = exponent // 2
    scaled = power * _make_power_of_two(half) * _make_power_of_two(exponent - half)
    return np.asarray(np.where(np.isnan(x), x, scaled), np.float64)


def _log(x: Floats) -> Floats:
    regular = np.isfinite(x) & (x > 0)
    fraction, exponent = np.frexp(np.where(regular, x, 1.0))
    is_small = fraction < _SQRT_HALF
    f = np.where(is_small, fraction * 2.0, fraction) - 1.0
    k = (exponent - is_small).astype(np.float64)
    s = f / (2.0 + f)
    half_square = 0.5 * f * f
    remainder = _evaluate(_LOG_TERMS, s * s)
    result = k * _LN2_HIGH - ((half_square - (s * (half_square + remainder) + k * _LN2_LOW)) - f)
    special = np.where(x == 0, -np.inf, np.where(x > 0, np.inf, np.nan))
    return np.asarray(np.where(regular, result, special), np.float64)


def _evaluate(terms: tuple[float, ...], z: Floats) -> Floats:
    """Return ``terms[0] z + terms[1] z ** 2 + ...`` by Horner's rule."""
    total = np.full_like(z, terms[-1])
    for term in reversed(terms[:-1]):
        total = total * z + term
    return np.asarray(total * z, np.float64)


def _make_power_of_two(exponents: NDArray[np.int64]) -> Floats:
    """Return ``2.0 ** exponents`` of normal numbers, from their bits."""
    return np.asarray(((exponents + 1023) << 52).view(np.float64), np.float64)


def _subtract_largest(logits: NDArray[Any]) -> Floats:
    array = np.ascontiguousarray(logits, np.float64)
    return np.asarray(array - array.max(axis=-1, keepdims=True), np.float64)


def _sum_last(values: Floats) -> Floats:
    """Return the sums along the last axis, each over contiguous values in numpy's fixed order."""
    return np.asarray(values.sum(axis=-1, keepdims=True), np.float64)
