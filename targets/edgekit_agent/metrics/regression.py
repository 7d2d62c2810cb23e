"""Statistics of regression: sums over the values of one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.shapes import read_value_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

# Values of one sample for which R2 is computed one by one.
_MOST_COLUMNS = 1000


def compute_absolute_error(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the sum of the absolute errors, and the number of values."""
    output, target = read_value_pair(sample, options, "mae")
    return np.array([np.abs(output - target).reshape(-1).sum(), target.size], np.float64)


def compute_squared_error(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the sum of the squared errors, and the number of values."""
    output, target = read_value_pair(sample, options, "rmse")
    return np.array([_sum_squares(output - target), target.size], np.float64)


def compute_r2(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the squared error of each value, then each value of the target.

    Raises:
        AgentError: ``bad_job``; a sample has too many values, such as an image.
    """
    output, target = read_value_pair(sample, options, "r2")
    if target.size > _MOST_COLUMNS:
        raise AgentError(
            "bad_job",
            f"metric r2 takes up to {_MOST_COLUMNS} values per sample, the target has "
            f"{target.size}",
            hint="use rmse, or psnr for images",
        )
    errors = (output - target).reshape(-1)
    return np.concatenate([errors * errors, target.reshape(-1)])


def compute_relative_rms(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the sum of the squared errors, and that of the squares of the target."""
    output, target = read_value_pair(sample, options, "relative-rms")
    return np.array([_sum_squares(output - target), _sum_squares(target)], np.float64)


def compute_cosine(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the cosine of the angle between output and target; 0 if one of them is all zeros."""
    output, target = (_scale(values) for values in read_value_pair(sample, options, "cosine"))
    lengths = np.sqrt(_sum_squares(output)) * np.sqrt(_sum_squares(target))
    product = (output * target).reshape(-1).sum()
    return np.array([product / lengths if lengths > 0 else 0.0], np.float64)


def _sum_squares(values: NDArray[np.float64]) -> float:
    return float((values * values).reshape(-1).sum())


def _scale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by the largest absolute value, so that squares neither overflow nor vanish."""
    largest = np.abs(values).max()
    return values / largest if largest > 0 else values


STATISTICS: Dict[str, Statistic] = {
    "mae": compute_absolute_error,
    "rmse": compute_squared_error,
    "r2": compute_r2,
    "relative-rms": compute_relative_rms,
    "cosine": compute_cosine,
}
