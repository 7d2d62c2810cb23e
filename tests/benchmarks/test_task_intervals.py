"""Scores and paired intervals of `benchmarks.tasks`, on synthetic data with known results."""

from functools import partial

import numpy as np
import pytest

from benchmarks.task_intervals import Evaluation, Gain, mean_gain, paired_gain
from benchmarks.task_metrics import match, mean_iou, mean_precision, ratio, weighted_auc
from benchmarks.task_parts import evaluate
from benchmarks.tasks import entries
from tests.conftest import BESIDE, found_or_skipped


def errors(values, metric="mae"):
    sums = np.stack([values, np.ones(len(values))], 1)
    return Evaluation(
        metric=metric,
        score=float(np.mean(values)),
        units=len(values),
        metric_of=partial(ratio, sums),
    )


def overlap(first, second):
    """Intersection over union of boxes [x0, y0, x1, y1]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    sizes = [(each[:, 2:] - each[:, :2]).prod(1) for each in (first, second)]
    return both / (sizes[0][:, None] + sizes[1] - both)


def test_the_interval_of_a_mean_difference_is_that_of_the_paired_samples():
    rng = np.random.default_rng(1)
    before, saved = rng.gamma(2.0, 10.0, 500), rng.normal(0.3, 1.0, 500)
    gain = paired_gain(errors(before), errors(before - saved))
    half = 1.96 * saved.std() / np.sqrt(500)
    assert gain.value == pytest.approx(saved.mean())
    assert gain.low == pytest.approx(saved.mean() - half, abs=0.15 * half)
    assert gain.high == pytest.approx(saved.mean() + half, abs=0.15 * half)


def test_a_lower_error_and_a_higher_accuracy_are_both_gains():
    low, high = np.full(10, 0.2), np.full(10, 0.6)
    assert paired_gain(errors(high), errors(low)).value == pytest.approx(0.4)
    assert paired_gain(errors(low, "miou"), errors(high, "miou")).value == pytest.approx(0.4)


def test_parts_that_do_not_give_the_score_are_an_error():
    with pytest.raises(ValueError, match=r"mae is 2\.0, but its parts give 1\.0"):
        Evaluation(metric="mae", score=2.0, units=3, metric_of=lambda counts: counts.mean())


def test_identities_counted_twice_weigh_their_pairs_twice():
    owner = np.array([0, 0, 1, 1, 2, 2])
    scores = np.array([0.9, 0.2, 0.4, 0.3, 0.8, 0.1, 0.5, 0.35, 0.45, 0.6, 0.4, 0.2, 0.7, 0.3, 0.9])
    a, b = (owner[each] for each in np.triu_indices(6, 1))
    area = weighted_auc(
        a == b, scores, lambda counts: np.where(a == b, counts[a], counts[a] * counts[b])
    )
    # by hand, with identity 0 counted twice and 2 left out: pairs inside 0 count 2, across 2
    same, other = scores[(a == b) & (a < 2)], scores[(a == 0) & (b == 1)]
    weights = np.array([2.0, 1.0])
    wins = (same[:, None] > other) + 0.5 * (same[:, None] == other)
    assert area(np.array([2.0, 1.0, 0.0])) == pytest.approx(weights @ wins.mean(1) / 3)
    assert np.isnan(area(np.array([3.0, 0.0, 0.0])))


def test_precision_of_one_right_and_one_wrong_box_and_of_images_counted_twice():
    box = np.array([[0.0, 0, 10, 10]])
    two, one = np.array([[0.0, 0, 10, 10], [50.0, 50, 60, 60]]), np.zeros(1, int)
    truths = {7: (two, np.zeros(2, int)), 9: (box, one)}
    found = {
        7: (np.array([[0.0, 0, 10, 10], [80.0, 80, 90, 90]]), np.array([0.9, 0.8]), np.zeros(2)),
        9: (box, np.array([0.7]), np.zeros(1)),
    }
    matches = match(overlap, truths, found)
    # one of two boxes is found first: precision 1 at the 51 recalls 0, .01, ..., .5, then nothing
    assert mean_precision(matches, np.array([1.0, 0.0])) == pytest.approx(51 / 101)
    assert mean_precision(matches, np.array([0.0, 1.0])) == pytest.approx(1)
    # three boxes: recall 1/3 at precision 1 (34 recalls), then 2/3 at precision 2/3 (33)
    assert mean_precision(matches, np.ones(2)) == pytest.approx((34 + 33 * 2 / 3) / 101)
    # image 9 twice, four boxes: recall .25 at precision 1 (26), then .75 at precision 3/4 (50)
    assert mean_precision(matches, np.array([1.0, 2.0])) == pytest.approx((26 + 50 * 0.75) / 101)


def test_a_box_that_overlaps_by_six_tenths_is_right_at_three_of_ten_thresholds():
    truths = {1: (np.array([[0.0, 0, 10, 10]]), np.zeros(1, int))}
    found = {1: (np.array([[0.0, 0, 6.2, 10]]), np.array([0.5]), np.zeros(1))}
    assert mean_precision(match(overlap, truths, found), np.ones(1)) == pytest.approx(0.3)


def test_confusion_of_images_adds_up_by_their_counts():
    tables = np.array([[[3, 1], [0, 4]], [[0, 2], [0, 0]]])
    assert mean_iou(tables, np.array([1.0, 0.0])) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert mean_iou(tables, np.array([1.0, 2.0])) == pytest.approx((3 / 8 + 4 / 9) / 2)


def test_gains_are_averaged_on_the_scale_of_what_fp32_leaves_to_gain():
    reference = errors(np.full(4, 0.8), "auc")
    gain = Gain(value=0.02, low=-0.01, high=0.03).relative_to(reference)
    assert gain.value == pytest.approx(0.1)
    mean = mean_gain([gain, Gain(value=0.3, low=0.3, high=0.3)])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.2, 0.2 - 0.075, 0.2 + 0.025))


@pytest.mark.zoo
@pytest.mark.parametrize("name", ["reg-california-mlp", "vad-silero-op15"])
def test_parts_of_real_tasks_give_the_score_of_their_eval(name):
    home = found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")
    (entry,) = entries(home, [name])
    found = evaluate(home, entry.facts, entry.model)  # compares its parts with the score
    metric = entry.facts["metric"]
    assert found.score == pytest.approx(entry.facts["fp32_score"][f"eval_{metric}"], abs=1e-4)
    same = paired_gain(found, found, resamples=20)
    assert (same.value, same.low, same.high) == (0, 0, 0)
