"""AUC, equal error rate and rank correlation, against scikit-learn and scipy."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import load_statistic
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import check_weights, compute, compute_trivial, make_sample, make_table

seeds = st.integers(0, 2**32 - 1)
few_examples = settings(max_examples=40, deadline=None)


def draw_scores(seed, n=60, digits=1):
    """Draw labels, of both classes, and scores with ties."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
    return labels, np.round(rng.normal(labels, 1), digits)


def compute_eer(labels, scores):
    false, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    best = np.argmin(np.abs(1 - hits - false))
    return (1 - hits[best] + false[best]) / 2


@given(seeds)
@few_examples
def test_auc_is_that_of_scikit_learn(seed):
    labels, scores = draw_scores(seed)
    expected = roc_auc_score(labels, scores)
    assert compute("auc", scores, labels) == pytest.approx(expected, abs=1e-12)
    check_weights("auc", make_table("auc", scores, labels), seed=seed)


@given(seeds, st.sampled_from([1, 8]), st.sampled_from([20, 1500]))
@few_examples
def test_equal_error_rate_is_that_of_the_roc_curve(seed, digits, n):
    labels, scores = draw_scores(seed, n=n, digits=digits)
    expected = compute_eer(labels, scores)
    assert compute("eer", scores, labels) == pytest.approx(expected, abs=1e-12)
    check_weights("eer", make_table("eer", scores, labels), seed=seed)


@given(seeds)
@few_examples
def test_spearman_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    targets = np.round(rng.normal(size=50), 1)
    values = np.round(targets + rng.normal(size=50), 1)
    expected = spearmanr(targets, values).statistic
    assert compute("spearman", values, targets) == pytest.approx(expected, abs=1e-12)
    check_weights("spearman", make_table("spearman", values, targets), seed=seed)


def test_constant_scores_are_worth_as_much_as_a_guess():
    labels = [1] * 5 + [0] * 5  # sorted, so that the order of the data would separate them
    assert compute("auc", np.zeros(10), labels) == compute_trivial("auc", labels) == 0.5
    assert compute("eer", np.zeros(10), labels) == compute_trivial("eer", labels) == 0.5
    assert compute("spearman", np.zeros(10), np.arange(10)) == compute_trivial("spearman", [1]) == 0


def test_values_without_both_classes_or_with_equal_targets_are_undefined():
    for name in ("auc", "eer"):
        assert np.isnan(compute(name, [0.1, 0.2], [1, 1]))
        assert np.isnan(compute(name, [0.1, 0.2], [0, 0]))
        weights = np.array([[1.0, 1, 0], [1, 0, 1]])
        table = make_table(name, [0.1, 0.2, 0.3], [0, 1, 0])
        found = get_metric(name).prepare(table, MetricOptions())(weights)
        assert np.isnan(found).tolist() == [False, True]
    assert np.isnan(compute("spearman", [1.0, 2.0], [3.0, 3.0]))


def test_two_class_scores_rank_by_the_second_and_two_logits_by_their_difference():
    labels, logits = [0, 0, 1, 1], np.array([[0.0, 1.0], [2.0, 2.0], [-3.0, 0.0], [1.0, 3.0]])
    expected = roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    assert compute("auc", logits, labels, MetricOptions(logits=True)) == expected
    assert compute("auc", logits, labels) == roc_auc_score(labels, logits[:, 1])


@pytest.mark.parametrize("name", ["auc", "eer"])
def test_streams_of_frames_are_weighted_as_wholes(name):
    labels, scores = draw_scores(2)
    options = MetricOptions(ignore=-1)
    labels[::7] = -1
    kept = labels >= 0
    table = make_table(name, scores.reshape(6, 10, 1), labels.reshape(6, 10), options)
    found = get_metric(name).compute_value(table, options)
    assert found == compute(name, scores[kept], labels[kept])
    check_weights(name, table, options)


def test_reconstruction_auc_scores_the_squared_error_of_the_input_of_the_same_shape():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 30)
    signals = rng.normal(size=(30, 4, 3)).astype(np.float32)
    outputs = signals + rng.normal(size=signals.shape) * (1 + labels[:, None, None])
    errors = np.square(outputs - signals).mean(axis=(1, 2))
    statistic = load_statistic("reconstruction-auc")
    rows = [
        statistic(
            make_sample(output, y, inputs={"length": np.array([3]), "signal": signal}),
            MetricOptions(),
        )
        for output, y, signal in zip(outputs, labels, signals, strict=True)
    ]
    assert [row[0] for row in rows] == labels.tolist()
    assert [row[1] for row in rows] == pytest.approx(errors, rel=1e-12)
    assert [row[2] for row in rows] == pytest.approx(outputs.mean(axis=(1, 2)), rel=1e-12)
    assert [row[3] for row in rows] == pytest.approx((outputs**2).mean(axis=(1, 2)), rel=1e-12)

    broken = make_sample(np.full((4, 3), np.inf), 1, inputs={"signal": signals[0]})
    assert statistic(broken, MetricOptions())[1] > max(errors)
    with pytest.raises(AgentError, match="no input has the shape"):
        statistic(make_sample(outputs[0], 1, inputs={"length": np.array([3])}), MetricOptions())


@pytest.mark.parametrize(
    ("name", "output", "y", "message"),
    [
        ("auc", [0.1, 0.2, 0.7], [1], "the output has 3"),
        ("auc", [0.1], [2], "must be from 0 to 1"),
        ("eer", [0.1, 0.2], [0, 1, 1], "its scored output"),
        ("spearman", [0.1, 0.2], [1.0], "2 output values"),
        ("spearman", [0.1], [np.nan], "not a finite number"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(name, output, y, message):
    with pytest.raises(AgentError, match=message):
        load_statistic(name)(make_sample(output, y), MetricOptions())


@pytest.mark.parametrize("name", ["auc", "eer", "spearman"])
def test_ten_thousand_resamples_of_four_thousand_samples_take_seconds(name):
    labels, scores = draw_scores(0, n=4000, digits=6)
    aggregate = get_metric(name).prepare(make_table(name, scores, labels), MetricOptions())
    weights = np.random.default_rng(0).poisson(1, (100, 4000)).astype(np.float64)
    start = time.process_time()
    aggregate(weights)
    assert time.process_time() - start < 0.3  # of 100; 30 s of 10,000 on a slow machine
