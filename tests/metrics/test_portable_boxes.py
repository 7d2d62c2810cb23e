"""Boxes of detectors and their rows have the same bits on every processor."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import MetricOptions, Postprocess
from tests.builders.metrics.plain_numpy import compute_plain_digests
from tests.metrics.test_portable_rows import make_integers

# Digests of boxes, scores, classes and row; numpy 1.26 computed the same on aarch64.
DIGESTS = {
    "yolox": "13d8f2e054adb97a",
    "yolov8": "1d242a84fa8a6576",
    "distances": "3af864bc88596541",
}
CELLS = 64 * 64 + 32 * 32


def make_outputs(kind):
    """Outputs made of exact fractions, as float32."""
    numbers = (make_integers(CELLS, 40) / 65536).astype(np.float32)
    squares = numbers * numbers
    scores = squares * squares  # np.power differs between processors
    if kind == "yolox":
        return {"output": np.concatenate([numbers[:, :4] * 2, scores[:, 4:12]], axis=1)}
    if kind == "yolov8":
        return {"output": np.concatenate([numbers[:, :4] * 512, scores[:, 4:12]], axis=1).T}
    return {"scores": scores[:, :8], "distances": numbers[:, 8:] * 6}


def compute_digest(kind):
    targets = {
        "y": np.concatenate(
            [np.tile([0.0, 0, 160, 120], (8, 1)) * np.arange(1, 9)[:, None] / 4, np.eye(8)[:, :1]],
            axis=1,
        ),
        "letterbox": np.array([0.7, 3, 61, 700, 500]),
    }
    settings = Postprocess(kind, size=(512, 512), strides=(8, 16), nms_iou=0.4)
    found = postprocess(make_outputs(kind), targets, settings)
    row = load_statistic("map")(ScoredSample(0, found, targets, {}), MetricOptions())
    bits = b"".join(np.ascontiguousarray(value).tobytes() for value in (*found.values(), row))
    return hashlib.sha256(bits).hexdigest()[:16]


@pytest.mark.parametrize("kind", DIGESTS)
def test_boxes_have_the_bits_of_every_processor(kind):
    assert compute_digest(kind) == DIGESTS[kind]


def test_boxes_do_not_depend_on_the_instructions_that_numpy_chooses():
    found = compute_plain_digests("tests.metrics.test_portable_boxes")
    assert found == list(DIGESTS.values())
