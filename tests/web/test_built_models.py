"""Models of real builds answer in the page as on other devices, packed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.bundle.packing import pack
from edgekit.packaging.web.models import make_model_files
from edgekit_agent.session import Session
from tests.builders.apps import projects
from tests.web.answer_checks import compare_answers, to_page
from tests.web.node_calls import NodeError, find_web_runtime, run_session

_WRITERS: dict[str, Callable[[Path], None]] = {
    "finder": projects.write_finder,
    "tones": projects.write_tones,
    "speech": projects.write_speech,
    "reviews": projects.write_reviews,
    "risks": projects.write_risks,
}
_SAMPLES = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds a project once; it returns the folder of the bundle."""
    find_web_runtime()

    @cache
    def build(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        _WRITERS[name](folder)
        return projects.build_application(folder)

    return build


def _read_samples(project: Path) -> list[Any]:
    """Return some samples as an application gets them: files, texts and rows."""
    if (project / "eval.jsonl").exists():
        lines = (project / "eval.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines[:_SAMPLES]]
    if (project / "eval.csv").exists():
        head, *lines = (project / "eval.csv").read_text(encoding="utf-8").splitlines()
        rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
        return [{k: v for k, v in row.items() if k != "label"} for row in rows[:_SAMPLES]]
    files = (project / "eval").rglob("*")
    samples = sorted(path for path in files if path.suffix in (".png", ".wav"))
    return [path.read_bytes() for path in samples[:: max(1, len(samples) // _SAMPLES)]]


@pytest.mark.parametrize("is_packed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("name", list(_WRITERS))
def test_built_models_answer_as_on_other_devices(
    built: Callable[[str], Path], name: str, is_packed: bool
) -> None:
    """The self-check agrees to 1e-4, and so do the answers to the samples of the project."""
    folder = built(name)
    files, model_name = make_model_files(edgekit.open_bundle(folder))
    model = (folder / "model.onnx").read_bytes()
    sent = pack(model) if is_packed else model
    samples = _read_samples(folder.parents[1])
    with Session(str(folder)) as session:
        wanted = [session.predict(sample) for sample in samples]
    found = run_session(
        files["settings.json"].decode(),
        sent,
        [to_page(sample) for sample in samples],
        golden=files["golden.json"].decode(),
        tokenizer=files["tokenizer.json"].decode() if "tokenizer.json" in files else None,
    )
    assert not isinstance(found.health, NodeError), found.health
    assert found.health["healthy"]
    assert found.health["error"] <= 1e-4
    assert model_name in files
    compare_answers(found.predictions, wanted)
