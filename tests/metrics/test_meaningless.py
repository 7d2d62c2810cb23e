"""Originals whose value says nothing are found, and small sets of good ones are not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.metrics.meaningless import (
    compute_binomial_tail,
    find_meaningless,
    find_uninformative,
)
from edgekit.metrics.metric import Margin, Metric, Table, aggregate_sums
from edgekit.metrics.registry import get_metric
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import make_table

OPTIONS = MetricOptions()
TOP1 = get_metric("top1")


def make_reader(targets):
    return lambda: iter([{"y": np.asarray(target)} for target in targets])


def compute_median_error(read, options):
    values = np.concatenate([targets["y"].reshape(-1) for targets in read()])
    return float(np.abs(values - np.median(values)).mean())


ERROR = Metric(
    name="error",
    title="error",
    prepare=aggregate_sums(lambda sums: sums[:, 0] / sums[:, 1]),
    compute_trivial=compute_median_error,
    higher_is_better=False,
    is_share=False,
)
FREE = Metric(
    name="free",
    title="free",
    prepare=aggregate_sums(lambda sums: sums[:, 0] / sums[:, 1]),
    compute_trivial=lambda read, options: None,
)


def judge_classes(labels, predictions, groups=None):
    rows = [np.array([p == y, p], np.float64) for p, y in zip(predictions, labels, strict=True)]
    table = Table(rows=tuple(rows), groups=groups)
    return find_meaningless(TOP1, table, make_reader(labels), OPTIONS)


def judge_values(metric, targets, predictions, groups=None):
    errors = np.abs(np.asarray(targets, float) - np.asarray(predictions, float))
    rows = tuple(np.array([error, 1.0]) for error in errors)
    return find_meaningless(metric, Table(rows=rows, groups=groups), make_reader(targets), OPTIONS)


@pytest.mark.parametrize("labels", [[0, 1] * 5, [0] * 9 + [1], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_ten_of_ten_correct_says_something(labels):
    assert judge_classes(labels, labels) == ""


def test_nine_of_ten_correct_of_ten_classes_says_something():
    assert judge_classes(range(10), [*range(9), 0]) == ""


@pytest.mark.parametrize(
    ("labels", "predictions", "reason"),
    [
        ([0] * 16, [0] * 16, "all targets are the same"),
        ([0, 0, 0, 1], [0, 0, 0, 0], "always predicts class 0"),
        ([0, 1] * 50, [0, 1, 1, 0] * 25, "not significantly better than 50.00 %"),
        ([0, 1, 2, 3] * 25, [1, 2, 3, 0] * 25, "is 0.00 % on 100 samples"),
        ([0] * 95 + [1] * 5, [0] * 93 + [1] * 7, "not significantly better than 95.00 %"),
        ([3], [3], "two or more are needed"),
    ],
)
def test_no_better_than_the_most_common_class_says_nothing(labels, predictions, reason):
    found = judge_classes(labels, predictions)

    assert reason in found
    assert "check" in found or "needed" in found


def test_random_predictions_pass_in_at_most_about_five_percent_of_cases():
    rng = np.random.default_rng(0)
    passed = [
        judge_classes(rng.integers(0, 4, 80), rng.integers(0, 4, 80)) == "" for _ in range(300)
    ]

    assert sum(passed) <= 24


def test_correct_samples_of_one_patient_are_no_evidence():
    labels = np.repeat([0, 1, 0, 1], 50)
    predictions = np.repeat([0, 1, 0, 0], 50)

    assert judge_classes(labels, predictions) == ""
    assert "not significantly" in judge_classes(labels, predictions, np.repeat(np.arange(4), 50))


def test_a_regressor_must_beat_the_median():
    rng = np.random.default_rng(1)
    targets = rng.normal(50, 10, 60)

    assert judge_values(ERROR, targets, targets + rng.normal(0, 5, 60)) == ""
    assert judge_values(ERROR, targets, targets) == ""
    assert "error of the original is" in judge_values(ERROR, targets, np.full(60, 50.0))
    assert "not significantly" in judge_values(ERROR, targets, rng.permutation(targets))


def test_zero_targets_say_nothing():
    targets = np.zeros((16, 4, 4))
    rows = tuple(np.array([0.3 + i, 16.0]) for i in range(16))

    found = find_meaningless(ERROR, Table(rows=rows), make_reader(targets), OPTIONS)

    assert "all targets are the same" in found


def test_an_undefined_value_says_nothing():
    rows = tuple(np.array([1.0, 0.0]) for _ in range(16))

    found = find_meaningless(ERROR, Table(rows=rows), make_reader(range(16)), OPTIONS)

    assert "undefined" in found


def test_without_a_trivial_predictor_only_a_constant_statistic_says_nothing():
    assert "the same for all 5 samples" in judge_values(FREE, range(5), np.arange(5) + 1.0)
    assert judge_values(FREE, range(5), np.zeros(5)) == ""


def test_samples_that_are_not_scored_do_not_count():
    rows = (np.array([1.0, 2.0]), np.zeros(0), np.zeros(0))

    found = find_meaningless(TOP1, Table(rows=rows), make_reader([2, 3, 4]), OPTIONS)

    assert found.startswith("1 of 3 samples are scored by top1")


@pytest.mark.parametrize(("k", "n", "p"), [(8, 10, 0.5), (60, 100, 0.5), (3, 500, 0.001)])
def test_the_binomial_tail_is_the_sum_of_its_terms(k, n, p):
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    assert compute_binomial_tail(k, n, p) == pytest.approx(exact, rel=1e-9)


def make_noise(*shape):
    return np.random.default_rng(7).normal(0, 1, shape)


LABELS = np.arange(60) % 3
BINARY = np.arange(60) % 2
MASKS = np.random.default_rng(8).integers(0, 2, (30, 8, 8))
TEXTS = [np.array([97 + i % 20, 98 + i % 3, 99], np.int32) for i in range(30)]
IMAGES = np.random.default_rng(9).random((20, 6, 6))


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("top1", make_noise(60, 3), LABELS),
        ("top1", np.ones((60, 3)), LABELS),
        ("macro-f1", np.ones((60, 3)), LABELS),
        ("log-loss", np.full((60, 3), 1 / 3), LABELS),
        ("auc", make_noise(60, 1), BINARY),
        ("auc", -10.0 * BINARY[:, None], BINARY),
        ("auc", make_noise(60, 1), np.zeros(60, int)),
        ("eer", np.ones((60, 1)), BINARY),
        ("spearman", make_noise(60, 1), np.arange(60.0)),
        ("spearman", np.ones((60, 1)), np.arange(60.0)),
        ("r2", make_noise(60, 1), np.full((60, 1), 5.0)),
        ("r2", make_noise(60, 1), np.arange(60.0)[:, None]),
        ("mae", np.zeros((60, 1)), np.arange(60.0)[:, None]),
        ("rmse", np.full((60, 1), 29.5), np.arange(60.0)[:, None]),
        ("psnr", np.zeros((20, 6, 6)), IMAGES),
        ("psnr", IMAGES, np.zeros((20, 6, 6))),
        ("miou", np.zeros((30, 8, 8), int), MASKS),
        ("dice", np.ones((30, 8, 8), int), np.zeros((30, 8, 8), int)),
        ("cer", [np.array([97], np.int32)] * 30, TEXTS),
        ("cer", TEXTS[1:] + TEXTS[:1], TEXTS),
    ],
)
def test_outputs_that_ignore_the_targets_say_nothing(name, outputs, targets):
    assert "check" in judge_outputs(name, outputs, targets)


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("top1", np.eye(3)[LABELS][:6], LABELS[:6]),
        ("macro-f1", np.eye(3)[LABELS] + 0.3 * make_noise(60, 3), LABELS),
        ("auc", BINARY[:10, None] + 0.0, BINARY[:10]),
        ("eer", BINARY[:, None] + 0.5 * make_noise(60, 1), BINARY),
        ("spearman", np.arange(12.0)[:, None] + make_noise(12, 1), np.arange(12.0)),
        ("r2", np.arange(12.0)[:, None] + make_noise(12, 1), np.arange(12.0)[:, None]),
        ("mae", np.arange(12.0)[:, None] + make_noise(12, 1), np.arange(12.0)[:, None]),
        ("psnr", IMAGES + 0.1 * make_noise(20, 6, 6), IMAGES),
        ("miou", np.where(make_noise(30, 8, 8) > 1, 0, MASKS), MASKS),
        ("dice", MASKS[:5], MASKS[:5]),
        ("cer", TEXTS[:10], TEXTS[:10]),
    ],
)
def test_small_sets_of_models_that_work_say_something(name, outputs, targets):
    assert judge_outputs(name, outputs, targets) == ""


def judge_outputs(name, outputs, targets):
    table = make_table(name, outputs, targets)
    return find_meaningless(get_metric(name), table, make_reader(targets), OPTIONS)


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("top1", np.eye(2)[[0, 1, 1, 0]], np.array([0, 1, 1, 0])),
        ("auc", np.array([0.2, 0.9, 0.8, 0.1])[:, None], np.array([0, 1, 1, 0])),
        ("spearman", np.arange(5.0)[:, None], np.arange(5.0)),
    ],
)
def test_a_perfect_value_of_five_targets_may_be_chance(name, outputs, targets):
    assert "may be chance: use 6 samples or more" in judge_outputs(name, outputs, targets)


@pytest.mark.parametrize("name", ["macro-f1", "miou", "multilabel-map"])
def test_random_predictions_of_metrics_over_classes_say_nothing(name):
    rng = np.random.default_rng(2)
    passed = 0
    for _ in range(40):
        shape = {"macro-f1": (60,), "miou": (60, 3, 3), "multilabel-map": (60, 3)}[name]
        targets = rng.integers(0, 2, shape)
        drawn = rng.random(shape)
        outputs = drawn if name == "multilabel-map" else np.stack([drawn, 1 - drawn], axis=1)
        passed += judge_outputs(name, outputs, targets) == ""
    assert passed <= 6  # 2 are expected at a level of 5 %


def draw_probabilities(n, informative, seed=0):
    """Draw labels of two classes, and probabilities that are calibrated either way."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0.02, 0.98, n) if informative else np.full(n, 0.5)
    labels = (rng.random(n) < shares).astype(np.int64)
    return np.stack([1 - shares, shares], axis=1), labels


