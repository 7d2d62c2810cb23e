"""Effort and minutes of a request come before those of edgekit.toml."""

from __future__ import annotations

import pytest

import edgekit
from edgekit.config.project import BuildTable
from edgekit.pipeline.recovery.effort import choose_learning


@pytest.mark.parametrize(
    ("asked", "table", "minutes"),
    [
        ((None, None), {}, 10),
        (("quick", None), {}, 0),
        (("thorough", None), {}, 60),
        ((None, 3.5), {}, 3.5),
        ((None, None), {"effort": "quick"}, 0),
        ((None, None), {"minutes": 25.0}, 25),
        (("quick", None), {"minutes": 25.0}, 0),
        ((None, 0), {"effort": "thorough"}, 0),
        (("thorough", 90), {"minutes": 25.0}, 90),
    ],
)
def test_the_request_comes_before_the_project(asked, table, minutes, monkeypatch):
    monkeypatch.delenv("EDGEKIT_EFFORT", raising=False)
    assert choose_learning(*asked, BuildTable(**table)).minutes == minutes


def test_the_environment_gives_the_effort_of_builds_that_name_none(monkeypatch):
    monkeypatch.setenv("EDGEKIT_EFFORT", "thorough")
    assert choose_learning(None, None, BuildTable()).minutes == 60
    assert choose_learning(None, None, BuildTable(effort="quick")).minutes == 0
    assert choose_learning(None, 2, BuildTable()).minutes == 2


def test_an_unknown_effort_of_the_environment_is_refused(tiny, monkeypatch):
    monkeypatch.setenv("EDGEKIT_EFFORT", "lots")
    with pytest.raises(edgekit.UserError, match="EDGEKIT_EFFORT is 'lots'"):
        edgekit.build(folder=tiny)


def test_no_learning_for_some_minutes_is_a_contradiction(tiny):
    with pytest.raises(edgekit.ArgumentError, match="effort and minutes cannot be combined"):
        edgekit.build(folder=tiny, effort="quick", minutes=5)


@pytest.mark.parametrize("line", ['effort = "slow"', "minutes = -1"])
def test_a_wrong_setting_is_named(tiny, line):
    path = tiny / "edgekit.toml"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")

    with pytest.raises(edgekit.UserError, match=rf"build\.{line.split()[0]}"):
        edgekit.build(folder=tiny)
