"""Boxes from the outputs of detectors: each kind of head finds the boxes that it was made from."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess import postprocess
from edgekit_agent.postprocess.box_selection import suppress_overlaps
from edgekit_agent.postprocess.letterbox import compute_letterbox
from edgekit_agent.scoring import Postprocess

SIZE = (64, 96)
STRIDES = (8, 16)
CELLS = 8 * 12 + 4 * 6
# Cell (row 3, column 5) of stride 8 and cell (row 1, column 4) of stride 16.
PLACES = (3 * 12 + 5, 8 * 12 + 1 * 6 + 4)
BOXES = np.array([[30.0, 20, 50, 36], [56, 8, 90, 40]])
LABELS = (2, 0)
SCORES = (0.9, 0.6)


def to_rows(boxes):
    """Center, width and height."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def make_yolox():
    table = np.zeros((CELLS, 5 + 3))
    cells = np.array([[5, 3], [4, 1]])
    strides = np.array([[8], [16]])
    rows = to_rows(BOXES)
    for number, place in enumerate(PLACES):
        table[place, :2] = rows[number, :2] / strides[number] - cells[number]
        table[place, 2:4] = np.log(rows[number, 2:] / strides[number])
        table[place, 4] = 0.9
        table[place, 5 + LABELS[number]] = SCORES[number] / 0.9
    return {"output": table.astype(np.float32)}


def make_yolov5(unit=1.0):
    table = np.zeros((50, 5 + 3))
    table[[7, 9], :4] = to_rows(BOXES) / unit
    table[[7, 9], 4] = 0.9
    table[[7, 9], [5 + LABELS[0], 5 + LABELS[1]]] = np.array(SCORES) / 0.9
    return {"output": table[np.newaxis]}


def make_yolov8():
    table = np.zeros((50, 4 + 3))
    table[[7, 9], :4] = to_rows(BOXES)
    table[[7, 9], [4 + LABELS[0], 4 + LABELS[1]]] = SCORES
    return {"output": table.T}


def make_distances(layout="cells"):
    """One-hot distributions; distances between two bins are split over both."""
    scores = np.zeros((CELLS, 3))
    sides = np.full((CELLS, 4, 8), -40.0)
    centers = np.array([[5 * 8 + 3.5, 3 * 8 + 3.5], [4 * 16 + 7.5, 1 * 16 + 7.5]])
    for number, (place, stride) in enumerate(zip(PLACES, STRIDES, strict=True)):
        scores[place, LABELS[number]] = SCORES[number]
        box = BOXES[number]
        distances = np.concatenate([centers[number] - box[:2], box[2:] - centers[number]]) / stride
        for side, distance in enumerate(distances):
            low = int(distance)
            share = distance - low
            sides[place, side, low] = np.log(1 - share)
            sides[place, side, low + 1] = np.log(max(share, 1e-17))
    sides = sides.reshape(CELLS, 32)
    if layout == "one":
        return {"output": np.concatenate([scores, sides], axis=1)}
    if layout == "two":
        return {"scores": scores, "sides": sides.T[np.newaxis]}
    small, large = slice(0, 96), slice(96, CELLS)
    if layout == "cells":
        return {"c0": scores[small], "c1": scores[large], "d0": sides[small], "d1": sides[large]}
    grids = ((small, 8, 12), (large, 4, 6))
    outputs = {}
    for level, (rows, height, width) in enumerate(grids):  # each level: scores, then sides
        for name, table in (("c", scores), ("d", sides)):
            grid = table[rows].reshape(height, width, -1)
            outputs[f"{name}{level}"] = grid if layout == "NHWC" else grid.transpose(2, 0, 1)
    return outputs


def make_boxes(form, unit=1.0):
    """Two outputs, scores first."""
    boxes = BOXES / unit
    if form == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    if form == "cxcywh":
        boxes = to_rows(boxes)
    if form == "xywh":
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    scores = np.zeros((2, 3))
    scores[[0, 1], LABELS] = SCORES
    return {"scores": scores, "boxes": boxes}


