"""Tiny projects of tasks other than classification, whose models copy or add exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.builders.projects import PROFILE

_SIDE, _STRIDES, _CLASSES = 64, (8, 16, 32), 3
_ALPHABET = "abcd"


def write_detector(folder: Path, *, samples: int = 24) -> Path:
    """Write a model that returns its input, the raw head of a detector, and boxes near its own."""
    rng = np.random.default_rng(1)
    cells = sum((_SIDE // s) ** 2 for s in _STRIDES)
    heads = np.zeros((samples, cells, 5 + _CLASSES), np.float32)
    boxes = np.zeros((samples, 2, 5), np.float32)
    for head, found in zip(heads, boxes, strict=True):
        for number, cell in enumerate(rng.choice((_SIDE // 8) ** 2, 2, replace=False)):
            row, column = divmod(int(cell), _SIDE // 8)
            label = int(rng.integers(_CLASSES))
            # Sizes of e and e * 1.5 cells; the target is a little off.
            head[cell, :5] = 0.5, 0.5, 1.0, 1.25, 0.875
            head[cell, 5 + label] = 0.75 + 0.125 * number
            width, height = 8 * np.e, 8 * np.exp(1.25)
            x, y = (column + 0.5) * 8, (row + 0.5) * 8
            off = rng.normal(0, 2, 4)
            found[number] = (*(x - width / 2, y - height / 2, x + width / 2, y + height / 2), label)
            found[number, :4] += off
        if rng.random() < 0.3:
            head[rng.integers(64, cells), 4:] = 0.5  # a box of nothing
    shape = f"1, {cells}, {5 + _CLASSES}"
    ones = ", ".join(["1"] * (5 + _CLASSES))
    text = (
        f"g (float[{shape}] head) => (float[{shape}] boxes) "
        f"<float[{5 + _CLASSES}] ones = {{{ones}}}> {{ boxes = Mul(head, ones) }}"
    )
    settings = f'kind = "yolox"\nsize = [{_SIDE}, {_SIDE}]\n'
    _write(folder, text, {"head": heads, "y": boxes}, metric="map50", postprocess=settings)
    return folder


def write_recognizer(folder: Path, *, samples: int = 60) -> Path:
    """Write a model that returns its input, scores of characters over time, and texts near them."""
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, (samples, 12, len(_ALPHABET) + 1)).astype(np.float32)
    texts = []
    for rows in scores:
        classes = rows.argmax(axis=1)
        kept = [c for i, c in enumerate(classes) if c and (i == 0 or c != classes[i - 1])]
        text = "".join(_ALPHABET[c - 1] for c in kept)
        texts.append(text[: -1 - int(rng.integers(2))] or "a")
    text = (
        "g (float[N, 12, 5] x) => (float[N, 12, 5] scores) "
        "<float[5] ones = {1, 1, 1, 1, 1}> { scores = Mul(x, ones) }"
    )
    (folder / "charset.txt").write_text("\n".join(_ALPHABET) + "\n", encoding="utf-8")
    settings = 'kind = "ctc"\ncharset = "charset.txt"\n'
    _write(folder, text, {"x": scores, "y": np.array(texts)}, metric="cer", postprocess=settings)
    return folder


def write_stream(folder: Path, *, streams: int = 8, frames: int = 25) -> Path:
    """Write a model that carries a state along a stream, with a label for each frame."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, streams * frames)
    x = (label[:, None] + rng.normal(0, 0.75, (streams * frames, 1))).astype(np.float32)
    text = (
        "g (float[N, 1] x, float[N, 1] state) => (float[N, 1] y, float[N, 1] next) "
        "<float half = {0.5}> { next = Identity(x) past = Mul(state, half) y = Sub(x, past) }"
    )
    sequence = np.repeat(np.arange(streams), frames)
    label = np.where(rng.random(len(label)) < 0.1, -1, label)
    inputs = '[model.inputs.state]\nfrom = "next"\n[data.metric_options]\nignore = -1\n'
    arrays = {"x": x, "label": label, "sequence": sequence}
    _write(folder, text, arrays, metric="auc", more=inputs)
    return folder


def _write(
    folder: Path,
    text: str,
    arrays: dict[str, np.ndarray],
    *,
    metric: str,
    postprocess: str = "",
    more: str = "",
) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17]> '
    onnx.save(onnx.parser.parse_model(header + text), folder / "model.onnx")
    np.savez(folder / "eval.npz", **arrays)
    (folder / "edgekit.toml").write_text(
        f'[model]\npath = "model.onnx"\n[data]\nevaluation = "eval.npz"\nmetric = "{metric}"\n'
        + (f"[postprocess]\n{postprocess}" if postprocess else "")
        + more
        + f'[build]\ndevice = "{PROFILE}"\nruntime = "onnxruntime"\n',
        encoding="utf-8",
    )


PROJECTS = {"detector": write_detector, "recognizer": write_recognizer, "stream": write_stream}
