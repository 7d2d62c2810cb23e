"""exp and log: accurate to 2 ulp, and the same bits on every processor."""

import hashlib
from decimal import Decimal, localcontext

import numpy as np
import pytest

from edgekit_agent.metrics import portable_math

EXPONENTS = np.concatenate(
    [
        np.linspace(-708, 709, 4001),
        np.linspace(-1, 1, 2001),
        np.linspace(-745.1, -708, 501),  # results too small for all their bits
        [0.5 * np.log(2), -0.5 * np.log(2), 1e-300, -1e-17],
    ]
)
POSITIVES = np.concatenate(
    [
        np.ldexp(np.linspace(0.5, 1, 2001), np.arange(2001) - 1000),
        np.linspace(0.99, 1.01, 2001),
        np.arange(1, 501) * 5e-324,
        [np.sqrt(0.5), np.nextafter(1, 0), np.nextafter(1, 2), 1.7976931348623157e308],
    ]
)


def find_largest_error(found, exact):
    """Return the largest error in units of the last place of the exact value."""
    with localcontext() as context:
        context.prec = 50
        return max(
            abs(Decimal(value) - wanted) / Decimal(float(np.spacing(abs(float(wanted)))))
            for value, wanted in zip(found.tolist(), exact, strict=True)
        )


def compute_exactly(values, function):
    with localcontext() as context:
        context.prec = 50
        return [function(Decimal(value)) for value in values.tolist()]


def test_exp_is_within_one_ulp():
    exact = compute_exactly(EXPONENTS, Decimal.exp)
    assert find_largest_error(portable_math.exp(EXPONENTS), exact) < 1


def test_log_is_within_one_ulp():
    values = POSITIVES[POSITIVES != 1]
    exact = compute_exactly(values, Decimal.ln)
    assert find_largest_error(portable_math.log(values), exact) < 1


def test_special_values():
    largest = 709.782712893384
    exponents = np.array([0, -0.0, np.inf, -np.inf, 1e300, -1e300, largest, largest + 1e-12])
    assert portable_math.exp(exponents).tolist() == [
        1, 1, np.inf, 0, np.inf, 0, np.exp(largest), np.inf,
    ]  # fmt: skip
    assert portable_math.log(np.array([0, 1, np.inf])).tolist() == [-np.inf, 0, np.inf]
    assert np.isnan(portable_math.exp(np.array([np.nan]))).all()
    assert np.isnan(portable_math.log(np.array([np.nan, -1, -np.inf]))).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5, 7), (3, 20_000)])
def test_shape_is_kept_and_any_layout_is_read(shape):
    values = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(portable_math.exp(values), np.exp(values), rtol=4e-16)
    assert portable_math.log(values.T).shape == shape[::-1]


def test_softmax_and_sigmoid_neither_overflow_nor_lose_small_probabilities():
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, -800.0, -40.0]], np.float32)
    shares = portable_math.softmax(logits)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-15)
    np.testing.assert_allclose(shares[0, :2], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    np.testing.assert_allclose(
        portable_math.log_softmax(logits)[1], [0, -800, -40], rtol=1e-15, atol=1e-16
    )
    values = np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0])
    np.testing.assert_allclose(
        portable_math.sigmoid(values),
        [0, np.exp(-40) / (1 + np.exp(-40)), 0.5, 1 / (1 + np.exp(-40)), 1],
        rtol=4e-16,
    )


def test_bits_are_those_of_every_processor():
    # Arguments are exact fractions, so that they do not depend on the processor either.
    fractions = np.arange(-40_000, 40_000) / 64.0
    values = [
        portable_math.exp(fractions),
        portable_math.log(np.abs(fractions)),
        portable_math.sigmoid(fractions),
        portable_math.softmax(fractions.reshape(100, -1)),
        portable_math.log_softmax(fractions.reshape(100, -1)),
    ]
    digest = hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()
    assert digest == "1647e386c92ac8d26dc16743c24377291c161e02c1ac44777708dda20cb23f48"
