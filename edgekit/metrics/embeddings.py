"""Metrics of embeddings by their cosine: verification of pairs, and retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Metric,
    SampleValue,
    Table,
    TargetReader,
)
from edgekit.metrics.ranking import compute_half
from edgekit.metrics.roc import Owners, prepare_auc, prepare_eer
from edgekit.metrics.row_checks import check_embeddings
from edgekit.metrics.rows import Indices, divide, read_labels
from edgekit_agent.scoring import MetricOptions

# Most pairs of the same label, and most of different labels; more are drawn at random.
MOST_PAIRS = 1 << 20
# Cosines computed at a time.
_BLOCK = 1 << 22
_SMALLEST_NORM = 1e-12

PrepareCurve = Callable[[NDArray[np.bool_], Floats, Owners], Aggregate]


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """Labels, unit vectors and groups of all samples."""

    labels: Floats
    vectors: Floats
    groups: NDArray[np.int64]

    def compare(self, *, later: bool) -> Iterator[Block]:
        """Compare blocks of samples with all samples of other groups.

        Args:
            later: Whether to compare with later samples alone, so that each pair comes once.
        """
        count = self.labels.size
        size = max(1, _BLOCK // max(count, 1))
        for start in range(0, count, size):
            queries = np.arange(start, min(start + size, count))
            comparable = self.groups[queries, None] != self.groups[None, :]
            if later:
                comparable &= queries[:, None] < np.arange(count)[None, :]
            same = self.labels[queries, None] == self.labels[None, :]
            yield Block(queries=queries, same=same & comparable, different=~same & comparable)

    def compute_cosines(self, block: Block) -> Floats:
        """Compute the cosines [queries, n] of a block."""
        cosines: Floats = self.vectors[block.queries] @ self.vectors.T
        return cosines


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Some samples, compared with all.

    Attributes:
        queries: Numbers of the samples.
        same: Whether the pair has the same label and is scored, [queries, n].
        different: Whether the pair has different labels and is scored.
    """

    queries: Indices
    same: NDArray[np.bool_]
    different: NDArray[np.bool_]


def read_embeddings(table: Table) -> Embeddings:
    """Split the rows; without groups, each sample is one."""
    rows = table.stack()
    vectors = rows[:, 1:]
    norms = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    groups = np.arange(table.n) if table.groups is None else table.groups
    return Embeddings(
        labels=rows[:, 0], vectors=vectors / np.maximum(norms, _SMALLEST_NORM), groups=groups
    )


def prepare_pairs(prepare: PrepareCurve) -> Callable[[Table, MetricOptions], Aggregate]:
    """Return the ``prepare`` of a metric of pairs: is the label the same, by the cosine?

    Pairs are those of samples of different groups; the weight of a pair is the product of those of
    its samples. If more than 1,048,576 pairs have the same label, or different labels, about as
    many of them are drawn at random, the same ones for every model.
    """

    def prepare_curve(table: Table, options: MetricOptions) -> Aggregate:
        del options
        embeddings = read_embeddings(table)
        draw = _PairDraw(embeddings)
        first, second, positive, cosines = [], [], [], []
        for block in embeddings.compare(later=True):
            chosen = draw.choose(block)
            row, column = np.nonzero(chosen)
            first.append(block.queries[row])
            second.append(column)
            positive.append(block.same[row, column])
            cosines.append(embeddings.compute_cosines(block)[row, column])
        owners = np.concatenate(first), np.concatenate(second)
        return prepare(np.concatenate(positive), np.concatenate(cosines), owners)

    return prepare_curve


class _PairDraw:
    """Draws pairs of each kind, all if they are few enough."""

    def __init__(self, embeddings: Embeddings) -> None:
        same = different = 0
        for block in embeddings.compare(later=True):
            same += int(np.count_nonzero(block.same))
            different += int(np.count_nonzero(block.different))
        self._same_share = MOST_PAIRS / max(same, MOST_PAIRS)
        self._different_share = MOST_PAIRS / max(different, MOST_PAIRS)
        self._random = np.random.default_rng(0)

    def choose(self, block: Block) -> NDArray[np.bool_]:
        """Return the pairs of a block to score."""
        if self._same_share == self._different_share == 1:
            return block.same | block.different
        drawn = self._random.random(block.same.shape)
        return (block.same & (drawn < self._same_share)) | (
            block.different & (drawn < self._different_share)
        )


def prepare_recall(table: Table, options: MetricOptions) -> Aggregate:
    """Return the share of samples whose label is among those of the k most similar samples.

    The samples of other groups are the gallery, which stays whole; weights apply to the queries.
    Samples whose label is not in the gallery are not scored. Of equal cosines, a wrong label comes
    first.
    """
    hits, scored = _find_hits(table, options)
    return lambda weights: divide(weights @ hits, weights @ scored)


def compute_hits(table: Table, options: MetricOptions) -> Floats:
    """Return 1 for samples whose label is found, 0 for others; NaN of those that do not count."""
    return divide(*_find_hits(table, options))


def _find_hits(table: Table, options: MetricOptions) -> tuple[Floats, Floats]:
    """Return whether the label of each sample is found, and whether it is in the gallery."""
    embeddings = read_embeddings(table)
    hits, scored = np.zeros(table.n), np.zeros(table.n)
    for block in embeddings.compare(later=False):
        cosines = embeddings.compute_cosines(block)
        best = np.where(block.same, cosines, -np.inf).max(axis=1, keepdims=True)
        ahead = np.count_nonzero(block.different & (cosines >= best), axis=1)
        scored[block.queries] = block.same.any(axis=1)
        hits[block.queries] = scored[block.queries] * (ahead < options.count)
    return hits, scored


def compute_random_recall(read: TargetReader, options: MetricOptions) -> float | None:
    """Return the expected recall of a random order of the gallery, all other samples."""
    labels = read_labels(read, options)
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    counts = counts[counts > 1]
    if not counts.size:
        return None
    wrong, gallery = labels.size - counts, labels.size - 1.0
    missed = np.ones(counts.size)
    for place in range(min(options.count, labels.size - 1)):
        missed *= np.maximum(wrong - place, 0) / (gallery - place)
    return float((counts * (1 - missed)).sum() / counts.sum())


METRICS = (
    Metric(
        name="pairs-auc",
        title="AUC of pairs",
        target="the identity, one integer",
        prepare=prepare_pairs(prepare_auc),
        compute_trivial=compute_half,
        check_rows=check_embeddings,
    ),
    Metric(
        name="pairs-eer",
        title="equal error rate of pairs",
        target="the identity, one integer",
        prepare=prepare_pairs(prepare_eer),
        compute_trivial=compute_half,
        higher_is_better=False,
        check_rows=check_embeddings,
    ),
    Metric(
        name="recall",
        title="recall@k",
        target="the identity, one integer",
        prepare=prepare_recall,
        compute_trivial=compute_random_recall,
        check_rows=check_embeddings,
        sample_value=SampleValue(compute=compute_hits, title="label found"),
        answers=None,
    ),
)
