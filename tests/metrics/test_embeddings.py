"""Pairs of embeddings and retrieval, against scikit-learn on all pairs."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edgekit.metrics import embeddings
from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import load_statistic
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import check_weights, compute, compute_trivial, make_sample, make_table
from tests.metrics.test_ranking import compute_eer


def draw_embeddings(seed, n=40, labels=5, spread=1.0):
    """Draw labels, embeddings of any length around a center for each, and groups of two."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, labels, n)
    vectors = (rng.normal(size=(labels, 8))[y] + spread * rng.normal(size=(n, 8))) * rng.uniform(
        0.1, 10, (n, 1)
    )
    return y, vectors, np.arange(n) // 2


def list_pairs(y, vectors, groups):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [(i, j) for i, j in combinations(range(len(y)), 2) if groups[i] != groups[j]]
    same = [y[i] == y[j] for i, j in pairs]
    return same, [unit[i] @ unit[j] for i, j in pairs]


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_different_groups_are_scored(seed):
    y, vectors, groups = draw_embeddings(seed)
    same, cosines = list_pairs(y, vectors, groups)
    assert compute("pairs-auc", vectors, y, groups=groups) == pytest.approx(
        roc_auc_score(same, cosines), abs=1e-12
    )
    assert compute("pairs-eer", vectors, y, groups=groups) == pytest.approx(
        compute_eer(same, cosines), abs=1e-12
    )
    for name in ("pairs-auc", "pairs-eer"):
        check_weights(name, make_table(name, vectors, y, groups=groups), seed=seed)


def test_without_groups_all_pairs_are_scored():
    y, vectors, _ = draw_embeddings(0)
    same, cosines = list_pairs(y, vectors, np.arange(len(y)))
    assert compute("pairs-auc", vectors, y) == pytest.approx(roc_auc_score(same, cosines))


def test_constant_embeddings_are_worth_as_much_as_a_guess():
    y = np.repeat(np.arange(4), 5)
    vectors = np.tile([1.0, 2.0, 2.0], (20, 1))
    for name in ("pairs-auc", "pairs-eer"):
        assert compute(name, vectors, y) == compute_trivial(name, y) == 0.5
    assert compute("recall", vectors, y) == 0


def test_of_very_many_pairs_the_same_part_is_drawn_for_every_model(monkeypatch):
    y, vectors, groups = draw_embeddings(0, n=300)
    whole = compute("pairs-auc", vectors, y, groups=groups)
    monkeypatch.setattr(embeddings, "MOST_PAIRS", 4000)
    monkeypatch.setattr(embeddings, "_BLOCK", 3000)
    part = compute("pairs-auc", vectors, y, groups=groups)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.02)
    assert compute("pairs-auc", 2 * vectors, y, groups=groups) == part


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("grouped", [True, False])
def test_recall_is_the_share_of_samples_with_their_label_among_the_nearest(k, grouped):
    y, vectors, groups = draw_embeddings(1, labels=12)
    groups = groups if grouped else None
    apart = np.arange(40) if groups is None else groups
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = []
    for i in range(40):
        gallery = np.flatnonzero(apart != apart[i])
        nearest = gallery[np.argsort(-(unit @ unit[i])[gallery])[:k]]
        if (y[gallery] == y[i]).any():
            hits.append((y[nearest] == y[i]).any())
    options = MetricOptions(count=k)
    assert compute("recall", vectors, y, options, groups) == pytest.approx(np.mean(hits))


def test_weights_of_recall_apply_to_the_queries():
    y = [0, 0, 1, 1, 2]
    vectors = np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 0.05], [-1, 0]])
    aggregate = get_metric("recall").prepare(make_table("recall", vectors, y), MetricOptions())
    weights = np.array([[1.0, 1, 1, 1, 1], [2, 1, 1, 0, 9], [0, 0, 0, 0, 1]])
    found = aggregate(weights)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(5)
    hits = np.array(y)[cosines.argmax(1)] == y
    scored = np.array([1, 1, 1, 1, 0])  # the label of the last occurs once
    expected = weights[:2] @ (hits * scored) / (weights[:2] @ scored)
    assert found[:2] == pytest.approx(expected)
    assert np.isnan(found[2])


@pytest.mark.parametrize("k", [1, 4])
def test_trivial_recall_is_that_of_random_embeddings(k):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 60)
    options = MetricOptions(count=k)
    found = [compute("recall", rng.normal(size=(60, 16)), y, options) for _ in range(300)]
    assert compute_trivial("recall", y, options) == pytest.approx(np.mean(found), abs=0.015)


@pytest.mark.parametrize(
    ("output", "y", "message"),
    [
        ([0.5], [1], "several values"),
        ([0.5, 1], [1, 2], "one label"),
        ([0.5, np.inf], [1], "not finite"),
    ],
)
def test_outputs_that_are_no_embeddings_are_refused(output, y, message):
    with pytest.raises(AgentError, match=message):
        load_statistic("pairs-auc")(make_sample(output, y), MetricOptions())
