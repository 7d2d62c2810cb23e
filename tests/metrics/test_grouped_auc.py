"""AUC of samples in groups, counted once for each pair of groups."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgekit.metrics.comparison import compare
from edgekit.metrics.metric import Table
from edgekit.metrics.registry import get_metric
from edgekit_agent.scoring import MetricOptions

OPTIONS = MetricOptions()
AUC = get_metric("auc")


def make_table(groups, seed, *, digits=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, len(groups)).astype(float)
    scores = (labels + rng.normal(0, 1, len(groups))).round(digits)  # some are equal
    rows = tuple(np.array(row) for row in zip(labels, scores, strict=True))
    return Table(rows=rows, groups=groups)


@pytest.mark.parametrize("seed", range(5))
def test_groups_change_nothing_but_the_time(seed):
    rng = np.random.default_rng(seed)
    groups = rng.choice([3, 5, 8, 99], 60)
    table = make_table(groups, seed)
    each = rng.integers(0, 4, (20, 100))
    weights = each[:, groups].astype(float)
    alone = Table(rows=table.rows)

    np.testing.assert_allclose(
        AUC.prepare(table, OPTIONS)(weights), AUC.prepare(alone, OPTIONS)(weights), rtol=1e-12
    )


def test_streams_of_many_frames_are_compared_in_seconds():
    groups = np.repeat(np.arange(60), 500)
    begun = time.process_time()
    found = compare(AUC, make_table(groups, 1), make_table(groups, 1, digits=0), options=OPTIONS)
    assert found.groups == 60
    assert time.process_time() - begun < 10