def test_calibrated_probabilities_that_predict_nothing_say_nothing():
    assert judge_outputs("ece", *draw_probabilities(200, informative=True)) == ""
    found = judge_outputs("ece", *draw_probabilities(200, informative=False))
    assert found.startswith("ece can be as good for a predictor that ignores its input; accuracy")


def test_probabilities_of_a_rare_class_say_something_without_a_correct_guess():
    rng = np.random.default_rng(1)
    shares = np.where(rng.random(2000) < 0.1, 0.4, 0.01)
    labels = (rng.random(2000) < shares).astype(np.int64)
    assert judge_outputs("ece", np.stack([1 - shares, shares], axis=1), labels) == ""


def judge_candidate(hits, labels, margin, before=0.995):
    rows = tuple(np.array([hit, 0.0]) for hit in hits)
    reader, trivial = make_reader(labels), TOP1.compute_trivial(make_reader(labels), OPTIONS)
    return find_uninformative(
        TOP1,
        Table(rows=rows),
        reader,
        OPTIONS,
        before=before,
        trivial=trivial,
        margin=Margin(value=margin),
    )


def test_a_constant_candidate_within_a_wide_margin_says_nothing():
    labels = np.array([0] * 980 + [1] * 20)
    constant, good = labels == 0, np.arange(1000) % 200 != 0
    assert "top1 of the candidate is 98.00 %" in judge_candidate(constant, labels, margin=2.0)
    assert judge_candidate(good, labels, margin=2.0) == ""
    assert judge_candidate(constant, labels, margin=1.0) == ""  # the margin is narrow enough


