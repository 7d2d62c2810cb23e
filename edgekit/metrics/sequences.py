"""Metrics of sequences: error rates of texts, perplexity and accuracy of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.answers import TEXTS
from edgekit.metrics.constant_predictors import evaluate_predictor
from edgekit.metrics.metric import (
    Floats,
    Margin,
    Metric,
    SampleValue,
    Table,
    TargetReader,
    Targets,
    aggregate_sums,
    build_sums_value,
    take_first,
)
from edgekit.metrics.probabilities import compute_mean_loss
from edgekit.metrics.regression import prepare_mean
from edgekit.metrics.row_checks import COUNT, COUNT_FROM_1, FLAG, NOT_NEGATIVE, check_columns
from edgekit.metrics.rows import divide
from edgekit_agent.metrics.texts import read_text
from edgekit_agent.scoring import MetricOptions

# Mean negative log probability whose exponential is still finite.
_MOST_NATS = 700.0


def _divide_exponential(sums: Floats) -> Floats:
    return np.asarray(np.exp(np.minimum(divide(sums[:, 0], sums[:, 1]), _MOST_NATS)))


prepare_perplexity = aggregate_sums(_divide_exponential)


def evaluate_constant_text(name: str) -> Callable[[TargetReader, MetricOptions], float | None]:
    """Return the function that computes the error rate of a constant text.

    It is the best of three: the empty one, the most common one, and the one that has the most
    common character (cer) or word (wer) at each position.
    """

    def compute(read: TargetReader, options: MetricOptions) -> float | None:
        texts = [
            read_text(targets["y"], options, f"the target of sample {number}", name)
            for number, targets in enumerate(read())
        ]
        common = Counter(texts).most_common(1)[0][0]
        usual = "".join(_choose_items(texts))
        if name == "wer":
            usual = " ".join(_choose_items([text.split() for text in texts]))
        return min(
            evaluate_predictor(name, prepare_mean, read, options, partial(_return_text, text))
            for text in {"", common, usual}
        )

    return compute


def _choose_items(sequences: Sequence[Sequence[str]]) -> list[str]:
    """Return the most common item of each position, up to the median length."""
    length = int(np.median([len(items) for items in sequences]))
    columns = ([items[i] for items in sequences if len(items) > i] for i in range(length))
    return [Counter(column).most_common(1)[0][0] for column in columns]


def compute_unigram_perplexity(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the perplexity of the frequencies of the tokens."""
    shares = _compute_token_shares(read, options)
    return float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else None


def compute_largest_token_share(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the share of the most common token."""
    shares = _compute_token_shares(read, options)
    return float(shares.max()) if shares.size else None


def _return_text(text: str, targets: Targets) -> NDArray[np.int32]:
    """Return the text as code points, whatever the targets are."""
    del targets
    return np.array([ord(character) for character in text], np.int32)


def _compute_token_shares(read: TargetReader, options: MetricOptions) -> NDArray[np.float64]:
    counts: Counter[int] = Counter()
    for targets in read():
        tokens, number = np.unique(targets["y"], return_counts=True)
        counts.update(dict(zip(tokens.tolist(), number.tolist(), strict=True)))
    if options.ignore is not None:
        counts.pop(options.ignore, None)
    numbers = np.array(list(counts.values()), np.float64)
    return np.asarray(numbers / max(numbers.sum(), 1))


def _are_edits_possible(rows: Floats) -> NDArray[np.bool_]:
    """Return whether exactly the texts without edits are said to be equal."""
    return np.asarray((rows[:, 0] == 0) == (rows[:, 2] == 1))


def _compute_token_accuracy(table: Table, options: MetricOptions) -> Floats:
    del options
    return divide(*table.stack().T)


METRICS = (
    Metric(
        name="cer",
        title="character error rate",
        target="the text",
        prepare=prepare_mean,
        compute_trivial=evaluate_constant_text("cer"),
        higher_is_better=False,
        check_rows=check_columns(COUNT, COUNT, FLAG, relation=_are_edits_possible),
        sample_value=SampleValue(
            compute=take_first, title="wrong characters", higher_is_better=False
        ),
        answers=TEXTS,
        takes_texts=True,
    ),
    Metric(
        name="wer",
        title="word error rate",
        target="the text",
        prepare=prepare_mean,
        compute_trivial=evaluate_constant_text("wer"),
        higher_is_better=False,
        check_rows=check_columns(COUNT, COUNT, FLAG, relation=_are_edits_possible),
        sample_value=SampleValue(compute=take_first, title="wrong words", higher_is_better=False),
        answers=TEXTS,
        takes_texts=True,
    ),
    Metric(
        name="perplexity",
        title="perplexity",
        target="the next token of each position, integers",
        prepare=prepare_perplexity,
        compute_trivial=compute_unigram_perplexity,
        higher_is_better=False,
        is_share=False,
        margin=Margin(value=2.0, relative=True),
        check_rows=check_columns(NOT_NEGATIVE, COUNT_FROM_1, may_be_empty=True),
        sample_value=build_sums_value(compute_mean_loss, "log loss"),
        answers=None,
    ),
    Metric(
        name="token-accuracy",
        title="token accuracy",
        target="the token of each position, integers",
        prepare=prepare_mean,
        compute_trivial=compute_largest_token_share,
        check_rows=check_columns(
            COUNT, COUNT_FROM_1, may_be_empty=True, relation=lambda rows: rows[:, 0] <= rows[:, 1]
        ),
        sample_value=SampleValue(
            compute=_compute_token_accuracy, title="token accuracy", is_share=True
        ),
        answers=None,
    ),
)
