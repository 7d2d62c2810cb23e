"""Statistics of language models: probability and rank of each next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.portable_math import log_softmax
from edgekit_agent.metrics.shapes import drop_ones, read_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

# Scores in memory as float64 at a time.
_MOST_VALUES = 1 << 20


def compute_surprise(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the sum of the negative log probabilities of the tokens, and their number.

    Raises:
        AgentError: ``bad_job``; the outputs are probabilities. ``model_failed``; a token has
            probability 0.
    """
    scores, tokens = _read_tokens(sample, options, "perplexity")
    if not tokens.size:
        return np.zeros(0)
    if scores.min() >= 0 and np.abs(scores.sum(axis=1, dtype=np.float64) - 1).max() < 1e-3:
        raise AgentError(
            "bad_job",
            f"metric perplexity: the output of sample {sample.number} has probabilities, not "
            "logits",
            hint="score the output before the softmax",
        )
    losses = np.empty(tokens.size)
    step = max(1, _MOST_VALUES // scores.shape[1])
    for start in range(0, tokens.size, step):
        part = slice(start, start + step)
        logs = log_softmax(scores[part])
        losses[part] = -logs[np.arange(len(logs)), tokens[part]]
    if not np.isfinite(losses).all():
        raise AgentError(
            "model_failed",
            f"the output of sample {sample.number} is not finite, or a token has probability 0",
        )
    return np.array([losses.sum(), losses.size], np.float64)


def count_hits(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return how many tokens have the largest score, and the number of tokens."""
    scores, tokens = _read_tokens(sample, options, "token-accuracy")
    if not tokens.size:
        return np.zeros(0)
    return np.array([(scores.argmax(axis=1) == tokens).sum(), tokens.size], np.float64)


def _read_tokens(
    sample: ScoredSample, options: MetricOptions, metric: str
) -> Tuple[NDArray[Any], NDArray[np.int64]]:
    """Return scores [n, V] and tokens [n] of the scored positions."""
    target = read_integers(sample.get_target(), f"the target of sample {sample.number}")
    output = sample.get_output(options.output)
    if output.ndim < 1 or drop_ones(output.shape[:-1]) != drop_ones(target.shape):
        raise AgentError(
            "bad_job",
            f"metric {metric}: the output of sample {sample.number} has shape {output.shape}, its "
            f"target {target.shape}; the output needs one more axis, the last, for the vocabulary",
        )
    tokens = target.reshape(-1)
    is_scored = np.ones(tokens.shape, bool) if options.ignore is None else tokens != options.ignore
    tokens, vocabulary = tokens[is_scored], output.shape[-1]
    for token in (tokens.min(initial=0), tokens.max(initial=0)):
        if not 0 <= token < vocabulary:
            raise AgentError(
                "bad_job",
                f"metric {metric}: token {token} of sample {sample.number} must be from 0 to "
                f"{vocabulary - 1}",
                hint=f"set ignore = {token} if it is not scored",
            )
    return output.reshape(-1, vocabulary)[is_scored], tokens


STATISTICS: Dict[str, Statistic] = {
    "perplexity": compute_surprise,
    "token-accuracy": count_hits,
}