UNIT = np.array([96, 64, 96, 64])
CASES = {
    "yolox": (make_yolox(), {"kind": "yolox"}),
    "yolox transposed": ({"o": make_yolox()["output"].T}, {"kind": "yolox"}),
    "yolov5": (make_yolov5(), {"kind": "yolov5"}),
    "yolov5 shares": (make_yolov5(UNIT), {"kind": "yolov5", "box_unit": "share"}),
    "yolov8": (make_yolov8(), {"kind": "yolov8"}),
    "yolov8 rows": ({"o": make_yolov8()["output"].T}, {"kind": "yolov8"}),
    **{
        f"distances {layout}": (make_distances(layout), {"kind": "distances"})
        for layout in ("cells", "NCHW", "NHWC", "one", "two")
    },
    **{
        form: (make_boxes(form), {"kind": "boxes", "box_format": form})
        for form in ("xyxy", "yxyx", "cxcywh", "xywh")
    },
    "shares": (make_boxes("xyxy", UNIT), {"kind": "boxes", "box_unit": "share"}),
    "background": (
        {"s": np.insert(make_boxes("xyxy")["scores"], 0, 0.99, axis=1), "b": BOXES},
        {"kind": "boxes", "background": 0, "outputs": ("b", "s")},
    ),
    "named": (make_boxes("xyxy"), {"kind": "boxes", "outputs": ("scores", "boxes")}),
    "one output": (
        {"o": np.column_stack([BOXES, SCORES, LABELS])[np.newaxis]},
        {"kind": "boxes"},
    ),
    "classes and count": (
        {
            "c": np.array([2.0, 0, 1]),
            "n": np.array([2.0]),
            "b": np.concatenate([BOXES, [[0, 0, 9, 9]]])[np.newaxis],
            "s": np.array([*SCORES, 0.8]),
        },
        {"kind": "boxes", "outputs": ("b", "s", "c", "n")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_head_finds_its_boxes(case):
    outputs, settings = CASES[case]
    found = postprocess(outputs, {}, Postprocess(size=SIZE, strides=STRIDES, **settings))
    np.testing.assert_allclose(found["boxes"], BOXES, atol=1e-4)
    np.testing.assert_allclose(found["scores"], SCORES, atol=1e-6)
    assert found["classes"].tolist() == list(LABELS)
    assert found["boxes"].dtype == found["scores"].dtype == np.float64


def test_boxes_return_to_pixels_of_the_image_and_are_clipped_to_it():
    scale, left, top = compute_letterbox(40, 20, (64, 96), centered=True)
    assert (scale, left, top) == (2.4, 0, 8)
    assert compute_letterbox(40, 20, (64, 96), centered=False) == (2.4, 0, 0)
    assert compute_letterbox(20, 40, (64, 96), centered=True) == (1.6, 32, 0)
    boxes = np.array([[24.0, 8, 48, 56], [-5, -5, 100, 100]])
    found = postprocess(
        {"boxes": boxes, "scores": np.array([0.9, 0.8])},
        {"letterbox": np.array([scale, left, top, 40, 20])},
        Postprocess("boxes", size=SIZE, first_class=1, nms_iou=1.0),
    )
    np.testing.assert_allclose(found["boxes"], [[10, 0, 20, 20], [0, 0, 40, 20]])
    assert found["classes"].tolist() == [1, 1]


def test_overlapping_boxes_of_one_class_leave_the_best():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [0, 0, 10, 5]])
    same = np.zeros(4, int)
    assert suppress_overlaps(boxes, same, 0.75, 100).tolist() == [0, 3]
    assert suppress_overlaps(boxes, same, 0.8, 100).tolist() == [0, 2, 3]  # .8 is not above .8
    assert suppress_overlaps(boxes, np.array([0, 1, 0, 1]), 0.56, 100).tolist() == [0, 1, 3]
    assert suppress_overlaps(boxes, same, 1.0, 2).tolist() == [0, 1]


def test_low_scores_go_and_the_number_of_boxes_is_limited():
    boxes = np.array([[i, 0.0, i + 1, 1] for i in range(50)])
    scores = np.linspace(0.0, 0.49, 50)
    outputs = {"boxes": boxes, "scores": scores}
    found = postprocess(outputs, {}, Postprocess("boxes", score_min=0.3, most=10))
    assert found["scores"].tolist() == scores[::-1][:10].tolist()
    assert len(postprocess(outputs, {}, Postprocess("boxes", score_min=0.3))["scores"]) == 19
    assert postprocess(outputs, {}, Postprocess("boxes", score_min=0.9))["boxes"].shape == (0, 4)


def test_absurd_outputs_of_a_broken_model_stay_finite():
    found = postprocess(
        {"output": np.full((CELLS, 8), 1e30, np.float32)},
        {"letterbox": np.array([1.0, 0, 0, 96, 64])},
        Postprocess("yolox", size=SIZE, strides=STRIDES),
    )
    assert np.isfinite(found["boxes"]).all()


@pytest.mark.parametrize(
    ("outputs", "settings", "told"),
    [
        (make_yolox(), {"kind": "yolox"}, "needs the size of the model's input"),
        (make_yolox(), {"kind": "yolox", "size": (64, 64)}, "but needs 80 rows"),
        (make_yolox(), {"kind": "yolox", "size": SIZE, "strides": (0,)}, "positive strides"),
        (make_yolox() | {"z": np.zeros(3)}, {"kind": "yolov5"}, "reads one output"),
        ({"o": np.zeros((9, 4))}, {"kind": "yolov5"}, "at least 6 are needed"),
        (make_distances(), {"kind": "distances", "size": (32, 32)}, "there are 0"),
        (
            {"a": np.zeros((96, 3)), "b": np.zeros((96, 7))},
            {"kind": "distances", "size": SIZE, "strides": (8,)},
            "7 numbers for each cell",
        ),
        ({"o": np.zeros((9, 3))}, {"kind": "boxes"}, "are not boxes"),
        ({"b": np.zeros((9, 4)), "s": np.zeros(7)}, {"kind": "boxes"}, "are not boxes"),
        ({"b": np.zeros((9, 4)), "s": np.zeros((9, 4))}, {"kind": "boxes"}, "are not boxes"),
        (make_boxes("xyxy"), {"kind": "boxes", "box_format": "xyzz"}, "unknown box format"),
        (make_boxes("xyxy"), {"kind": "boxes", "background": 3}, "scores of 3 classes"),
        (
            {"a": np.zeros((5, 4)), "b": np.zeros(5), "c": np.zeros(5)},
            {"kind": "boxes"},
            "are not boxes",
        ),
    ],
)
def test_outputs_that_do_not_fit_the_kind_are_refused(outputs, settings, told):
    with pytest.raises(AgentError) as caught:
        postprocess(outputs, {}, Postprocess(**{"strides": STRIDES} | settings))
    assert told in caught.value.failure.message


@pytest.mark.parametrize("letterbox", [[0.0, 0, 0, 9, 9], [1.0, 0, 0], [np.nan, 0, 0, 9, 9]])
def test_a_wrong_letterbox_is_refused(letterbox):
    with pytest.raises(AgentError, match="the target letterbox is"):
        postprocess(
            make_boxes("xyxy"), {"letterbox": np.array(letterbox)}, Postprocess("boxes", size=SIZE)
        )
