"""The page makes the same boxes, texts, masks and probabilities of outputs as other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit_agent.metrics import portable_math
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import Postprocess
from tests.web.node_calls import Named, NodeError, Numbers, call, call_all, rename

Outputs = dict[str, NDArray[Any]]
_SIDE = 64
_CELLS = sum((_SIDE // stride) ** 2 for stride in (8, 16, 32))
_LETTERBOX = {
    "scaleX": 0.37, "scaleY": 0.37, "left": 5, "top": 0, "width": 150, "height": 170,
}  # fmt: skip


def _draw_rows(random: np.random.Generator, classes: int, *, objectness: bool) -> NDArray[Any]:
    """Draw rows of boxes around a few places, with many equal scores."""
    centers = random.uniform(10, 54, (6, 4))[random.integers(0, 6, _CELLS)]
    boxes = centers + random.normal(0, 2, (_CELLS, 4))
    scores = random.integers(0, 16, (_CELLS, classes + objectness)) / 16
    return np.concatenate([np.abs(boxes), scores], axis=1).astype(np.float32)


def _draw_levels(random: np.random.Generator, bins: int, side: int = _SIDE) -> Outputs:
    outputs: Outputs = {}
    for stride in (8, 16, 32):
        cells = side // stride
        outputs[f"cls{stride}"] = (random.integers(0, 16, (3, cells, cells)) / 16).astype("f4")
        outputs[f"box{stride}"] = random.normal(0, 2, (4 * bins, cells, cells)).astype("f4")
    return outputs


def _list_detectors() -> list[tuple[str, Outputs, Postprocess]]:
    random = np.random.default_rng(0)
    size = (_SIDE, _SIDE)
    many = _draw_rows(random, 5, objectness=True)
    few = _draw_rows(random, 5, objectness=False)
    head = many.copy()
    head[:, :2] = random.normal(0, 1, (_CELLS, 2))
    head[:, 2:4] = random.normal(0, 1, (_CELLS, 2))
    shares = (few[:, :4] / 64).astype(np.float32)
    six = np.concatenate([few[:40, :5], random.integers(0, 3, (40, 1))], axis=1).astype("f4")
    nanodet = np.concatenate(
        [random.integers(0, 16, (_CELLS, 4)) / 16, random.normal(0, 2, (_CELLS, 32))], axis=1
    ).astype(np.float32)
    two = {"boxes": few[:, :4], "scores": few[:, 4:]}
    four = {
        "b": few[:20, :4], "s": few[:20, 4], "c": np.arange(20) % 3, "n": np.array([13.0]),
    }  # fmt: skip
    low, high = few[:, :2].min(axis=1), few[:, 2:4].max(axis=1)
    corners = np.stack([low, low, high + 1, high + 2], axis=1).astype(np.float32)
    return [
        ("yolox", {"o": head}, Postprocess("yolox", size=size)),
        ("yolox in columns", {"o": head.T[None]}, Postprocess("yolox", size=size, nms_iou=0.3)),
        ("yolov5", {"o": many}, Postprocess("yolov5", score_min=0.25)),
        ("yolov5 in shares", {"o": np.concatenate([shares, many[:, 4:]], 1)},
         Postprocess("yolov5", size=size, box_unit="share", most=7)),
        ("yolov8", {"o": few.T}, Postprocess("yolov8", nms_iou=0.5, first_class=1)),
        ("yolov8 with background", {"o": few}, Postprocess("yolov8", background=0)),
        ("distances", _draw_levels(random, 8), Postprocess("distances", size=size)),
        ("distances of one bin", _draw_levels(random, 1, 128),
         Postprocess("distances", size=(128, 128))),
        ("nanodet", {"o": nanodet}, Postprocess("distances", size=size)),
        ("two outputs", two, Postprocess("boxes", size=size, box_format="cxcywh")),
        ("two outputs in any order", {"s": two["scores"], "b": two["boxes"]},
         Postprocess("boxes", box_format="xywh")),
        ("corners", {"b": corners, "s": two["scores"]}, Postprocess("boxes", background=2)),
        ("rows before columns", {"b": corners, "s": two["scores"]},
         Postprocess("boxes", box_format="yxyx", nms_iou=0.9)),
        ("one output", {"o": six}, Postprocess("boxes")),
        ("four outputs", four, Postprocess("boxes", outputs=("b", "s", "c", "n"))),
    ]  # fmt: skip


_DETECTORS = _list_detectors()


@pytest.mark.parametrize("is_original", [True, False], ids=["letterbox", "input"])
@pytest.mark.parametrize("case", _DETECTORS, ids=lambda case: case[0])
def test_boxes_are_those_of_other_devices(
    case: tuple[str, Outputs, Postprocess], is_original: bool
) -> None:
    """Bit by bit: the same boxes, scores and classes in the same order, also of equal scores."""
    _, outputs, settings = case
    box = _LETTERBOX
    target = [box["scaleX"], box["left"], box["top"], box["width"], box["height"]]
    targets = {"letterbox": np.array(target)} if is_original else {}
    wanted = postprocess(outputs, targets, settings)
    assert len(wanted["boxes"]) > 1
    found = call(
        "outputs/postprocess",
        "postprocess",
        Named(outputs),
        box if is_original else None,
        rename(settings),
    )["boxes"]
    np.testing.assert_array_equal(np.array(found["boxes"]).reshape(-1, 4), wanted["boxes"])
    np.testing.assert_array_equal(found["scores"], wanted["scores"])
    np.testing.assert_array_equal(found["classes"], wanted["classes"])


@pytest.mark.parametrize(
    ("outputs", "settings"),
    [
        ({"o": np.zeros((10, 5))}, Postprocess("yolov5")),
        ({"o": np.zeros((10, 4))}, Postprocess("yolov8")),
        ({"o": np.zeros((10, 6))}, Postprocess("yolox", size=(64, 64))),
        ({"o": np.zeros((84, 6))}, Postprocess("yolox")),
        ({"o": np.zeros((9, 9)), "p": np.zeros(1)}, Postprocess("yolov8")),
        ({"o": np.zeros((9, 9))}, Postprocess("yolov8", outputs=("q",))),
        ({"o": np.zeros((3, 4)), "p": np.zeros((3, 4))}, Postprocess("boxes")),
        ({"o": np.zeros((9, 3))}, Postprocess("distances", size=(64, 64))),
        ({"o": np.zeros((9, 3))}, Postprocess("distances", size=(64, 64), strides=(0,))),
        ({"o": np.zeros((9, 9))}, Postprocess("yolov8", background=40)),
        ({"o": np.zeros((9, 9))}, Postprocess("yolov8", box_unit="share")),
        ({"o": np.zeros((9, 9))}, Postprocess("ctc", charset=("a", "b"))),
        ({"o": np.zeros((9, 3))}, Postprocess("ctc", charset=("a", "b"), blank=3)),
        ({"o": np.zeros((1, 5, 5))}, Postprocess("argmax")),
    ],
)
def test_outputs_that_do_not_fit_are_one_clear_error(
    outputs: Outputs, settings: Postprocess
) -> None:
    """As on other devices."""
    with pytest.raises(NodeError) as caught:
        call("outputs/postprocess", "postprocess", Named(outputs), None, rename(settings))
    assert caught.value.kind == "bad_job"


@pytest.mark.parametrize("blank", [0, 3, 5])
def test_texts_are_those_of_other_devices(blank: int) -> None:
    """With the blank first, in between and last, steps first or last, and equal scores."""
    scores = np.random.default_rng(blank).integers(0, 4, (60, 6)).astype(np.float32)
    settings = Postprocess("ctc", charset=tuple("añ中 z"), blank=blank)
    for array in (scores, scores.T, scores[None], scores[:, None]):
        wanted = postprocess({"o": array}, {}, settings)["text"]
        found = call(
            "outputs/postprocess", "postprocess", Named({"o": array}), None, rename(settings)
        )
        assert found["text"] == "".join(map(chr, wanted))


@pytest.mark.parametrize("shape", [(7,), (5, 9), (3, 6, 8), (6, 8, 3)])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "threshold"])
def test_scores_are_those_of_other_devices(kind: str, shape: tuple[int, ...]) -> None:
    """Bit by bit, of large and small logits; outputs that are not named stay as they are."""
    random = np.random.default_rng(1)
    values = (random.normal(0, 1, shape) * 10 ** random.uniform(-3, 3, shape)).astype(np.float32)
    outputs = {"a": values, "b": np.arange(3, dtype=np.int64)}
    settings = Postprocess(kind, outputs=("a",), threshold=0.3)
    wanted = postprocess(outputs, {}, settings)
    arguments = (Named(outputs), None, rename(settings))
    found = call("outputs/postprocess", "postprocess", *arguments)["outputs"]
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8, 3), (5, 9)])
def test_masks_are_those_of_other_devices(shape: tuple[int, ...]) -> None:
    """The first of equal classes."""
    scores = np.random.default_rng(2).integers(0, 3, shape).astype(np.float32)
    settings = Postprocess("argmax")
    wanted = postprocess({"o": scores}, {}, settings)["mask"]
    found = call("outputs/postprocess", "postprocess", Named({"o": scores}), None, rename(settings))
    np.testing.assert_array_equal(found["mask"], wanted)


def test_exponentials_have_the_same_bits() -> None:
    """Over the whole range, and in sums of any length."""
    random = np.random.default_rng(3)
    values = np.concatenate([random.uniform(-760, 709, 3000), random.normal(0, 1, 3000), [0.0]])
    found = call_all("portable_math", "exp", [[float(x)] for x in values])
    np.testing.assert_array_equal(np.array(found, np.float64), portable_math.exp(values))
    scores = random.normal(0, 3, (5, 300))
    for columns in (1, 7, 8, 9, 128, 129, 300):
        part = np.ascontiguousarray(scores[:, :columns])
        found = call("portable_math", "softmaxRows", Numbers(part.ravel()), columns)
        np.testing.assert_array_equal(found, portable_math.softmax(part).ravel())


def test_values_that_are_no_numbers_stay_so() -> None:
    """Infinite logits, and those that are no numbers, make no probabilities."""
    for values in ([np.nan, 0.0], [np.inf, 0.0], [0.0, np.nan]):
        found = call("portable_math", "softmaxRows", Numbers(np.array(values)), 2)
        with np.errstate(invalid="ignore"):
            wanted = portable_math.softmax(np.array(values))
        np.testing.assert_array_equal(found, wanted)
