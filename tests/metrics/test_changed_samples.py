"""Samples that a candidate changes are found by the value of each sample alone."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from edgekit.metrics.changed_samples import find_changed_samples
from edgekit.metrics.metric import Margin, Metric, Table, prepare_first_mean
from edgekit.metrics.registry import get_metric
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.metrics.detection import THRESHOLDS
from edgekit_agent.scoring import MetricOptions
from tests.metrics.tables import make_sample, make_table

OPTIONS = MetricOptions()


def find(name, before, after, targets):
    tables = (make_rows(name, outputs, targets) for outputs in (before, after))
    return find_changed_samples(get_metric(name), *tables, OPTIONS)


def make_rows(name, outputs, targets):
    pairs = zip(outputs, targets, strict=True)
    rows = (load_statistic(name)(make_sample(out, y), OPTIONS) for out, y in pairs)
    return Table(rows=tuple(rows))


def test_of_a_classifier_the_samples_that_turn_wrong_and_right_are_found():
    scores = np.eye(3)[[0, 1, 2, 0, 1]]
    after = np.eye(3)[[1, 1, 0, 0, 2]]

    found = find("top1", scores, after, [0, 1, 0, 1, 1])

    assert [(each.number, each.loss) for each in found] == [(0, 1), (2, -1), (4, 1)]


def test_the_most_changed_sample_comes_first_and_errors_have_their_direction():
    targets = np.zeros((4, 2))
    before, after = np.full((4, 2), 1.0), np.array([[1, 1], [1, 2], [0, 0], [9, 9]], float)

    for name in ("mae", "rmse", "r2"):
        found = find(name, before, after, targets)

        assert [each.number for each in found] == [3, 2, 1], name
        assert [each.loss > 0 for each in found] == [True, False, True], name
        assert found[0].before == pytest.approx(1), name
        assert found[0].after == pytest.approx(9), name


def test_texts_are_compared_by_their_wrong_characters():
    texts = [np.array([ord(c) for c in text]) for text in ("cat", "dog", "cow")]
    worse = [texts[0], texts[1][:1], texts[2]]

    (found,) = find("cer", texts, worse, texts)

    assert (found.number, found.before, found.after, found.loss) == (1, 0, 2, 2)


def test_a_mask_has_the_mean_iou_of_its_own_classes():
    target = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 2]]])
    output = np.eye(3)[target]
    output[1, 1, 1] = np.eye(3)[0]

    (found,) = find("miou", np.eye(3)[target], output, target)

    expected = sklearn.metrics.jaccard_score(
        target[1].ravel(), output[1].argmax(-1).ravel(), average=None, labels=[0, 2]
    ).mean()
    assert (found.number, found.before, found.after) == (1, 1, pytest.approx(expected))


def test_the_mean_of_the_samples_of_one_class_is_the_auc():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 50), rng.integers(0, 9, 50).astype(float)
    table = make_table("auc", scores[:, None], labels)

    values = get_metric("auc").get_sample_value().compute(table, OPTIONS)

    expected = sklearn.metrics.roc_auc_score(labels, scores)
    assert values[labels == 1].mean() == pytest.approx(expected)
    assert values[labels == 0].mean() == pytest.approx(expected)


def test_an_image_has_the_average_precision_of_its_own_boxes():
    target = np.array([[0, 0, 10, 10, 1], [20, 20, 30, 30, 1], [0, 20, 10, 30, 2]], float)
    corners = np.array([[0, 0, 10, 10], [40, 40, 50, 50], [20, 20, 30, 30], [60, 60, 70, 70]])
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 5, 1, 1])
    outputs = {"boxes": corners.astype(float), "scores": scores, "classes": classes}
    sample = ScoredSample(number=0, outputs=outputs, targets={"y": target}, inputs={})
    row = load_statistic("map50")(sample, OPTIONS)

    values = get_metric("map50").get_sample_value().compute(Table(rows=(row,)), OPTIONS)

    # The box of class 5, which is not there, is wrong; one target of three is not found.
    hits = np.array([1, 0, 1, 0])
    expected = sklearn.metrics.average_precision_score(hits, scores) * 2 / 3
    assert values[0] == pytest.approx(expected)
    assert len(THRESHOLDS) == 10


def test_an_image_without_targets_is_worse_the_surer_a_box_is():
    def find_row(score):
        boxes = {"boxes": np.array([[0.0, 0, 9, 9]]), "classes": np.array([1])}
        outputs = {**boxes, "scores": np.array([score])}
        sample = ScoredSample(number=0, outputs=outputs, targets={"y": np.zeros((0, 5))}, inputs={})
        return load_statistic("map")(sample, OPTIONS)

    before, after = Table(rows=(find_row(0.2),)), Table(rows=(find_row(0.9),))

    (found,) = find_changed_samples(get_metric("map"), before, after, OPTIONS)

    assert found.loss == pytest.approx(0.7)


def test_samples_that_are_not_scored_keep_the_numbers_of_the_others():
    options = MetricOptions(ignore=255)
    metric = get_metric("miou")
    masks = np.array([[[255, 255]], [[0, 1]]])
    rows = [
        Table(rows=tuple(load_statistic("miou")(make_sample(out, y), options) for out, y in pairs))
        for pairs in (
            [(np.eye(2)[[[0, 0]]], masks[0]), (np.eye(2)[[[0, 1]]], masks[1])],
            [(np.eye(2)[[[0, 0]]], masks[0]), (np.eye(2)[[[1, 1]]], masks[1])],
        )
    ]

    (found,) = find_changed_samples(metric, *rows, options)

    assert found.number == 1


def test_a_metric_of_a_plugin_that_is_a_mean_needs_no_declaration():
    metric = Metric(
        name="mine",
        title="my share",
        prepare=prepare_first_mean,
        compute_trivial=lambda read, options: None,
        margin=Margin(value=1.0),
    )
    before, after = (Table(rows=tuple(map(np.atleast_1d, values))) for values in ([1, 1], [1, 0]))

    (found,) = find_changed_samples(metric, before, after, OPTIONS)

    assert (found.number, found.loss) == (1, 1)
    assert metric.get_sample_value().title == "my share"
