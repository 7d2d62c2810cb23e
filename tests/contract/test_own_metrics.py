"""Builds and measurements judged by a function of the user, here and on a device."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgekit as api
from tests.builders.projects import assert_refused, edgekit, spawn, write_tiny
from tests.builders.servers import running_sshd, sshd

__all__ = ["running_sshd", "sshd"]

pytestmark = pytest.mark.slow

MODULE = """
import numpy as np

def brier(outputs, targets):
    wanted = np.eye(3)[targets["y"]]
    return ((outputs["y"] - wanted) ** 2).mean(axis=1)

brier.lower_is_better = True

def broken(outputs, targets):
    return outputs["absent"]

def wide(outputs, targets):
    return outputs["y"]

class Accuracy:
    is_share = True

    def __init__(self):
        self.right = self.n = 0

    def update(self, outputs, targets):
        self.right += (outputs["y"].argmax(axis=1) == targets["y"]).sum()
        self.n += len(targets["y"])

    def value(self):
        return self.right / self.n
"""


@pytest.fixture
def project(workplace):
    """A project of one matrix whose labels are wrong for a fifth of the samples."""
    folder = write_tiny(workplace / "tiny", samples=200)
    arrays = dict(np.load(folder / "eval.npz"))
    arrays["label"][::5] = (arrays["label"][::5] + 1) % 3
    np.savez(folder / "eval.npz", **arrays)
    (folder / "scores.py").write_text(MODULE, encoding="utf-8")
    return folder


def compute_outputs(folder):
    """Compute the outputs of the original with numpy, and the wanted ones."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "model.onnx")
    arrays = np.load(folder / "eval.npz")
    return arrays["x"] @ numpy_helper.to_array(model.graph.initializer[0]), arrays["label"]


def build(folder, *more):
    done = edgekit("build", "-C", folder, "--step", "quantize-static", "--json", *more)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_build_is_judged_by_a_function_of_the_user_with_guards(project):
    with (project / "edgekit.toml").open("a", encoding="utf-8") as file:
        file.write('[gate.guards]\n"scores:Accuracy" = 3.0\ntop1 = 3.0\n')

    built = build(project, "--metric", "scores:brier")

    outputs, labels = compute_outputs(project)
    original, chosen = built["candidates"]
    scores = original["measurements"][0]["scores"]
    assert scores["scores:brier"] == pytest.approx(((outputs - np.eye(3)[labels]) ** 2).mean())
    assert scores["scores:Accuracy"] == scores["top1"] == pytest.approx(0.8)
    compared = chosen["comparison"]
    after = chosen["measurements"][0]["scores"]["scores:brier"]
    assert (compared["metric"], compared["unit"]) == ("scores:brier", "%")
    assert compared["drop"] == pytest.approx(100 * (after / scores["scores:brier"] - 1))
    joint, top1 = compared["guards"]
    assert (joint["drop"], joint["unit"]) == (top1["drop"], "points")
    checks = [check["name"] for check in chosen["verdict"]["checks"] if check["metric"]]
    assert checks == ["brier_loss_percent", "accuracy_loss_points", "accuracy_drop_points"]


def test_a_function_in_edgekit_toml_is_computed_again_after_an_edit(project):
    settings = project / "edgekit.toml"
    settings.write_text(settings.read_text().replace("[build]", 'metric = "scores:brier"\n[build]'))
    first = build(project)["candidates"][0]["measurements"][0]["scores"]["scores:brier"]
    module = project / "scores.py"
    module.write_text(MODULE.replace(".mean(axis=1)", ".sum(axis=1)"), encoding="utf-8")
    again = build(project)["candidates"][0]["measurements"][0]["scores"]["scores:brier"]
    assert again == pytest.approx(3 * first)


@pytest.mark.parametrize("host", ["local", "dev"])
def test_a_bundle_is_measured_by_the_metric_of_the_user(project, host, request, tmp_path):
    if host == "dev":
        request.getfixturevalue("sshd")
    outcome = api.build(folder=project, metric="scores:brier", steps=["quantize-static"])
    measured = api.bench(outcome.folder, host, eval="eval.npz", folder=project)
    assert [score.metric for score in measured.scores] == ["scores:brier"]
    assert measured.scores[0].value == outcome.choice.measurements[0].scores[0].value
    # Without samples the module is not needed.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bundle = outcome.folder / "tablet-x86.edgekit"
    assert spawn("bench", bundle, "local", "-C", elsewhere).code == 0
    lacking = spawn("bench", bundle, "local", "-C", elsewhere, "--eval", project / "eval.npz")
    assert lacking.code == 2
    assert "scores:brier: no module 'scores' in" in lacking.err
    other = ("--eval", project / "eval.npz", "--metric", "top1")
    assert spawn("bench", bundle, "local", "-C", elsewhere, *other).code == 0


@pytest.mark.parametrize("name", ["brier", "Accuracy"])
def test_labels_that_say_nothing_are_never_proof(project, name):
    arrays = dict(np.load(project / "eval.npz"))
    np.savez(project / "eval.npz", **arrays | {"label": np.zeros_like(arrays["label"])})
    options = ("--metric", f"scores:{name}", "--step", "clean")
    done = edgekit("build", "-C", project, *options)
    assert done.code == 3, done
    assert "its value with the targets of other samples" in done.out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("scores:broken", "scores:broken: KeyError: 'absent' (scores.py, line 11)"),
        ("scores:wide", "scores:wide: returned an array of shape (200, 3) instead of one number"),
        ("scores:absent", "scores:absent: scores has no 'absent'"),
        ("absent:brier", "absent:brier: no module 'absent'"),
        ("scores.py:brier", "give scores:brier"),
        ("brier", "unknown"),
    ],
)
def test_a_metric_that_fails_ends_in_one_message(project, name, told):
    assert_refused("build", "-C", project, "--metric", name, says=told)
    assert not (project / "build").exists()


def test_the_list_of_metrics_names_the_targets(workplace):
    listed = json.loads(edgekit("metrics", "--json").out)
    assert [each["name"] for each in listed] == [each.name for each in api.list_metrics()]
    assert {each["name"] for each in listed} >= {"top1", "mae", "map", "cer", "auc"}
    assert all(each["target"] for each in listed)
    table = edgekit("metrics").out.splitlines()
    assert len(table) == len(listed) + 1
    assert "mae" in next(line for line in table if "mean absolute error  " in line)
    (error,) = (line for line in table if line.startswith("perplexity"))
    assert "lower   2 %" in error
