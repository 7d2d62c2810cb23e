"""Builds whose metric says nothing about the model never pass: ``meaningless``, or exit code 2."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.builders.projects import PROFILE, edgekit
from tests.builders.tiny import proto

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(7)
N = 48


@dataclass(frozen=True)
class Case:
    """A model in ONNX text, its samples, and the further settings of its project."""

    text: str
    weights: dict[str, Any]
    arrays: dict[str, Any]
    settings: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def change(self, settings=None, **arrays):
        kept = self.settings if settings is None else settings
        return Case(self.text, self.weights, {**self.arrays, **arrays}, kept, self.files)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def name(metric, *options):
    lines = "\n".join(options)
    return f'metric = "{metric}"\n[data.metric_options]\n{lines}\n'


def build_classifier():
    weights, x = draw(4, 3), draw(N, 4)
    text = "tiny (float[N, 4] x) => (float[N, 3] scores) { scores = MatMul(x, w) }"
    return Case(text, {"w": weights}, {"x": x, "y": (x @ weights).argmax(1)}, name("top1"))


def build_scorer():
    """One score per sample, above 0.5 for class 1."""
    weights, x = draw(4, 1), draw(N, 4)
    text = "tiny (float[N, 4] x) => (float[N, 1] p) { s = MatMul(x, w) p = Sigmoid(s) }"
    return Case(text, {"w": weights}, {"x": x, "y": (x @ weights > 0)[:, 0] * 1}, name("auc"))


def build_tagger():
    """One score for each of three labels, above 0.5 where the label is present."""
    weights, x = draw(4, 3), draw(N, 4)
    text = "tiny (float[N, 4] x) => (float[N, 3] p) { s = MatMul(x, w) p = Sigmoid(s) }"
    arrays = {"x": x, "y": (x @ weights > 0).astype(np.int64)}
    return Case(text, {"w": weights}, arrays, name("multilabel-map"))


def build_regressor(metric="mae"):
    weights, x = draw(4, 1), draw(N, 4)
    text = "tiny (float[N, 4] x) => (float[N, 1] value) { value = MatMul(x, w) }"
    return Case(text, {"w": weights}, {"x": x, "y": x @ weights + 0.1 * draw(N, 1)}, name(metric))


def build_upscaler():
    """Super-resolution: twice as many pixels, each the value of its source."""
    x = RNG.uniform(size=(N, 1, 4, 4)).astype(np.float32)
    text = """
    tiny (float[N, 1, 4, 4] x) => (float[N, 1, 8, 8] image) {
      image = ConvTranspose <strides = [2, 2]> (x, w)
    }
    """
    sharp = np.kron(x, np.ones((2, 2), np.float32)) + 0.02 * draw(N, 1, 8, 8)
    y = np.clip(sharp, 0, 1)
    return Case(text, {"w": np.ones((1, 1, 2, 2), np.float32)}, {"x": x, "y": y}, name("psnr"))


def build_autoencoder():
    """The first two of four values are kept; anomalies have other values in the rest."""
    x, labels = draw(N, 4), np.arange(N) % 2
    x[:, 2:] *= 0.1 + labels[:, None]
    text = "tiny (float[N, 4] x) => (float[N, 4] again) { again = MatMul(x, w) }"
    weights = np.diag([1, 1, 0, 0]).astype(np.float32)
    return Case(text, {"w": weights}, {"x": x, "y": labels}, name("reconstruction-auc"))


def build_segmenter():
    """Class scores of each pixel by its value."""
    x = draw(N, 1, 6, 6)
    text = "tiny (float[N, 1, 6, 6] x) => (float[N, 2, 6, 6] scores) { scores = Conv(x, w) }"
    weights = np.array([-1, 1], np.float32).reshape(2, 1, 1, 1)
    return Case(text, {"w": weights}, {"x": x, "y": (x[:, 0] > 0) * 1}, name("miou"))


def build_language_model():
    """Logits of the next of eight symbols, which is the last one plus one."""
    x = RNG.integers(0, 8, (N, 12))
    text = "tiny (int64[N, 12] x) => (float[N, 12, 8] logits) { logits = Gather(w, x) }"
    weights = 4 * np.roll(np.eye(8, dtype=np.float32), 1, axis=1) + 0.1 * draw(8, 8)
    return Case(text, {"w": weights}, {"x": x, "y": (x + 1) % 8}, name("perplexity"))


def build_reader():
    """Text of four letters, from scores of blank, a, b and c at eight steps."""
    classes = np.zeros((N, 8), int)
    classes[:, ::2] = RNG.integers(1, 4, (N, 4))
    x = np.eye(4, dtype=np.float32)[classes] + 0.1 * draw(N, 8, 4)
    texts = np.array(["".join("?abc"[k] for k in row if k) for row in classes])
    text = "tiny (float[N, 8, 4] x) => (float[N, 8, 4] steps) { steps = MatMul(x, w) }"
    settings = name("cer") + '[postprocess]\nkind = "ctc"\ncharset = "letters.txt"\n'
    weights = np.eye(4, dtype=np.float32)
    return Case(text, {"w": weights}, {"x": x, "y": texts}, settings, {"letters.txt": "a\nb\nc\n"})


def build_detector():
    """Boxes that the input holds: x1, y1, x2, y2, score and class of two objects."""
    corners = RNG.uniform(0, 40, (N, 2, 2)).astype(np.float32)
    sides = RNG.uniform(8, 20, (N, 2, 2)).astype(np.float32)
    classes = RNG.integers(0, 2, (N, 2, 1)).astype(np.float32)
    boxes = np.concatenate([corners, corners + sides], axis=2)
    x = np.concatenate([boxes, np.full((N, 2, 1), 0.9, np.float32), classes], axis=2)
    text = "tiny (float[N, 2, 6] x) => (float[N, 2, 6] boxes) { boxes = MatMul(x, w) }"
    settings = name("map") + '[postprocess]\nkind = "boxes"\nsize = [64, 64]\n'
    y = np.concatenate([boxes, classes], axis=2).astype(np.float64)
    return Case(text, {"w": np.eye(6, dtype=np.float32)}, {"x": x, "y": y}, settings)


CLASSIFIER, SCORER, REGRESSOR = build_classifier(), build_scorer(), build_regressor()
UPSCALER, AUTOENCODER, SEGMENTER = build_upscaler(), build_autoencoder(), build_segmenter()
LANGUAGE_MODEL, READER, DETECTOR = build_language_model(), build_reader(), build_detector()
TAGGER = build_tagger()
SOUND = {
    "top1": CLASSIFIER,
    "macro-f1": CLASSIFIER.change(name("macro-f1")),
    "ece": CLASSIFIER.change(name("ece")),
    "multilabel-map": TAGGER,
    "auc": SCORER,
    "mae": REGRESSOR,
    "psnr": UPSCALER,
    "reconstruction-auc": AUTOENCODER,
    "miou": SEGMENTER,
    "perplexity": LANGUAGE_MODEL,
    "cer": READER,
    "map": DETECTOR,
}


def zero(case):
    """Return the case with a model whose output is the same for every sample."""
    made = {key: np.zeros_like(value) for key, value in case.weights.items()}
    return Case(case.text, made, case.arrays, case.settings, case.files)


def shuffle(case):
    """Return the case with each target at the next but four samples."""
    return case.change(y=np.roll(case.arrays["y"], 5, axis=0))


def untrain(case):
    """Return the case with random weights."""
    rng = np.random.default_rng(1)
    made = {k: rng.normal(size=v.shape).astype(np.float32) for k, v in case.weights.items()}
    return Case(case.text, made, case.arrays, case.settings, case.files)


ZEROS = np.zeros(N, np.int64)
MEANINGLESS = {
    "zero images for super-resolution": UPSCALER.change(y=np.zeros((N, 1, 8, 8), np.float32)),
    "zero labels for super-resolution, by the metric of the model": UPSCALER.change("", y=ZEROS),
    "zero labels for the autoencoder, by the metric of its output": AUTOENCODER.change("", y=ZEROS),
    "dummy labels 0 for the autoencoder": AUTOENCODER.change(y=ZEROS),
    "dummy labels 1 for the autoencoder": AUTOENCODER.change(y=ZEROS + 1),
    "random labels for the autoencoder": AUTOENCODER.change(
        y=np.random.default_rng(5).integers(0, 2, N)
    ),
    **{f"constant output, {metric}": zero(case) for metric, case in SOUND.items()},
    **{f"shuffled targets, {metric}": shuffle(case) for metric, case in SOUND.items()},
    "one class only": CLASSIFIER.change(
        x=CLASSIFIER.arrays["x"][CLASSIFIER.arrays["y"] == 0],
        y=CLASSIFIER.arrays["y"][CLASSIFIER.arrays["y"] == 0],
    ),
    "zero labels for a classifier": CLASSIFIER.change(y=ZEROS),
    "one kind of label for a score": SCORER.change(y=ZEROS + 1),
    "blank masks": SEGMENTER.change(y=np.zeros((N, 6, 6), np.uint8)),
    "reversed scores": SCORER.change(y=1 - SCORER.arrays["y"]),
    "values of the opposite sign": REGRESSOR.change(name("spearman"), y=-REGRESSOR.arrays["y"]),
    "random weights of a classifier": untrain(CLASSIFIER),
    "random weights of a detector": untrain(DETECTOR),
    # Anomalies have larger values, so that any wrong reconstruction tells them.
    "random weights of an autoencoder": untrain(AUTOENCODER),
    "five samples": CLASSIFIER.change(
        x=CLASSIFIER.arrays["x"][:5], y=CLASSIFIER.arrays["y"][:5]
    ),
    "random labels of two classes": SCORER.change(
        name("macro-f1"), y=np.random.default_rng(3).integers(0, 2, N)
    ),
    "random masks": SEGMENTER.change(y=np.random.default_rng(3).integers(0, 2, (N, 6, 6))),
    "the calibration of random labels": SCORER.change(
        name("ece"), y=np.random.default_rng(4).integers(0, 2, N)
    ),
    "a guard of calibration on a model that is never sure": Case(
        SCORER.text, {"w": 0 * SCORER.weights["w"]}, SCORER.arrays,
        'metric = "auc"\n[gate.guards]\nece = 1.0\n',
    ),
    "values in another unit": REGRESSOR.change(name("r2"), y=1000 * REGRESSOR.arrays["y"] + 5000),
    "the same target everywhere": REGRESSOR.change(y=np.full((N, 1), 2.5)),
    "the five largest of three classes": CLASSIFIER.change(name("top5")),
    "any of all others found": CLASSIFIER.change(name("recall", f"count = {N - 1}")),
    "random classes of three": CLASSIFIER.change(
        name("multilabel-map"), y=np.random.default_rng(1).integers(0, 2, (N, 3))
    ),
    "shuffled targets of one group": shuffle(CLASSIFIER).change(group=ZEROS),
    "shuffled targets of two groups": shuffle(REGRESSOR).change(group=np.arange(N) % 2),
    "one sample many times": CLASSIFIER.change(
        x=CLASSIFIER.arrays["x"][:1].repeat(N, 0), y=CLASSIFIER.arrays["y"][:1].repeat(N)
    ),
    "a single sample": REGRESSOR.change(
        x=REGRESSOR.arrays["x"][:1], y=REGRESSOR.arrays["y"][:1]
    ),
    "empty texts": READER.change(y=np.array([""] * N)),
    "boxes in shares of the image": DETECTOR.change(
        y=DETECTOR.arrays["y"] * [1 / 64, 1 / 64, 1 / 64, 1 / 64, 1]
    ),
    "classes counted from 1": DETECTOR.change(y=DETECTOR.arrays["y"] + [0, 0, 0, 0, 7]),
    "a guard that says nothing": CLASSIFIER.change('metric = "top1"\n[gate.guards]\ntop5 = 1.0\n'),
    "a metric of the user that is always 1": Case(
        CLASSIFIER.text, CLASSIFIER.weights, CLASSIFIER.arrays, name("own:score"),
        {"own.py": "def score(outputs, targets):\n    return targets['y'] * 0 + 1.0\n"},
    ),
    "no boxes": DETECTOR.change(y_length=ZEROS),
}  # fmt: skip
REFUSED = {
    "all labels ignored": (
        SCORER.change(name("auc", "ignore = -1"), y=ZEROS - 1), "every target is ignored",
    ),
    "all pixels ignored": (
        SEGMENTER.change(name("miou", "ignore = 255"), y=np.full((N, 6, 6), 255, np.uint8)),
        "every target is ignored",
    ),
    "one label for each image": (UPSCALER.change(y=ZEROS), "shape"),
    "a class beyond the output": (CLASSIFIER.change(y=ZEROS + 7), "label 7"),
    "a negative class": (CLASSIFIER.change(y=CLASSIFIER.arrays["y"] - 1), "-1"),
    "a label that is neither 0 nor 1": (SCORER.change(y=SCORER.arrays["y"] + 1), "label 2"),
    "a class beyond those of the mask": (
        SEGMENTER.change(y=SEGMENTER.arrays["y"] + 1), "must be from 0 to 1",
    ),
    "a token beyond the vocabulary": (
        LANGUAGE_MODEL.change(y=LANGUAGE_MODEL.arrays["y"] + 100), "must be from 0 to 7",
    ),
    "values of another shape": (REGRESSOR.change(y=np.zeros((N, 3))), "shape"),
    "masks of another size": (SEGMENTER.change(y=np.zeros((N, 3, 3), int)), "shape"),
    "values that are not numbers": (
        REGRESSOR.change(y=np.where(np.arange(N) == 9, np.nan, 1.0)), "NaN",
    ),
    "classes with fractions": (CLASSIFIER.change(y=CLASSIFIER.arrays["y"] + 0.5), "integer"),
    "classes as columns of 0 and 1": (
        CLASSIFIER.change(y=np.eye(3, dtype=int)[CLASSIFIER.arrays["y"]]), "shape",
    ),
    "texts for a classifier": (CLASSIFIER.change(y=np.array(["cat", "dog"] * (N // 2))), ""),
    "one target less than samples": (CLASSIFIER.change(y=ZEROS[1:]), "number of samples"),
    "a charset without a letter": (
        Case(READER.text, READER.weights, READER.arrays, READER.settings, {"letters.txt": "a\nb"}),
        "classes",
    ),
}  # fmt: skip


def build(folder, case):
    onnx.save(proto(case.text, weights=case.weights), folder / "model.onnx")
    np.savez(folder / "eval.npz", **case.arrays)
    for file, content in case.files.items():
        (folder / file).write_text(content)
    (folder / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n'
        f'[build]\ndevice = "{PROFILE}"\nruntime = "onnxruntime"\n'
        f'[data]\nevaluation = "eval.npz"\n{case.settings}'
    )
    return edgekit("build", "-C", folder, "--step", "clean", "--json")


def get_outcomes(done):
    """Return the outcomes of the metrics for each candidate."""
    candidates = json.loads(done.out)["candidates"]
    return [{c["outcome"] for c in each["verdict"]["checks"] if c["metric"]} for each in candidates]


@pytest.mark.parametrize("metric", SOUND)
def test_real_targets_pass(metric, tmp_path):
    done = build(tmp_path, SOUND[metric])
    assert done.code == 0, done
    assert all(each <= {"holds", "unproven"} for each in get_outcomes(done))


@pytest.mark.parametrize("what", MEANINGLESS)
def test_targets_that_say_nothing_end_with_3(what, tmp_path):
    done = build(tmp_path, MEANINGLESS[what])
    assert done.code == 3, done
    assert all("meaningless" in each for each in get_outcomes(done))


def test_a_constant_output_without_labels_ends_with_3(tmp_path):
    case = zero(CLASSIFIER)
    done = build(tmp_path, replace(case, arrays={"x": case.arrays["x"]}, settings=""))
    assert done.code == 3, done
    assert all("meaningless" in each for each in get_outcomes(done))


@pytest.mark.parametrize("what", REFUSED)
def test_targets_that_do_not_fit_end_with_2(what, tmp_path):
    case, says = REFUSED[what]
    done = build(tmp_path, case)
    assert done.code == 2, done
    assert says in done.err
    assert "Traceback" not in done.err
