"""Log loss of class scores at their best temperature, to compare models beyond their accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TEMPERATURES = tuple(2.0**power for power in range(-8, 9))
_SMALLEST = 1e-12


def compute_calibrated_loss(
    scores: Sequence[Floats], labels: Sequence[int], *, are_logits: bool
) -> float:
    """Compute the mean negative log probability of the labels.

    Logits are divided by the temperature for which it is smallest (Guo et al. 2017, "On Calibration
    of Modern Neural Networks"), so that scores are not better for being larger.

    Args:
        scores: Scores of all classes for each sample; a single one is that of class 1 of two.
        labels: Class of each sample.
        are_logits: Whether the scores are logits, not probabilities.
    """
    logits = np.stack(scores)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits) if are_logits else 1 - logits, logits], 1)
    if not are_logits:
        logits = np.log(np.maximum(logits, _SMALLEST))
    logits = logits - logits.max(axis=1, keepdims=True)
    chosen = np.arange(len(labels)), np.array(labels)
    losses = []
    for temperature in _TEMPERATURES:
        scaled = logits / temperature
        losses.append(float((np.log(np.exp(scaled).sum(axis=1)) - scaled[chosen]).mean()))
    return min(losses)
