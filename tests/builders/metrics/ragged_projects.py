"""A small recurrent network with a free time axis, and samples that each have their own size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FEATURES, _CHANNELS, _HIDDEN, CLASSES = 6, 16, 16, 4
_MOST = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class RaggedSamples:
    """Samples as they are, and the same padded with NaN, which no model may see."""

    rows: list[NDArray[np.float32]]
    padded: NDArray[np.float32]
    lengths: NDArray[np.int64]


def make_crnn() -> onnx.ModelProto:
    """Convolution, LSTM and classes; ``frames`` has a row for each second step of ``x``."""
    rng = np.random.default_rng(0)

    def normal(name: str, scale: float, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), name)

    weights = [
        normal("w1", 0.3, _CHANNELS, FEATURES, 3),
        normal("b1", 0.1, _CHANNELS),
        normal("w", 0.3, 1, 4 * _HIDDEN, _CHANNELS),
        normal("r", 0.2, 1, 4 * _HIDDEN, _HIDDEN),
        normal("b", 0.1, 1, 8 * _HIDDEN),
        normal("wo", 0.5, _HIDDEN, CLASSES),
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["xt", "w1", "b1"], ["c"], pads=[1, 1], strides=[2]),
        helper.make_node("Relu", ["c"], ["rc"]),
        helper.make_node("Transpose", ["rc"], ["seq"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["seq", "w", "r", "b"], ["steps", "last"], hidden_size=_HIDDEN),
        helper.make_node("Squeeze", ["last", "zero"], ["h"]),
        helper.make_node("MatMul", ["h", "wo"], ["logits"]),
        helper.make_node("Squeeze", ["steps", "one"], ["s"]),
        helper.make_node("Transpose", ["s"], ["frames"], perm=[1, 0, 2]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "crnn",
        [value("x", onnx.TensorProto.FLOAT, ["N", "T", FEATURES])],
        [
            value("logits", onnx.TensorProto.FLOAT, ["N", CLASSES]),
            value("frames", onnx.TensorProto.FLOAT, ["N", "half", _HIDDEN]),
        ],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def make_ragged_samples(count: int, seed: int) -> RaggedSamples:
    """Samples of 5 to 40 steps, each around a mean of its own."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, _MOST + 1, count)
    lengths[0], lengths[1] = 5, _MOST
    shape = (FEATURES,)
    rows = [
        (rng.normal(0, 1, (n, FEATURES)) + rng.normal(0, 2, shape)).astype(np.float32)
        for n in lengths
    ]
    padded = np.full((count, _MOST, FEATURES), np.nan, np.float32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return RaggedSamples(rows=rows, padded=padded, lengths=lengths)


def run_each(path: Path, rows: list[NDArray[np.float32]]) -> list[list[NDArray[np.float32]]]:
    """Run a model on each sample alone; this code shares nothing with edgekit."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": row[None]}) for row in rows]


def write_ragged_project(folder: Path) -> RaggedSamples:
    """Write model, calibration and labeled samples, and edgekit.toml; return the latter samples."""
    onnx.save(make_crnn(), folder / "model.onnx")
    seen, held = make_ragged_samples(64, 1), make_ragged_samples(120, 2)
    labels = [out[0].argmax() for out in run_each(folder / "model.onnx", held.rows)]
    rng = np.random.default_rng(3)
    wrong = rng.random(120) < 0.1
    y = np.where(wrong, rng.integers(0, CLASSES, 120), labels)
    np.savez(folder / "calib.npz", x=seen.padded, x_length=seen.lengths)
    np.savez(folder / "eval.npz", x=held.padded, x_length=held.lengths, y=y)
    (folder / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n[data]\ncalibration = "calib.npz"\nevaluation = "eval.npz"\n'
    )
    return held
