"""A small MobileNetV1 with sparse late layers, as training with weight decay leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE = 24
# Output channels and stride of each pair of a depthwise and a pointwise convolution.
_PAIRS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (96, 1))
_LATE = 3  # from this pair on, layers are sparse
_KEPT = 0.12  # weights that are not zero there
_ALIVE = 0.6  # channels that have any weights there


def write_project(folder: Path, *, samples: int = 400) -> None:
    """Write a project whose labels are the model's own predictions."""
    rng = np.random.default_rng(5)
    proto, x = _model(rng), _images(rng, 4 * samples)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (logits,) = session.run(None, {"x": x})
    margin = logits[:, 0] - logits[:, 1]
    # As many of one class as of the other.
    bias = np.array([-np.median(margin) / 2, np.median(margin) / 2], np.float32)
    place = next(t for t in proto.graph.initializer if t.name == "k")
    place.CopyFrom(numpy_helper.from_array(bias, "k"))
    onnx.save(proto, folder / "model.onnx")
    order = np.argsort(margin)
    sure = np.concatenate([order[:samples], order[-samples:]])
    sure = sure[rng.permutation(len(sure))]
    x, label = x[sure], (margin[sure] < np.median(margin)).astype(np.int64)
    np.savez(folder / "calib.npz", x=x[:samples])
    np.savez(folder / "eval.npz", x=x[samples:], label=label[samples:])
    (folder / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n'
        '[data]\ncalibration = "calib.npz"\nevaluation = "eval.npz"\n'
        '[build]\ndevice = "tablet-x86"\nruntime = "onnxruntime"\n',
        encoding="utf-8",
    )


def _images(rng: np.random.Generator, count: int) -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    a, b, c, d = rng.uniform(0, 6, size=(4, count, 3, 1, 1))
    waves = np.sin(a * x + b * y + c) + (x > d / 6) + 0.1 * rng.normal(size=(count, 3, SIDE, SIDE))
    return waves.astype(np.float32)


def _model(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, weights, width, value = [], [], 3, "x"

    def conv(values: np.ndarray, bias: np.ndarray, **how: object) -> None:
        nonlocal value
        number = len(nodes)
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{number}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"b{number}"))
        inputs = [value, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], f"conv{number}", **how))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        value = f"r{number}"

    first = rng.normal(size=(8, 3, 3, 3)) * np.sqrt(2 / 27)
    conv(first, rng.normal(size=8) * 0.1, strides=[2, 2], pads=[1, 1, 1, 1])
    width = 8
    alive = np.ones(width, bool)
    for number, (wide, stride) in enumerate(_PAIRS):
        depthwise = rng.normal(size=(width, 1, 3, 3)) * np.sqrt(2 / 9)
        conv(depthwise * alive[:, None, None, None], np.zeros(width), group=width,
             strides=[stride, stride], pads=[1, 1, 1, 1])  # fmt: skip
        mask = alive[None].repeat(wide, 0)
        if number >= _LATE:
            mask = mask & (rng.random((wide, width)) < _KEPT)
            mask[:, np.flatnonzero(alive)[0]] = True
            alive = rng.random(wide) < _ALIVE
        else:
            alive = np.ones(wide, bool)
        mask &= alive[:, None]
        pointwise = rng.normal(size=(wide, width)) * mask
        pointwise *= np.sqrt(2 / np.maximum(mask.sum(1, keepdims=True), 1))
        conv(pointwise[:, :, None, None], rng.normal(size=wide) * 0.1 * alive)
        width = wide
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["p"]))
    nodes.append(helper.make_node("Flatten", ["p"], ["f"]))
    dense = rng.normal(size=(2, width)) * alive / np.sqrt(width)
    dense -= dense.mean(0)
    weights.append(numpy_helper.from_array(dense.astype(np.float32), "v"))
    weights.append(numpy_helper.from_array(np.zeros(2, np.float32), "k"))
    nodes.append(helper.make_node("Gemm", ["f", "v", "k"], ["y"], "dense", transB=1))
    graph = helper.make_graph(
        nodes,
        "mobilenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
