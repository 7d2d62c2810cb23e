"""The digits example agrees with its README, and its training script trains."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.config.profile import list_shipped_names

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits_train", FOLDER / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_model_scores_what_the_readme_says():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    right, total, percent = re.search(r"(\d+) of (\d+)\D+\((\d+\.\d) %\)", readme).groups()
    data = np.load(FOLDER / "eval.npz")

    correct = int((_logits(FOLDER / "model.onnx", data["image"]).argmax(1) == data["y"]).sum())

    assert (correct, len(data["y"])) == (int(right), int(total))
    assert f"{100 * correct / len(data['y']):.1f}" == percent
    assert correct / len(data["y"]) > 0.97


def test_the_model_has_as_many_parameters_as_the_readme_says():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    graph = onnx.load(FOLDER / "model.onnx").graph

    count = sum(int(np.prod(i.dims)) for i in graph.initializer if i.name != "scale")

    assert f"{count:,} parameters" in readme


def test_evaluation_images_were_not_calibrated_or_trained_on():
    calibration = np.load(FOLDER / "calib.npz")
    evaluation = np.load(FOLDER / "eval.npz")

    seen = {image.tobytes() for image in calibration["image"]}

    assert calibration.files == ["image"], "calibration data needs no labels"
    assert not any(image.tobytes() in seen for image in evaluation["image"])


def test_the_project_file_names_files_and_a_device_that_exist():
    project = tomllib.loads((FOLDER / "edgekit.toml").read_text(encoding="utf-8"))

    assert (FOLDER / project["model"]["path"]).is_file()
    assert (FOLDER / project["data"]["calibration"]).is_file()
    assert (FOLDER / project["data"]["evaluation"]).is_file()
    assert project["build"]["device"] in list_shipped_names()


def test_the_data_can_be_made_again(script):
    images, _, held_out, held_out_labels = script.split()
    evaluation = np.load(FOLDER / "eval.npz")

    np.testing.assert_array_equal(images[:200], np.load(FOLDER / "calib.npz")["image"])
    np.testing.assert_array_equal(held_out, evaluation["image"])
    np.testing.assert_array_equal(held_out_labels, evaluation["y"])


def test_the_training_script_learns_and_gives_the_same_model_twice(script):
    images, labels, _, _ = script.split()

    params, losses = script.train(images, labels, steps=80)
    again, _ = script.train(images, labels, steps=80)

    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    for name, value in params.items():
        np.testing.assert_allclose(value, again[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_gradients_are_those_of_the_loss(script):
    images, labels, _, _ = script.split()
    rng = np.random.default_rng(0)
    params = {k: v.astype(np.float64) for k, v in script.initial(rng).items()}
    for name in ("conv1.bias", "conv2.bias"):  # off the kink that a bias of 0 is on blank paper
        params[name] += rng.uniform(0.02, 0.1, params[name].shape)
    batch = images[:4].astype(np.float64)
    _, grads = script.gradients(params, batch, labels[:4])

    for name, grad in grads.items():
        at = np.unravel_index(np.abs(grad).argmax(), grad.shape)
        sides = []
        for step in (1e-5, -1e-5):
            shifted = {k: v.copy() for k, v in params.items()}
            shifted[name][at] += step
            sides.append(script.gradients(shifted, batch, labels[:4])[0])
        assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(grad[at], rel=1e-3), name


def test_the_exported_model_computes_what_was_trained(script, tmp_path):
    images, _, _, _ = script.split()
    params = script.initial(np.random.default_rng(0))
    path = tmp_path / "model.onnx"
    onnx.save(script.as_onnx(params), path)

    loss, _ = script.gradients(params, images[:32], np.zeros(32, np.int64))
    logits = _logits(path, images[:32]).astype(np.float64)

    by_model = np.log(np.exp(logits).sum(1)) - logits[:, 0]
    assert by_model.mean() == pytest.approx(loss, rel=1e-4)


def _logits(model, images):
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]
