"""Detectors with several scales, speech networks with a spectrogram, inputs of all types."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.builders.exported.attention import activation, project
from tests.builders.exported.layers import convolution
from tests.builders.exported.recurrent import _merge, _recur

_TYPES = {
    np.uint8: TensorProto.UINT8, np.int32: TensorProto.INT32, np.float64: TensorProto.DOUBLE,
}  # fmt: skip


def detector(d):
    """Build a detector: two feature scales, boxes from anchors, scores, sometimes the best."""
    x = d.take(1, 3, 16, 16, axes=("batch",))
    if d.chance(0.3):
        x = d.add("Div", d.add("Sub", x, d.scalar(0.4)), d.scalar(0.25))
    wide = d.one_of([16, 32])
    fine = _block(d, convolution(d, x, wide, size=3, stride=2), wide)
    coarse = _block(d, convolution(d, fine, 2 * wide, size=3, stride=2), 2 * wide)
    if d.chance(0.5):
        pools = [
            d.add("MaxPool", coarse, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1])
            for k in (3, 5)
        ]
        coarse = convolution(d, d.add("Concat", coarse, *pools, axis=1), 2 * wide, size=1)
    sizes = d.constant(np.array([1, 1, 2, 2], np.float32))
    up = d.add("Resize", convolution(d, coarse, wide, size=1), "", sizes, mode=d.one_of(
        ["nearest", "linear"]
    ), **({"coordinate_transformation_mode": "asymmetric"} if d.chance(0.5) else {}))  # fmt: skip
    fine = convolution(d, d.add("Concat", up, fine, axis=1), wide, size=3)
    classes = 3 + d.below(5)
    heads = [_head(d, level, 4 + classes) for level in (fine, coarse)]
    both = d.add("Concat", *heads, axis=1)
    boxes, scores = d.add("Split", both, d.integers(4, classes), axis=-1, count=2)
    scores = d.add("Sigmoid", scores)
    boxes = _place(d, boxes)
    form = d.one_of(["apart", "joined", "best"])
    if form == "joined":
        return [d.add("Concat", boxes, scores, axis=-1)]
    if form == "best":
        return [boxes, d.add("ReduceMax", scores, axes=[-1], keepdims=0), d.add(
            "ArgMax", scores, axis=-1, keepdims=0
        )]  # fmt: skip
    return [boxes, scores]


def _block(d, x, wide):
    halves = [convolution(d, x, wide // 2, size=1) for _ in range(2)]
    inside = convolution(d, halves[0], wide // 2, size=3)
    if d.chance(0.7):
        inside = d.add("Add", inside, halves[0])
    return convolution(d, d.add("Concat", inside, halves[1], axis=1), wide, size=1)


def _head(d, level, made):
    y = convolution(d, convolution(d, level, 16, size=3), made, size=1, act=False)
    count = int(np.prod(d.shape(y)[2:]))
    if d.chance(0.5):
        y = d.add("Reshape", y, d.integers(0, made, count))
        return d.add("Transpose", y, perm=[0, 2, 1])
    y = d.add("Transpose", y, perm=[0, 2, 3, 1])
    return d.add("Reshape", y, d.integers(0, count, made))


def _place(d, boxes):
    count = d.shape(boxes)[1]
    middle, size = d.add("Split", boxes, d.integers(2, 2), axis=-1, count=2)
    grid = d.constant(d.rng.uniform(0, 16, (1, count, 2)).astype(np.float32))
    stride = d.constant(np.repeat([2.0, 4.0], count // 2 + 1)[:count, None].astype(np.float32))
    middle = d.add("Mul", d.add("Add", middle, grid), stride)
    size = d.add("Mul", d.add("Exp", d.add("Clip", size, d.scalar(-4), d.scalar(4))), stride)
    if d.chance(0.5):
        return d.add("Concat", middle, size, axis=-1)
    half = d.add("Mul", size, d.scalar(0.5))
    return d.add("Concat", d.add("Sub", middle, half), d.add("Add", middle, half), axis=-1)


def speech(d):
    """Build a speech network: a spectrum by convolution, layers over time, a mask or classes."""
    x = d.take(1, 160, axes=("batch",))
    padded = d.add("Pad", x, d.integers(0, 16, 0, 16), mode=d.one_of(["reflect", "constant"]))
    padded = d.add("Unsqueeze", padded, d.integers(1))
    bins = 17
    angles = 2 * np.pi * np.outer(np.arange(bins), np.arange(32)) / 32
    window = np.hanning(32)
    kernels = np.concatenate([np.cos(angles), -np.sin(angles)]) * window
    waves = d.constant(kernels[:, None].astype(np.float32))
    spectrum = d.add("Conv", padded, waves, kernel_shape=[32], strides=[16])
    real, imaginary = (
        d.add("Slice", spectrum, *map(d.integers, (n * bins, (n + 1) * bins, 1))) for n in (0, 1)
    )
    power = d.add("Add", *(d.add("Mul", each, each) for each in (real, imaginary)))
    power = d.add("Sqrt", d.add("Add", power, d.scalar(1e-6)))
    features = d.add("Log", d.add("Add", power, d.scalar(1e-2))) if d.chance(0.6) else power
    y = convolution(d, features, d.one_of([24, 32]), size=3)
    y = d.add("Transpose", y, perm=[2, 0, 1])
    y = _merge(d, _recur(d, y, d.one_of(["LSTM", "GRU"]), d.one_of([16, 32]))[0])
    y = d.add("Transpose", y, perm=[1, 0, 2])
    level = d.add("Mul", d.add("ReduceMean", power, axes=[1, 2], keepdims=0), d.scalar(1e-4))
    if d.chance(0.5):
        mask = d.add("Sigmoid", project(d, y, bins))
        mask = d.add("Transpose", mask, perm=[0, 2, 1])
        return [d.add("Mul", mask, power), *([level] if d.chance(0.5) else [])]
    classes = project(d, activation(d, project(d, y, 48)), 6)
    return [d.add("LogSoftmax", classes, axis=-1), *([level] if d.chance(0.5) else [])]


def build_typed_inputs(d):
    """Build a graph with inputs of integers, bools, doubles and floats."""
    kind = d.one_of(list(_TYPES))
    wide = d.one_of([24, 48])
    x = d.take(1, wide, axes=("batch",), dtype=kind, limit=200)
    real = d.add("Cast", x, to=TensorProto.FLOAT)
    if kind is not np.float64:
        real = d.add("Div", real, d.scalar(64))
    y = activation(d, project(d, real, 64))
    if d.chance(0.5):
        seen = d.take(1, 64, axes=("batch",), dtype=np.bool_)
        y = d.add("Where", seen, y, d.scalar(0))
    if d.chance(0.4):
        ids = d.take(1, axes=("batch",), limit=80)
        y = d.add("Add", y, d.add("Gather", d.weight(80, 64, fan_in=1), ids, axis=0))
    if d.chance(0.4):
        double = d.add("Cast", y, to=TensorProto.DOUBLE)
        y = d.add("Cast", d.add("Mul", double, d.constant(np.float64(0.5))), to=TensorProto.FLOAT)
    logits = project(d, activation(d, project(d, y, 64)), 7)
    form = d.one_of(["logits", "class", "both", "sure"])
    best = d.add("ArgMax", logits, axis=-1, keepdims=d.below(2))
    if form == "sure":
        return [logits, d.add("Greater", logits, d.scalar(0))]
    return {"logits": [logits], "class": [logits, best], "both": [best, logits]}[form]
