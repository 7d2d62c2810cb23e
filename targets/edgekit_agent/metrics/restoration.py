"""Statistics of image restoration: PSNR, and SSIM as in Wang et al. 2004."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.shapes import read_value_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

    Floats = NDArray[np.float64]

# Gaussian window of 11 values with standard deviation 1.5: its center, then one side.
_WINDOW = (
    0.2660117248617943,
    0.21300553771125366,
    0.1093606895097,
    0.03600077212843082,
    0.007598758135239184,
    0.0010283800844791099,
)
_REACH = len(_WINDOW) - 1
_SIDE = 2 * _REACH + 1
_K1, _K2 = 0.01, 0.03


def compute_psnr(sample: ScoredSample, options: MetricOptions) -> Floats:
    """Return the mean squared error, relative to the square of the data range."""
    output, target = _read_images(sample, options, "psnr")
    errors = ((output - target) / options.data_range).reshape(-1)
    return np.array([(errors * errors).sum() / errors.size], np.float64)


def compute_ssim(sample: ScoredSample, options: MetricOptions) -> Floats:
    """Return the structural similarity, averaged over the channels.

    Raises:
        AgentError: ``bad_job``; the targets are no images, or smaller than the window.
    """
    output, target = _read_images(sample, options, "ssim")
    axis = _find_channel_axis(target.shape, sample.number)
    pairs = zip(_split_channels(output, axis), _split_channels(target, axis))
    values = [_compare_channels(first, second, options.data_range) for first, second in pairs]
    return np.array([sum(values) / len(values)], np.float64)


def _read_images(
    sample: ScoredSample, options: MetricOptions, metric: str
) -> Tuple[Floats, Floats]:
    output, target = read_value_pair(sample, options, metric)
    if target.ndim < 2:
        raise AgentError(
            "bad_job",
            f"metric {metric} needs images, but target {sample.number} has shape "
            f"{list(target.shape)}",
            hint="use mae or rmse for single values",
        )
    if not options.data_range > 0:
        raise AgentError("bad_job", f"metric {metric}: data_range must be positive")
    spread = float(target.max() - target.min())
    if spread > 1.01 * options.data_range:
        raise AgentError(
            "bad_job",
            f"metric {metric}: the values of target {sample.number} span {spread:g}, more than "
            f"the data range, {options.data_range:g}",
            hint="set data_range: 255 for values from 0 to 255",
        )
    return output, target


def _find_channel_axis(shape: Tuple[int, ...], number: int) -> int | None:
    """Return the axis of the channels, ``None`` without one.

    It is the first or the last one, whichever is shorter.
    """
    axis = None
    if len(shape) == 3:
        axis = 0 if shape[0] < shape[2] else 2
    sides = [length for place, length in enumerate(shape) if place != axis]
    if len(sides) != 2:
        raise AgentError(
            "bad_job",
            f"metric ssim needs images [H, W], [H, W, C] or [C, H, W], target {number} has shape "
            f"{shape}",
        )
    if min(sides) < _SIDE:
        raise AgentError(
            "bad_job",
            f"metric ssim needs images of at least {_SIDE} x {_SIDE} pixels, target {number} has "
            f"shape {shape}",
            hint="use psnr",
        )
    return axis


def _split_channels(image: Floats, axis: int | None) -> Floats:
    return image[None] if axis is None else np.ascontiguousarray(np.moveaxis(image, axis, 0))


def _compare_channels(first: Floats, second: Floats, data_range: float) -> float:
    """Compute the SSIM of one channel, averaged where the whole window is inside the image."""
    c1 = (_K1 * data_range) * (_K1 * data_range)
    c2 = (_K2 * data_range) * (_K2 * data_range)
    mean1, mean2 = _blur(first), _blur(second)
    variance1 = _blur(first * first) - mean1 * mean1
    variance2 = _blur(second * second) - mean2 * mean2
    covariance = _blur(first * second) - mean1 * mean2
    values = ((2 * mean1 * mean2 + c1) * (2 * covariance + c2)) / (
        (mean1 * mean1 + mean2 * mean2 + c1) * (variance1 + variance2 + c2)
    )
    return float(np.ascontiguousarray(values).reshape(-1).sum() / values.size)


def _blur(image: Floats) -> Floats:
    """Return the means under the Gaussian window, without the margins."""
    rows = _blur_rows(image)
    return _blur_rows(rows.T).T


def _blur_rows(image: Floats) -> Floats:
    length = image.shape[0] - 2 * _REACH
    total = _WINDOW[0] * image[_REACH : _REACH + length]
    for distance, weight in enumerate(_WINDOW[1:], start=1):
        before, after = _REACH - distance, _REACH + distance
        total += weight * (image[before : before + length] + image[after : after + length])
    return total


STATISTICS: Dict[str, Statistic] = {
    "psnr": compute_psnr,
    "ssim": compute_ssim,
}
