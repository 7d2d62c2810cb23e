"""Macro F1, log loss, calibration error and multi-label metrics, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss

from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import load_statistic
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import check_weights, compute, compute_trivial, make_sample, make_table

LOGITS = MetricOptions(logits=True)
seeds = st.integers(0, 2**32 - 1)
few_examples = settings(max_examples=40, deadline=None)


def draw_classes(seed, n=60, classes=5):
    """Draw labels and logits of which some are right; not every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n) * rng.integers(0, 2, n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += rng.integers(0, 3)
    return labels, logits


def soften(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def draw_labels(seed, n=50, classes=4):
    """Draw multi-label targets and scores with many ties."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, classes)) < rng.random(classes)).astype(np.int64)
    scores = np.clip(np.round(rng.normal(targets * 0.3 + 0.3, 0.3), 1), 0, 1)
    return targets, scores


@given(seeds)
@few_examples
def test_macro_f1_is_that_of_scikit_learn(seed):
    labels, logits = draw_classes(seed)
    expected = f1_score(labels, logits.argmax(1), average="macro")
    assert compute("macro-f1", logits, labels) == pytest.approx(expected, abs=1e-12)
    check_weights("macro-f1", make_table("macro-f1", logits, labels), seed=seed)


def test_f1_of_each_class():
    labels, logits = draw_classes(3)
    table = make_table("macro-f1", logits, labels)
    found = get_metric("macro-f1").compute_classes(table, MetricOptions())
    wanted = f1_score(labels, logits.argmax(1), average=None, labels=list(found))
    assert list(found.values()) == pytest.approx(list(wanted), abs=1e-12)


def test_macro_f1_of_one_score_uses_the_threshold():
    labels, scores = [0, 1, 1, 0, 1], [0.2, 0.4, 0.9, 0.6, 0.3]
    expected = f1_score(labels, np.greater(scores, 0.35), average="macro")
    assert compute("macro-f1", scores, labels, MetricOptions(threshold=0.35)) == expected
    logits = np.log(scores) - np.log1p(-np.array(scores))
    options = MetricOptions(threshold=0.35, logits=True)
    assert compute("macro-f1", logits, labels, options) == expected


def test_frames_of_a_stream_count_like_samples_and_ignored_ones_do_not():
    labels, logits = draw_classes(1)
    options = MetricOptions(ignore=4)
    kept = labels != 4
    for name in ("macro-f1", "log-loss", "ece"):
        alone = compute(name, logits[kept], labels[kept], LOGITS)
        chosen = MetricOptions(ignore=4, logits=True)
        streams = compute(name, logits.reshape(6, 10, 5), labels.reshape(6, 10), chosen)
        assert streams == pytest.approx(alone, abs=1e-12)
        channels_first = logits.reshape(6, 10, 5).transpose(0, 2, 1)
        assert compute(name, channels_first, labels.reshape(6, 10), chosen) == streams
    table = make_table("macro-f1", logits.reshape(6, 10, 5), labels.reshape(6, 10), options)
    check_weights("macro-f1", table, options)
    assert load_statistic("log-loss")(make_sample(logits[0], [4]), options).size == 0


@given(seeds)
@few_examples
def test_log_loss_of_logits_and_of_probabilities_is_that_of_scikit_learn(seed):
    labels, logits = draw_classes(seed)
    shares = soften(logits)
    expected = log_loss(labels, shares, labels=range(5))
    assert compute("log-loss", logits, labels, LOGITS) == pytest.approx(expected, rel=1e-12)
    assert compute("log-loss", shares, labels) == pytest.approx(expected, rel=1e-12)
    check_weights("log-loss", make_table("log-loss", shares, labels), seed=seed)


def test_log_loss_of_one_score_and_of_a_certain_mistake():
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.2, 0.4, 0.9, 0.6])
    expected = log_loss(labels, scores)
    assert compute("log-loss", scores, labels) == pytest.approx(expected, rel=1e-12)
    logits = np.log(scores) - np.log1p(-scores)
    assert compute("log-loss", logits, labels, LOGITS) == pytest.approx(expected, rel=1e-12)
    certain = log_loss([0, 1], [[0.0, 1.0], [0.0, 1.0]])
    assert compute("log-loss", [[0.0, 1.0]] * 2, [0, 1]) == pytest.approx(certain, rel=1e-12)
    assert compute("log-loss", [[0.0, 1e4]] * 2, [0, 1], LOGITS) == pytest.approx(certain)
    masked = [[-np.inf, 1.0]] * 2
    assert compute("log-loss", masked, [0, 1], LOGITS) == pytest.approx(certain)


@given(seeds)
@few_examples
def test_calibration_error_follows_the_formula_of_guo(seed):
    labels, logits = draw_classes(seed)
    shares = soften(logits)
    confidence, hits = shares.max(1), shares.argmax(1) == labels
    expected = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(hits[inside].mean() - confidence[inside].mean())
    assert compute("ece", logits, labels, LOGITS) == pytest.approx(expected, abs=1e-12)
    assert compute("ece", shares, labels) == pytest.approx(expected, abs=1e-12)
    check_weights("ece", make_table("ece", shares, labels), seed=seed)


def test_a_calibrated_score_has_no_calibration_error_and_a_certain_mistake_has_all():
    assert compute("ece", [0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0, abs=1e-12)
    assert compute("ece", [1.0, 0.0], [0, 1]) == 1


@given(seeds)
@few_examples
def test_multilabel_metrics_are_those_of_scikit_learn(seed):
    targets, scores = draw_labels(seed)
    occurring = targets.any(axis=0)
    precision = average_precision_score(targets[:, occurring], scores[:, occurring])
    assert compute("multilabel-map", scores, targets) == pytest.approx(precision, abs=1e-12)
    expected = f1_score(targets, scores > 0.5, average="macro", zero_division=np.nan)
    assert compute("multilabel-f1", scores, targets) == pytest.approx(expected, abs=1e-12)
    for name in ("multilabel-map", "multilabel-f1"):
        check_weights(name, make_table(name, scores, targets), seed=seed)


def test_classes_that_are_not_known_of_a_sample_are_left_out():
    targets, scores = draw_labels(5)
    partial = targets.copy()
    partial[::3, 1] = -1
    options = MetricOptions(ignore=-1)
    known = partial[:, 1] >= 0
    found = get_metric("multilabel-map").compute_classes(
        make_table("multilabel-map", scores, partial, options), options
    )
    assert found[1] == pytest.approx(average_precision_score(targets[known, 1], scores[known, 1]))
    assert found[0] == pytest.approx(average_precision_score(targets[:, 0], scores[:, 0]))
    f1 = get_metric("multilabel-f1").compute_classes(
        make_table("multilabel-f1", scores, partial, options), options
    )
    assert f1[1] == pytest.approx(f1_score(targets[known, 1], scores[known, 1] > 0.5))


def test_multilabel_f1_of_logits_applies_the_sigmoid():
    targets = [[1, 0], [1, 1]]
    assert compute("multilabel-f1", [[3.0, -3.0], [0.1, 0.2]], targets, LOGITS) == 1
    assert compute("multilabel-f1", [[3.0, -3.0], [0.1, 0.2]], targets) < 1


@pytest.mark.parametrize("seed", range(4))
def test_trivial_values_are_those_of_the_best_constant_prediction(seed):
    labels, _ = draw_classes(seed)
    shares = np.bincount(labels, minlength=5) / labels.size
    frequencies = compute("log-loss", np.tile(shares, (60, 1)), labels)
    assert compute_trivial("log-loss", labels) == pytest.approx(frequencies)
    targets, scores = draw_labels(seed)
    expected = compute("multilabel-f1", np.ones_like(scores), targets)
    assert compute_trivial("multilabel-f1", targets) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_random_classes_reach_the_trivial_macro_f1_and_constant_ones_do_not(seed):
    labels, _ = draw_classes(seed)
    rng, found = np.random.default_rng(seed), compute_trivial("macro-f1", labels)
    drawn = [compute("macro-f1", np.eye(5)[rng.permutation(labels)], labels) for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(found, abs=0.02)
    for number in np.unique(labels):
        assert compute("macro-f1", np.tile(np.eye(5)[number], (60, 1)), labels) < found


@pytest.mark.parametrize("seed", range(4))
def test_scores_in_random_order_reach_the_trivial_average_precision(seed):
    targets, scores = draw_labels(seed)
    rng, found = np.random.default_rng(seed), compute_trivial("multilabel-map", targets)
    drawn = [compute("multilabel-map", rng.random(scores.shape), targets) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(found, abs=0.01)
    assert compute("multilabel-map", np.ones_like(scores), targets) < found


@pytest.mark.parametrize(
    ("name", "output", "y", "message"),
    [
        ("macro-f1", [0.1, 0.9], [2], "label 2 of sample 0 must be from 0 to 1"),
        ("macro-f1", [0.1, 0.9], [-1], "label -1"),
        ("log-loss", [0.1, 0.9], [0.5], "whole numbers"),
        ("ece", [0.1, 0.9], [0, 1, 1], r"shape \(3,\), but its scored output \(2,\)"),
        ("log-loss", [np.nan, 0.9], [0], "NaN"),
        ("ece", [], [0], "empty"),
        ("multilabel-map", [0.1, 0.9], [1], r"shape \(1,\)"),
        ("multilabel-f1", [0.1, 0.9], [1, 2], "neither 0 nor 1"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(name, output, y, message):
    with pytest.raises(AgentError, match=message):
        load_statistic(name)(make_sample(output, y), MetricOptions())
