"""Notes of passes reach terminal, plain data and report, also in a repeated build."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.bundle.manifest import REPORT
from edgekit.cli.render.build import encode_build, format_build
from edgekit.compression.clean import clean
from edgekit.compression.pass_specs import PASSES
from edgekit.pipeline.build import build
from edgekit.pipeline.request import Request
from edgekit.reporting.html import write_report
from tests.builders.projects import PROFILE
from tests.builders.tiny import model, normal, run, uniform

TEXT = "g (float[N,16] x) => (float[N,4] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
WEIGHTS = {"w": normal(16, 40), "v": normal(40, 4, seed=1)}
NOTE = "layer <v> stays float: it is too small"


def clean_with_a_note(source, settings, work):
    work.note(NOTE)
    work.note(NOTE)
    return clean(source, settings, work)


@pytest.fixture
def request_of_a_build(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    row = dataclasses.replace(PASSES["clean"], function=f"{__name__}:clean_with_a_note")
    monkeypatch.setitem(PASSES, "clean", row)
    source = model(tmp_path, TEXT, weights=WEIGHTS)
    x = uniform(40, 16)
    np.savez(tmp_path / "calib.npz", x=uniform(40, 16, seed=9))
    np.savez(tmp_path / "eval.npz", x=x, label=run(source, x=x)[0].argmax(1))
    return Request(
        folder=tmp_path,
        model=source.path,
        device=PROFILE,
        data="calib.npz",
        evaluation="eval.npz",
        max_drop_points=50,
        runtime="onnxruntime",
    )


def test_notes_of_passes_are_shown_once_and_come_from_the_cache_too(request_of_a_build):
    first = build(request_of_a_build, lambda *_: None)
    again = build(request_of_a_build, lambda *_: None)

    for outcome in (first, again):
        compressed = [c for c in outcome.found.candidates if c.recipe.steps]
        assert compressed
        assert all(c.notes[0] == NOTE for c in compressed)
        assert all(len(set(c.notes)) == len(c.notes) for c in compressed)
        facts = encode_build(outcome)
        told = {c["name"]: c["notes"] for c in facts["candidates"]}
        assert told["original"] == ()
        assert told["int8-dynamic"].count(NOTE) == 1
        shown = outcome.found.chosen or outcome.found.nearest
        assert format_build(outcome).count(NOTE) == shown.notes.count(NOTE)
    write_report(first.inputs.out)
    page = (first.inputs.out / REPORT).read_text(encoding="utf-8")
    assert page.count("layer &lt;v&gt; stays float") == len(first.found.candidates) - 1