def make_autoencoder_rows(x, again, labels):
    columns = labels, ((x - again) ** 2).mean(1), again.mean(1), (again**2).mean(1)
    rows = tuple(np.stack(columns, axis=1))
    samples = [{"y": np.array(y), "input:x": row} for y, row in zip(labels, x, strict=True)]
    return rows, lambda: iter(samples)


def test_an_autoencoder_must_exceed_a_constant_reconstruction():
    rng = np.random.default_rng(3)
    labels, x = np.arange(60) % 2, rng.normal(5, 1, (60, 8))
    x[labels == 1, 4:] += 1.5 * rng.normal(0, 1, (30, 4))
    metric = get_metric("reconstruction-auc")

    def judge(again):
        rows, reader = make_autoencoder_rows(x, again, labels)
        return find_meaningless(metric, Table(rows=rows), reader, OPTIONS)

    sound = np.concatenate([x[:, :4], np.full((60, 4), 5.0)], axis=1)
    assert judge(sound + 0.3 * rng.normal(0, 1, x.shape)) == ""
    for constant in (np.zeros(8), x.mean(axis=0), x[0]):
        assert "of all 60 samples are the same" in judge(np.tile(constant, (60, 1)))
    assert "not significantly better than 50.00 %" in judge(x + rng.normal(0, 1, x.shape))
    nearly = x.mean(axis=0) + 0.01 * rng.normal(0, 1, x.shape)
    assert "the distance of the input from a constant reaches" in judge(nearly + 0.1)


def judge_group_scores(metric, rng, groups, signal):
    """Judge scores of groups that have one target each and an effect of their own."""
    targets = rng.permutation(np.arange(groups) % 2)
    means = rng.normal(size=groups) + signal * targets
    owners = np.repeat(np.arange(groups), 5)
    rows = tuple(np.array([targets[g], means[g] + 0.3 * rng.normal()]) for g in owners)
    reader = make_reader([targets[[g]] for g in owners])
    return find_meaningless(get_metric(metric), Table(rows=rows, groups=owners), reader, OPTIONS)


@pytest.mark.parametrize("metric", ["auc", "eer", "spearman"])
@pytest.mark.parametrize("groups", [6, 10])
def test_chance_order_of_few_groups_seldom_passes(metric, groups):
    rng = np.random.default_rng(groups)
    passes = sum(not judge_group_scores(metric, rng, groups, 0) for _ in range(60))
    assert passes <= 7  # a test at 5 % passes 8 or more times with probability .01


@pytest.mark.parametrize("metric", ["auc", "eer", "spearman"])
def test_real_order_of_twelve_groups_passes(metric):
    rng = np.random.default_rng(1)
    assert sum(not judge_group_scores(metric, rng, 12, 4.0) for _ in range(20)) >= 18


def test_four_groups_of_one_target_each_are_too_few():
    reason = judge_group_scores("auc", np.random.default_rng(2), 4, 9.0)
    assert "17 % of the ways" in reason
    assert "use more groups" in reason
