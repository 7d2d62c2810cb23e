"""Tasks other than classification are built with their own metric."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.builders.metrics.projects import PROJECTS
from tests.builders.projects import PROFILE, edgekit


def test_classes_and_slices_are_shown_in_the_terminal_and_in_the_report(tmp_path):
    PROJECTS["detector"](tmp_path)
    arrays = dict(np.load(tmp_path / "eval.npz"))
    arrays["slice_light"] = np.where(np.arange(len(arrays["head"])) % 2, "day", "night")
    np.savez(tmp_path / "eval.npz", **arrays)

    built = edgekit("build", "-C", tmp_path, "--step", "clean")

    assert built.code == 0, built.err
    assert "light=night: 12 samples" in built.out
    report = (tmp_path / "build" / PROFILE / "report.html").read_text()
    assert "Classes and slices" in report
    assert "light=day" in report


def test_without_samples_the_accuracy_is_unmeasured_and_only_the_option_accepts_that(tmp_path):
    PROJECTS["recognizer"](tmp_path)
    settings = tmp_path / "edgekit.toml"
    settings.write_text(settings.read_text().replace('evaluation = "eval.npz"\n', ""))

    refused = edgekit("build", "-C", tmp_path, "--step", "clean")
    taken = edgekit("build", "-C", tmp_path, "--step", "clean", "--allow-unmeasured")

    assert refused.code == 3, refused
    assert "accuracy: unmeasured" in refused.out
    assert taken.code == 0, taken.err
    assert "chosen; accuracy: unmeasured" in taken.out


def test_samples_without_labels_are_compared_with_the_outputs_of_the_original(tmp_path):
    PROJECTS["recognizer"](tmp_path)
    np.savez(tmp_path / "eval.npz", x=np.load(tmp_path / "eval.npz")["x"])
    settings = tmp_path / "edgekit.toml"
    settings.write_text(settings.read_text().replace('metric = "cer"\n', ""))

    built = edgekit("build", "-C", tmp_path, "--step", "clean", "--json")

    assert built.code == 0, built.err
    scores = json.loads(built.out)["candidates"][-1]["measurements"][0]["scores"]
    assert scores["output-cosine"] > 0.9999
    assert scores["output-rms"] < 0.001


@pytest.mark.parametrize(
    ("task", "metric", "least", "most"),
    [("detector", "map50", 0.3, 0.95), ("recognizer", "cer", 0.05, 0.4), ("stream", "auc", 0.6, 1)],
)
def test_a_candidate_is_judged_by_the_metric_of_its_task(tmp_path, task, metric, least, most):
    PROJECTS[task](tmp_path)

    built = edgekit("build", "-C", tmp_path, "--step", "clean", "--json")

    assert built.code == 0, built.err
    facts = json.loads(built.out)
    cleaned = facts["candidates"][-1]
    assert least < cleaned["measurements"][0]["scores"][metric] < most
    (check,) = (c for c in cleaned["verdict"]["checks"] if c["metric"])
    assert (check["metric"], check["outcome"]) == (metric, "holds")
    if task == "stream":
        assert cleaned["comparison"]["groups"] == 8, "the frames of a stream belong together"
