"""Statistics of multi-label classification: several classes may be present in a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.frames import read_labels, read_scores
from edgekit_agent.metrics.portable_math import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

# Marks a class of a sample that is not scored.
UNKNOWN = -1.0


def compute_presence_and_scores(
    sample: ScoredSample, options: MetricOptions
) -> NDArray[np.float64]:
    """Return whether each class is present, then the score of each class."""
    return np.concatenate(_read_classes(sample, options))


def compute_presence_and_predictions(
    sample: ScoredSample, options: MetricOptions
) -> NDArray[np.float64]:
    """Return whether each class is present, then whether it is predicted."""
    present, scores = _read_classes(sample, options)
    shares = sigmoid(scores) if options.logits else scores
    return np.concatenate([present, shares > options.threshold])


def _read_classes(
    sample: ScoredSample, options: MetricOptions
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read presence (1, 0 or unknown) and score of each class.

    Raises:
        AgentError: ``bad_job``; the number of classes differs, or a target is neither 0 nor 1.
            ``model_failed``; a score is not a number.
    """
    targets = read_labels(sample)
    output = sample.get_output(options.output)
    if targets.size != output.size:
        raise AgentError(
            "bad_job",
            f"the target of sample {sample.number} has shape {sample.get_target().shape}, the "
            f"scored output {output.shape}",
            hint="multi-label targets hold 0 or 1 for each class of the output",
        )
    is_known = targets != options.ignore
    if not np.isin(targets[is_known], (0, 1)).all():
        raise AgentError(
            "bad_job",
            f"the target of sample {sample.number} has a value that is neither 0 nor 1",
            hint="multi-label targets hold 0 or 1 for each class of the output",
        )
    present = np.where(is_known, targets.astype(np.float64), UNKNOWN)
    return present, read_scores(output.reshape(-1), sample)


STATISTICS: Dict[str, Statistic] = {
    "multilabel-map": compute_presence_and_scores,
    "multilabel-f1": compute_presence_and_predictions,
}
