"""`build` finds the same result as a user with single passes."""

from __future__ import annotations

import json
import re

import pytest

from tests.builders.mobilenet import write_project
from tests.builders.projects import PROFILE, edgekit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("removed", [0.5, 0.6])
def test_a_budget_that_channels_and_int8_meet_by_hand_is_met_by_a_build(workplace, removed):
    write_project(workplace)
    steps = (
        "--step",
        "clean",
        "--step",
        f"prune-channels:remove={removed}",
        "--step",
        "quantize-static",
    )
    done = edgekit("build", "--max-drop", "3", "--json", *steps)
    assert done.code == 0, done.out + done.err
    (by_hand,) = (c for c in json.loads(done.out)["candidates"] if c["name"] != "original")
    figures = by_hand["measurements"][0]
    sent = figures["transfer_bytes"] + figures["overhead_bytes"]

    text = edgekit("devices", "show", PROFILE).out
    limit = 1.02 * sent / 2**20
    text = re.sub(r"^transfer_mib *=.*$", f"transfer_mib = {limit}", text, flags=re.MULTILINE)
    (workplace / "tight.toml").write_text(text)
    done = edgekit("build", "--max-drop", "3", "--device", "tight.toml", "--json")

    assert done.code == 0, done.out + done.err
    facts = json.loads(done.out)
    (chosen,) = (c for c in facts["candidates"] if c["name"] == facts["chosen"])
    assert {k["outcome"] for k in chosen["verdict"]["checks"]} <= {
        "holds",
        "unmeasured",
        "unproven",
    }
    assert len(facts["candidates"]) + len(facts["rejected"]) < 30
