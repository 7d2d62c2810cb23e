"""Project of two models: one finds a digit in a scene by a mark, the other one reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx

from tests.builders.projects import DIGITS, PROFILE
from tests.builders.tiny import proto

_SIDE = 24
_LOCATOR = (
    "g (float[N,1,24,24] scene) => (float[N,1,24,24] heat) "
    "{ a = Conv<pads=[0,0,1,1]>(scene, first) b = Relu(a) heat = Conv(b, second) }"
)
CODE = """\
import numpy as np


def run(models, sample):
    heat = models["locator"](scene=sample["scene"][None])["heat"][0, 0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    digit = sample["scene"][:, row + 2 : row + 10, column + 2 : column + 10]
    return {"scores": models["reader"](image=digit[None])["logits"][0]}
"""
SETTINGS = f"""\
[pipeline]
run = "reading:run"
[pipeline.models.locator]
path = "locator.onnx"
[pipeline.models.reader]
path = "reader.onnx"
[data]
calibration = "calib.npz"
evaluation = "eval.npz"
metric = "top1"
[build]
device = "{PROFILE}"
"""


def make_locator() -> onnx.ModelProto:
    """Make a model whose output is largest at the bright mark of two by two pixels."""
    noise = np.random.default_rng(0)
    first = noise.normal(0, 0.05, (32, 1, 2, 2)).astype(np.float32)
    second = noise.normal(0, 0.001, (1, 32, 1, 1)).astype(np.float32)
    first[0], second[0, 0] = 0.25, 1
    return proto(_LOCATOR, weights={"first": first, "second": second})


def draw_scenes(images: np.ndarray, seed: int) -> np.ndarray:
    """Draw each digit at a random place of a noisy scene, with a mark at its upper left corner."""
    random = np.random.default_rng(seed)
    scenes = random.uniform(0, 2, (len(images), 1, _SIDE, _SIDE)).astype(np.float32)
    for scene, image in zip(scenes[:, 0], images[:, 0], strict=True):
        row, column = random.integers(2, _SIDE - 7, 2)
        scene[row : row + 8, column : column + 8] = image
        scene[row - 2 : row, column - 2 : column] = 32
    return scenes


def write_project(folder: Path, *, settings: str = SETTINGS, code: str = CODE) -> Path:
    """Write models, samples, the function that combines the models, and edgekit.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DIGITS / "model.onnx", folder / "reader.onnx")
    onnx.save(make_locator(), folder / "locator.onnx")
    with np.load(DIGITS / "calib.npz") as calib, np.load(DIGITS / "eval.npz") as evaluation:
        np.savez(folder / "calib.npz", scene=draw_scenes(calib["image"], 1))
        np.savez(folder / "eval.npz", scene=draw_scenes(evaluation["image"], 2), y=evaluation["y"])
    (folder / "reading.py").write_text(code)
    (folder / "edgekit.toml").write_text(settings)
    return folder
