"""Tasks other than classification are built with their own metric."""

from __future__ import annotations

import json

import pytest

from tests.builders.projects import edgekit
from tests.builders.task_projects import PROJECTS


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
