"""Statistics of predicted probabilities: log loss and calibration error.

``MetricOptions.logits`` tells logits from probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict

import numpy as np

from edgekit_agent.metrics.frames import read_frames
from edgekit_agent.metrics.portable_math import log, log_softmax, sigmoid, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.metrics.frames import Frames
    from edgekit_agent.scoring import MetricOptions

# Smallest probability of the label: the loss stays finite. As in scikit-learn.
SMALLEST = float(np.finfo(np.float64).eps)
# Bins of confidence, of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks").
BINS = 15


def compute_log_loss(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the sum of the frames' negative log probability of the label, and their number."""
    frames = read_frames(sample, options)
    if not frames.labels.size:
        return np.empty(0)
    scores = _add_first_class(frames, 0.0) if options.logits else _add_first_class(frames, 1.0)
    chosen = np.arange(frames.labels.size), frames.labels
    if options.logits:
        losses = np.minimum(-log_softmax(scores)[chosen], -log(SMALLEST))
    else:
        losses = _compute_losses(scores[chosen])
    return np.array([np.sum(losses), losses.size], np.float64)


def compute_calibration(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the number of frames, and of each bin the sum of correctness minus confidence.

    Between them are the number of correct frames and the sum of the negative log probabilities of
    the labels, which tell whether the probabilities predict anything. The confidence is the
    probability of the predicted class. Bin m of 15 holds confidences above (m - 1) / 15 and up to
    m / 15.
    """
    frames = read_frames(sample, options)
    if not frames.labels.size:
        return np.empty(0)
    shares = _compute_probabilities(frames, options)
    predicted = shares.argmax(axis=1)
    confidence = np.clip(shares.max(axis=1), 0.0, 1.0)
    correct = predicted == frames.labels
    gaps = correct - confidence
    bins = np.clip(np.ceil(confidence * BINS), 1, BINS)
    sums = [np.sum(gaps[bins == number]) for number in range(1, BINS + 1)]
    losses = _compute_losses(shares[np.arange(gaps.size), frames.labels])
    return np.array([gaps.size, np.sum(correct), np.sum(losses), *sums], np.float64)


def _compute_losses(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the negative log of probabilities, which stays finite."""
    return -log(np.clip(shares, SMALLEST, 1.0))


def _compute_probabilities(frames: Frames, options: MetricOptions) -> NDArray[np.float64]:
    if not options.logits:
        return _add_first_class(frames, 1.0)
    if frames.scores.shape[1] > 1:
        return softmax(frames.scores)
    second = sigmoid(frames.scores)
    return np.concatenate([1.0 - second, second], axis=1)


def _add_first_class(frames: Frames, total: float) -> NDArray[np.float64]:
    """Return scores of at least two classes: to a single score, add that of class 0.

    Args:
        frames: scores [m, k].
        total: 1 for probabilities, whose sum it is; 0 for logits, of which that of class 0 is 0.
    """
    scores = frames.scores
    if scores.shape[1] > 1:
        return scores
    return np.concatenate([1.0 - scores if total else np.zeros_like(scores), scores], axis=1)


STATISTICS: Dict[str, Statistic] = {
    "log-loss": compute_log_loss,
    "ece": compute_calibration,
}
