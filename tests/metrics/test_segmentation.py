"""Mean IoU and Dice, against scikit-learn and the tasks' eval.py."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as reference

from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import MetricOptions
from tests.builders.metrics.values import (
    check_weights,
    compute_row,
    compute_table,
    compute_trivial,
    compute_value,
    run_task,
)

UNSCORED = MetricOptions(ignore=255)


def make_masks(classes, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, (4, 5, 7)).astype(np.uint8)
    logits = rng.normal(size=(4, classes, 5, 7)) + 2 * (
        targets[:, None] == np.arange(classes)[:, None, None]
    )
    return logits.astype(np.float32), targets


def test_values_equal_those_of_scikit_learn():
    logits, targets = make_masks(4)
    truth, found = targets.ravel(), logits.argmax(axis=1).ravel()
    iou = reference.jaccard_score(truth, found, average=None)
    dice = reference.f1_score(truth, found, average=None)
    assert compute_value("miou", logits, targets) == pytest.approx(iou.mean(), rel=1e-12)
    assert compute_value("dice", logits, targets) == pytest.approx(dice[1:].mean(), rel=1e-12)
    classes = get_metric("miou").compute_classes(compute_table("miou", logits, targets), UNSCORED)
    assert classes == pytest.approx(dict(enumerate(iou)))
    classes = get_metric("dice").compute_classes(compute_table("dice", logits, targets), UNSCORED)
    assert classes == pytest.approx(dict(enumerate(dice)))


@pytest.mark.parametrize("name", ["miou", "dice"])
def test_all_layouts_of_the_same_masks_give_the_same_value(name):
    logits, targets = make_masks(3)
    value = compute_value(name, logits, targets)
    assert compute_value(name, np.moveaxis(logits, 1, -1), targets) == value
    assert compute_value(name, logits, targets[..., None]) == value
    masks = logits.argmax(axis=1)
    assert compute_value(name, masks, targets, output_name="mask") == value
    assert compute_value(name, masks[:, None].astype(np.int32), targets) == value


def test_one_channel_is_compared_with_the_threshold():
    targets = np.array([[[0, 1], [1, 1]]])
    scores = np.array([[[0.2, 0.4], [0.9, 0.1]]], np.float32)
    assert compute_value("dice", scores, targets) == pytest.approx(2 * 1 / (1 + 3))
    low = MetricOptions(threshold=0.3)
    assert compute_value("dice", scores[:, None], targets, low) == pytest.approx(2 * 2 / (2 + 3))
    assert compute_value("miou", scores, targets, low) == pytest.approx((2 / 3 + 1 / 2) / 2)
    logits = MetricOptions(logits=True)
    assert compute_value("dice", scores, targets, logits) == pytest.approx(2 * 3 / (3 + 4))


def test_ignored_positions_do_not_count():
    logits, targets = make_masks(3)
    marked = targets.copy()
    marked[:, 2:] = 255
    expected = compute_value("miou", logits[:, :, :2], targets[:, :2])
    assert compute_value("miou", logits, marked, UNSCORED) == expected
    nothing = np.full((5, 7), 255)
    assert compute_row("miou", logits[0], nothing, UNSCORED).size == 0


def test_classes_that_do_not_occur_in_the_targets_are_left_out():
    targets = np.array([[0, 0, 1, 1]])
    masks = np.array([[0, 2, 1, 1]])
    table = compute_table("miou", masks, targets)
    assert get_metric("miou").compute_value(table, UNSCORED) == pytest.approx((1 / 2 + 1) / 2)
    assert list(get_metric("miou").compute_classes(table, UNSCORED)) == [0, 1]


def test_masks_with_different_largest_classes_are_added_up():
    masks, targets = [np.array([0, 1]), np.array([0, 3])], [np.array([0, 0]), np.array([0, 3])]
    assert compute_value("miou", masks, targets) == pytest.approx((2 / 3 + 1) / 2)


def test_dice_without_foreground_is_undefined():
    assert np.isnan(compute_value("dice", [np.zeros(4, int)], [np.zeros(4, int)]))
    assert compute_trivial("dice", [np.zeros(4, int)]) is None


@pytest.mark.parametrize("name", ["miou", "dice"])
@pytest.mark.parametrize("classes", [2, 5])
def test_weights_count_like_repeated_samples(name, classes):
    check_weights(name, compute_table(name, *make_masks(classes)))


@pytest.mark.parametrize("name", ["miou", "dice"])
@pytest.mark.parametrize("seed", range(5))
def test_no_constant_mask_is_better_than_the_trivial_value(name, seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random((9, 2, 3)) < rng.random((2, 3))).astype(np.uint8)
    targets[rng.random(targets.shape) < 0.1] = 255
    best = max(
        compute_value(name, [np.reshape(mask, (2, 3))] * 9, targets, UNSCORED)
        for mask in itertools.product([0, 1], repeat=6)
    )
    trivial = compute_trivial(name, targets, UNSCORED)
    assert trivial <= best + 1e-12
    # The search is complete for Dice, approximate for mean IoU.
    assert trivial == pytest.approx(best, abs=1e-9 if name == "dice" else 0.02)


def test_the_trivial_mask_of_many_classes_has_the_usual_class_of_each_position():
    targets = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 2]])
    usual = [np.array([0, 1, 2])] * 3
    assert compute_trivial("miou", targets) == pytest.approx(compute_value("miou", usual, targets))
    sizes = [np.array([0, 0, 0]), np.array([0, 1])]
    assert 4 / 5 / 2 < compute_trivial("miou", sizes) < 0.41


def test_random_masks_reach_the_trivial_value_where_no_constant_mask_does():
    rng = np.random.default_rng(3)
    targets = [rng.integers(0, 2, (n % 5 + 3, 7)) for n in range(60)]  # of no common size
    drawn = [rng.permutation(each.reshape(-1)).reshape(each.shape) for each in targets]
    constant = [np.zeros_like(each) for each in targets]
    found = compute_trivial("miou", targets)
    assert compute_value("miou", drawn, targets) == pytest.approx(found, abs=0.02)
    assert compute_value("miou", constant, targets) < 0.8 * found


@pytest.mark.parametrize(
    ("output", "target", "options", "said"),
    [
        (np.zeros((3, 4, 4)), np.zeros((4, 5)), UNSCORED, "has shape"),
        (np.zeros((3, 4, 5)), np.full((4, 5), 3), UNSCORED, "label 3 .* from 0 to 2"),
        (np.zeros((3, 4, 5)), np.full((4, 5), 255), MetricOptions(), "label 255 "),
        (np.zeros((3, 4, 5)), np.full((4, 5), -1), UNSCORED, "label -1 "),
        (np.zeros((4, 5)), np.full((4, 5), 255), MetricOptions(), "label 255 .* from 0 to 1"),
        (np.full((4, 5), 3), np.zeros((4, 5)), MetricOptions(classes=3), "class 3 in the output"),
        (np.zeros((3, 4, 5)), np.full((4, 5), 0.5), UNSCORED, "whole numbers"),
        (np.zeros((3, 4, 5)), np.zeros((4, 5)), MetricOptions(classes=2), "3 classes, not 2"),
    ],
)
def test_masks_that_do_not_fit_are_refused(output, target, options, said):
    with pytest.raises(AgentError, match=said):
        compute_row("miou", output, target, options)


@pytest.mark.zoo
def test_values_of_a_real_segmenter_equal_those_of_its_eval():
    task = run_task("seg-camvid-unet", 60)
    outputs = np.concatenate([call[0] for call in task.calls])
    targets = np.load(task.folder / "eval.npz")["mask"][:60]
    value = compute_value("miou", outputs[:60], targets, UNSCORED)
    assert value == pytest.approx(task.values["miou"], abs=1e-9)
    assert compute_trivial("miou", targets, UNSCORED) < value
