"""Statistic of embeddings: the label (identity) of a sample, then its embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.frames import read_single_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def compute_label_and_embedding(
    sample: ScoredSample, options: MetricOptions
) -> NDArray[np.float64]:
    """Return the label, then the embedding."""
    label = read_single_label(sample)
    embedding = sample.get_output(options.output).reshape(-1).astype(np.float64)
    if embedding.size < 2:
        raise AgentError(
            "bad_job",
            f"an embedding has several values, the scored output has {embedding.size}",
            hint="use auc for a score",
        )
    if label == options.ignore:
        return np.empty(0)
    if not np.isfinite(embedding).all():
        raise AgentError("model_failed", f"the output of sample {sample.number} is not finite")
    return np.append(float(label), embedding)


STATISTICS: Dict[str, Statistic] = {
    "pairs-auc": compute_label_and_embedding,
    "pairs-eer": compute_label_and_embedding,
    "recall": compute_label_and_embedding,
}
