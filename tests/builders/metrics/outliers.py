"""Projects whose dynamic int8 candidate fails on the samples that have an outlier, and only there.

Activations of a sample share one scale, so that a large value in it rounds all others to zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from tests.builders.projects import PROFILE

CLASS_NAMES = ("sky", "<b>road & more</b>", "car")
_OUTLIER = 4000.0
_SIDE = 16


def write_classifier(
    folder: Path,
    *,
    samples: int = 60,
    outliers: tuple[int, ...] = (3, 7),
    side: int = _SIDE,
    channels: int = 1,
) -> Path:
    """Write a classifier of images: the row of the light is the class."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 3, samples)
    images = rng.uniform(0, 0.1, (samples, side, side, channels)).astype(np.float32)
    images[np.arange(samples), label] += 0.5
    # It pushes every class down alike.
    images[list(outliers), -1, -1, 0] = _OUTLIER
    weights = np.zeros((side, side, channels, 3), np.float32)
    for number in range(3):
        weights[number, :, :, number] = 1
    weights[-1, -1, 0] = -0.5
    size = side * side * channels
    text = (
        f"g (float[N, {side}, {side}, {channels}] x) => (float[N, 3] scores) "
        f"<int64[2] flat = {{-1, {size}}}, float[{size}, 3] w = "
        f"{{{_join(weights)}}}> {{ rows = Reshape(x, flat) scores = MatMul(rows, w) }}"
    )
    return _write(folder, text, {"x": images, "label": label}, metric="top1")


def write_segmenter(
    folder: Path, *, samples: int = 24, outliers: tuple[int, ...] = (5,), side: int = _SIDE
) -> Path:
    """Write a segmenter of color images: the brightest channel of a pixel is its class."""
    rng = np.random.default_rng(5)
    masks = rng.integers(0, 3, (samples, 4, 4))
    masks = masks.repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    images = (0.5 * np.eye(3, dtype=np.float32)[masks]).astype(np.float32)
    images += rng.uniform(0, 0.1, images.shape).astype(np.float32)
    images[list(outliers), 0, 0] = _OUTLIER, _OUTLIER, _OUTLIER + 1
    text = (
        f"g (float[N, {side}, {side}, 3] x) => (float[N, {side}, {side}, 3] scores) "
        f"<float[3, 3] w = {{{_join(np.eye(3))}}}> {{ scores = MatMul(x, w) }}"
    )
    return _write(folder, text, {"x": images, "y": masks}, metric="miou")


def write_detector(folder: Path, *, samples: int = 24, outliers: tuple[int, ...] = (2, 9)) -> Path:
    """Write the head of a detector, whose targets are its own boxes, nearly."""
    rng = np.random.default_rng(6)
    cells = 8 * 8
    heads = np.zeros((samples, cells, 8), np.float32)
    boxes = np.zeros((samples, 2, 5), np.float32)
    for head, found in zip(heads, boxes, strict=True):
        for number, cell in enumerate(rng.choice(cells - 1, 2, replace=False)):
            row, column = divmod(int(cell), 8)
            label = int(rng.integers(3))
            head[cell, :5] = 0.5, 0.5, 1.0, 1.25, 0.875
            head[cell, 5 + label] = 0.75
            x, y, width, height = (column + 0.5) * 8, (row + 0.5) * 8, 8 * np.e, 8 * np.exp(1.25)
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            found[number] = (*(corners + rng.normal(0, 2, 4)), label)
    heads[list(outliers), -1, 0] = _OUTLIER  # a place of the last cell, which has no object
    text = (
        f"g (float[1, {cells}, 8] head) => (float[1, {cells}, 8] boxes) "
        f"<float[8, 8] w = {{{_join(np.eye(8))}}}> {{ boxes = MatMul(head, w) }}"
    )
    settings = '[postprocess]\nkind = "yolox"\nsize = [64, 64]\nstrides = [8]\n'
    return _write(folder, text, {"head": heads, "y": boxes}, metric="map50", more=settings)


def write_stream(folder: Path, *, steps: int = 200, outliers: tuple[int, ...] = (150,)) -> Path:
    """Write a classifier of the steps of one sequence, which carries a state."""
    rng = np.random.default_rng(7)
    label = rng.integers(0, 3, steps)
    label[list(outliers)] = 2
    x = np.concatenate([np.eye(3)[label], np.zeros((steps, 1))], axis=1).astype(np.float32)
    x[list(outliers), 3] = _OUTLIER  # a value that the model does not use
    text = (
        "g (float[N, 4] x, float[N, 1] state) => (float[N, 3] scores, float[N, 1] next) "
        f"<float[4, 3] w = {{{_join(np.eye(4, 3))}}}> "
        "{ scores = MatMul(x, w) next = Identity(state) }"
    )
    states = '[model.inputs.state]\nfrom = "next"\n'
    return _write(folder, text, {"x": x, "label": label}, metric="top1", more=states)


def _join(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in np.ravel(values))


def _write(
    folder: Path, text: str, arrays: dict[str, np.ndarray], *, metric: str, more: str = ""
) -> Path:
    header = '<ir_version: 8, opset_import: ["" : 17]> '
    onnx.save(onnx.parser.parse_model(header + text), folder / "model.onnx")
    np.savez(folder / "eval.npz", **arrays)
    names = ", ".join(f'"{name}"' for name in CLASS_NAMES)
    (folder / "edgekit.toml").write_text(
        f'[model]\npath = "model.onnx"\n[data]\nevaluation = "eval.npz"\nmetric = "{metric}"\n'
        f'class_names = [{names}]\n{more}[build]\ndevice = "{PROFILE}"\nruntime = "onnxruntime"\n',
        encoding="utf-8",
    )
    return folder


OUTLIERS = {
    "classifier": write_classifier,
    "segmenter": write_segmenter,
    "detector": write_detector,
}
