"""Area under the ROC curve and equal error rate, for many sets of weights at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import Aggregate, Floats
from edgekit.metrics.rows import (
    Indices,
    accumulate,
    compute_in_chunks,
    divide,
    gather_weights,
    prepare_sums_to,
)

Owners = tuple[Indices, ...]
# Thresholds in one block.
_BLOCK = 256


def prepare_auc(positive: NDArray[np.bool_], scores: Floats, owners: Owners) -> Aggregate:
    """Return the area under the ROC curve: the probability that a positive has a higher score.

    Equal scores count one half (Mann-Whitney). Undefined (NaN) without positives or negatives.

    Args:
        positive: Whether each element is of the positive class.
        scores: Score of each element.
        owners: Samples whose weights multiply to that of each element.
    """
    order = np.argsort(scores, kind="stable")
    positives, negatives = order[positive[order]], order[~positive[order]]
    lower = np.searchsorted(scores[negatives], scores[positives], side="left")
    upper = np.searchsorted(scores[negatives], scores[positives], side="right")
    sum_below = prepare_sums_to(np.concatenate([lower, upper, [negatives.size]]))
    positive_owners = tuple(each[positives] for each in owners)
    negative_owners = tuple(each[negatives] for each in owners)

    def compute(weights: Floats) -> Floats:
        sums = sum_below(gather_weights(weights, negative_owners))
        below, not_above = np.split(sums[:, :-1], 2, axis=1)
        mine = gather_weights(weights, positive_owners)
        wins = (mine * (below + not_above)).sum(axis=1)
        return divide(wins, 2 * mine.sum(axis=1) * sums[:, -1])

    return compute_in_chunks(compute, scores.size)


def prepare_group_auc(
    positive: NDArray[np.bool_], scores: Floats, groups: NDArray[np.int64], samples: Indices
) -> Aggregate:
    """Return the area under the ROC curve as ``prepare_auc`` does, where groups have one weight.

    The wins of each group's positives over each group's negatives are counted once, so that a set
    of weights costs the square of the number of groups.

    Args:
        positive: Whether each element is of the positive class.
        scores: Score of each element.
        groups: Group of each element, numbered from 0.
        samples: Sample of each element; those of a group have the same weight.
    """
    count = int(groups.max()) + 1
    order = np.argsort(scores, kind="stable")
    positives, negatives = order[positive[order]], order[~positive[order]]
    lower = np.searchsorted(scores[negatives], scores[positives], side="left")
    upper = np.searchsorted(scores[negatives], scores[positives], side="right")
    wins = np.zeros((count, count))
    for group in range(count):
        below = np.append(0, np.cumsum(groups[negatives] == group))
        halves = (below[lower] + below[upper]).astype(np.float64)
        wins[:, group] = np.bincount(groups[positives], halves, minlength=count)
    sizes = [
        np.bincount(groups[kind], minlength=count).astype(np.float64)
        for kind in (positives, negatives)
    ]
    first = np.zeros(count, np.int64)
    first[groups[::-1]] = samples[::-1]

    def compute(weights: Floats) -> Floats:
        mine = weights[:, first]
        found = ((mine @ wins) * mine).sum(axis=1)
        return divide(found, 2 * (mine @ sizes[0]) * (mine @ sizes[1]))

    return compute


def prepare_eer(positive: NDArray[np.bool_], scores: Floats, owners: Owners) -> Aggregate:
    """Return the equal error rate: where misses and false alarms are equally frequent.

    The threshold is the score at which the two rates differ least; the value is their mean there.
    Equal scores are on the same side of a threshold. Undefined (NaN) without positives or
    negatives.

    Args:
        positive: Whether each element is of the positive class.
        scores: Score of each element.
        owners: Samples whose weights multiply to that of each element.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, scores.size)
    blocks = _ThresholdBlocks(
        positive=positive[order],
        ends=ends,
        block_ends=np.append(ends[_BLOCK - 1 : -1 : _BLOCK], scores.size),
    )
    sorted_owners = tuple(each[order] for each in owners)
    sum_blocks = prepare_sums_to(blocks.block_ends)

    def compute(weights: Floats) -> Floats:
        mine = gather_weights(weights, sorted_owners)
        hits = sum_blocks(mine * blocks.positive)
        alarms = sum_blocks(mine) - hits
        found = [blocks.find_rate(*each) for each in zip(mine, hits, alarms, strict=True)]
        return np.array(found, np.float64)

    return compute_in_chunks(compute, scores.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ThresholdBlocks:
    """Elements by falling score, and thresholds between them in blocks.

    The rates at the ends of the blocks tell the block in which they cross.

    Attributes:
        positive: Whether each element is of the positive class.
        ends: Number of elements above each threshold.
        block_ends: Number of elements above the last threshold of each block.
    """

    positive: NDArray[np.bool_]
    ends: Indices
    block_ends: Indices

    def find_rate(self, weights: Floats, hits: Floats, alarms: Floats) -> float:
        """Return the equal error rate for one set of weights.

        Args:
            weights: Weight of each element.
            hits: Weight of the positives up to the end of each block.
            alarms: Weight of the negatives up to there.
        """
        if not hits[-1] or not alarms[-1]:
            return math.nan
        block = int(np.argmax(1 - hits / hits[-1] <= alarms / alarms[-1]))
        start = int(self.block_ends[block - 1]) if block else 0
        stop = int(self.block_ends[block])
        first, last = np.searchsorted(self.ends, [start, stop], side="right")
        places = np.append(0, self.ends[first:last] - start)
        inside, positive = weights[start:stop], self.positive[start:stop]
        more_hits = accumulate(inside * positive)[places]
        more_alarms = accumulate(inside * ~positive)[places]
        missed = 1 - ((hits[block - 1] if block else 0) + more_hits) / hits[-1]
        false = ((alarms[block - 1] if block else 0) + more_alarms) / alarms[-1]
        best = np.argmin(np.abs(missed - false))
        return float((missed[best] + false[best]) / 2)
