"""mAP of random boxes equals that of pycocotools, whatever the ties, crowds and empty images."""

from __future__ import annotations

import contextlib
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from edgekit.metrics.metric import Table
from edgekit.metrics.registry import get_metric
from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.scoring import MetricOptions

OPTIONS = MetricOptions()


def draw_images(seed, *, images=12, classes=4, most=8, found=15, distinct=False):
    """Random targets and detections of some images; scores have one digit, so that many tie."""
    chance = np.random.default_rng(seed)

    def draw_boxes(count):
        low = chance.integers(0, 30, (count, 2))
        return np.concatenate([low, low + chance.integers(1, 20, (count, 2))], 1).astype(float)

    drawn = []
    for _ in range(images):
        boxes = draw_boxes(chance.integers(0, most + 1))
        labels = chance.integers(0, classes, len(boxes))
        crowds = chance.random(len(boxes)) < 0.15
        near = np.repeat(boxes, 2, axis=0) + chance.integers(-3, 4, (2 * len(boxes), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        other = draw_boxes(chance.integers(0, found))
        count = len(near) + len(other)
        scores = chance.permutation(count) / count if distinct else chance.random(count).round(1)
        drawn.append(
            (
                np.column_stack([boxes, labels, crowds]),
                {
                    "boxes": np.concatenate([near, other]),
                    "scores": scores,
                    "classes": np.concatenate(
                        [np.repeat(labels, 2), chance.integers(0, classes + 1, len(other))]
                    ),
                },
            )
        )
    return drawn


def build_table(drawn, options=OPTIONS):
    compute = load_statistic("map")
    rows = tuple(
        compute(ScoredSample(number, found, {"y": targets}, {}), options)
        for number, (targets, found) in enumerate(drawn)
    )
    get_metric("map").check_rows(rows, options)
    return Table(rows=rows)


def score_by_pycocotools(drawn):
    """Return mAP, mAP 50 and AP by class."""
    annotations, results = [], []
    for image, (targets, found) in enumerate(drawn, start=1):
        for x, y, right, bottom, label, crowd in targets:
            width, height = right - x, bottom - y
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
        for (x, y, right, bottom), score, label in zip(*found.values(), strict=True):
            box = [x, y, right - x, bottom - y]
            results.append(
                {"image_id": image, "category_id": int(label), "bbox": box, "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(1, len(drawn) + 1)],
            "annotations": annotations,
            "categories": [{"id": number} for number in range(6)],
        }
        truth.createIndex()
        judged = COCOeval(truth, truth.loadRes(results), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    precision = judged.eval["precision"][:, :, :, 0, -1]
    by_class = {
        label: precision[:, :, column].mean()
        for column, label in enumerate(judged.params.catIds)
        if precision[:, :, column].min() > -1
    }
    return judged.stats[0], judged.stats[1], by_class


@pytest.mark.parametrize("seed", range(20))
def test_values_equal_those_of_pycocotools(seed):
    drawn = draw_images(seed, images=3 + seed)
    table = build_table(drawn)
    wanted, wanted_50, by_class = score_by_pycocotools(drawn)

    assert get_metric("map").compute_value(table, OPTIONS) == pytest.approx(wanted, abs=1e-9)
    assert get_metric("map50").compute_value(table, OPTIONS) == pytest.approx(wanted_50, abs=1e-9)
    assert get_metric("map").compute_classes(table, OPTIONS) == pytest.approx(by_class, abs=1e-9)


def test_only_the_hundred_best_boxes_of_a_class_count():
    drawn = draw_images(1, images=2, classes=1, most=30, found=400, distinct=True)
    value = get_metric("map").compute_value(build_table(drawn), OPTIONS)
    assert value == pytest.approx(score_by_pycocotools(drawn)[0], abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_weights_count_like_repeated_images(seed, counts):
    drawn = draw_images(seed, distinct=True)
    metric = get_metric("map")
    weights = np.array([counts, [1] * 12], float)
    value, whole = metric.prepare(build_table(drawn), OPTIONS)(weights)

    repeated = [image for image, count in zip(drawn, counts, strict=True) for _ in range(count)]
    if any((targets[:, 5] == 0).any() for targets, _ in repeated):
        again = metric.compute_value(build_table(repeated), OPTIONS)
        assert value == pytest.approx(again, abs=1e-12)
        assert value == pytest.approx(score_by_pycocotools(repeated)[0], abs=1e-9)
    else:
        assert np.isnan(value)
    assert whole == pytest.approx(metric.compute_value(build_table(drawn), OPTIONS), abs=1e-12)


def test_ten_thousand_resamples_take_seconds():
    drawn = draw_images(3, images=128, classes=80, most=10, found=160)
    compute = get_metric("map").prepare(build_table(drawn), OPTIONS)
    chance = np.random.default_rng(0)
    started = time.process_time()
    values = [
        compute(chance.multinomial(128, np.full(128, 1 / 128), 100).astype(float))
        for _ in range(100)
    ]
    assert time.process_time() - started < 20  # about 5 on one idle core
    assert np.std(np.concatenate(values)) > 0


def test_images_without_targets_and_boxes_are_scored():
    nothing = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "classes": np.zeros(0, int)}
    found = {"boxes": np.array([[0.0, 0, 9, 9]]), "scores": np.ones(1), "classes": np.ones(1, int)}
    one = np.array([[0.0, 0, 9, 9, 1]])
    table = build_table([(np.zeros((0, 6)), nothing), (one, found), (one, nothing)])
    assert all(row.size for row in table.rows)
    assert get_metric("map").compute_value(table, OPTIONS) == pytest.approx(51 / 101)


def test_a_constant_box_sets_the_value_to_beat():
    box = np.array([[2.0, 2, 8, 8, 3]])
    letterbox = np.array([1.0, 0, 0, 10, 10])
    targets = [{"y": box, "letterbox": letterbox}] * 3 + [
        {"y": np.zeros((0, 5)), "letterbox": letterbox}
    ]
    # The median box is found in four images and right in three: precision 3/4 at every recall.
    trivial = get_metric("map").compute_trivial(lambda: iter(targets), OPTIONS)
    assert trivial == pytest.approx(0.75)
    drawn = draw_images(5, images=40)
    trivial = get_metric("map").compute_trivial(lambda: iter([{"y": y} for y, _ in drawn]), OPTIONS)
    assert 0 <= trivial < 0.02


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (np.zeros((2, 4)), "shape (2, 4)"),
        (np.array([[5.0, 5, 1, 9, 0]]), "ends before it begins"),
        (np.array([[1.0, 1, 2, 2, 0.5]]), "must be integers from 0"),
        (np.array([[1.0, 1, 2, 2, -1]]), "must be integers from 0"),
        (np.array([[1.0, 1, 2, 2, 80]]), "class 80 of sample 7 must be less than 80"),
        (np.array([[1.0, 1, 2, 2, 0, 2]]), "crowd flags of sample 7"),
        (np.array([[1.0, 1, np.nan, 2, 0]]), "NaN"),
    ],
)
def test_wrong_targets_are_refused(target, told):
    nothing = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "classes": np.zeros(0, int)}
    sample = ScoredSample(7, nothing, {"y": target}, {})
    with pytest.raises(AgentError) as caught:
        load_statistic("map")(sample, MetricOptions(classes=80))
    assert told in caught.value.failure.message


def test_outputs_that_are_no_boxes_name_the_setting():
    sample = ScoredSample(0, {"output": np.zeros((9, 85))}, {"y": np.zeros((0, 5))}, {})
    with pytest.raises(AgentError) as caught:
        load_statistic("map")(sample, OPTIONS)
    assert "[postprocess]" in caught.value.failure.hint
