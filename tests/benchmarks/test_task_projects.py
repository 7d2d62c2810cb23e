"""Projects of tasks hold the samples and targets that eval.py scores."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from benchmarks.task_projects import name_metric, write_project
from edgekit.config.project import load_project
from edgekit.pipeline.model_settings import find_model, read_feeding
from edgekit.pipeline.splits import open_split
from tests.conftest import BESIDE, found_or_skipped

COUNTS = {
    "det-yolox-nano": 128,
    "ocr-rec-ppocrv4": 300,
    "vad-silero-op15": 6 * 687,
    "emb-speaker-ge2e": 200,
    "reg-california-mlp": 2000,
    "lm-gpt-pysrc": 25586,
    "seg-camvid-unet": 233,
}


def write_task(folder, **facts):
    """Write an entry whose model is a placeholder; return its facts and its folder."""
    source = folder / facts["name"]
    source.mkdir()
    (source / facts["model"]).write_bytes(b"model")
    return facts, source


def test_each_row_of_a_text_is_a_symbol_and_its_target_the_next_one(tmp_path):
    facts, source = write_task(
        tmp_path, name="lm", kind="lm", model="m.onnx", metric="ppl", cache={"layers": 1},
        outputs=[{"name": "logits"}, {"name": "present_k0"}, {"name": "present_v0"}],
    )  # fmt: skip
    for split in ("calib", "eval"):
        tokens, offsets = np.array([5, 6, 7, 1, 2], np.uint8), np.array([0, 3, 5])
        np.savez(source / f"{split}.npz", tokens=tokens, off=offsets)
    folder = write_project(tmp_path, facts, tmp_path / "project")
    held = np.load(folder / "eval.npz")
    assert held["ids"].tolist() == [[5], [6], [1]]
    assert held["y"].tolist() == [6, 7, 2]
    assert held["pos"].tolist() == [[0], [1], [0]]
    assert held["sequence"].tolist() == [0, 0, 1]
    settings = tomllib.loads((folder / "edgekit.toml").read_text())
    assert settings["data"]["metric"] == "perplexity"
    assert settings["model"]["inputs"]["past_k0"] == {"from": "present_k0"}


def test_each_row_of_a_stream_has_the_end_of_the_frame_before(tmp_path):
    facts, source = write_task(
        tmp_path, name="vad", kind="vad", model="m.onnx", metric="auc", frame=512, context=2,
        state={"s": {"shape": [2, -1, 3]}}, const={"sr": 16000},
        outputs=[{"name": "p"}, {"name": "s1"}],
    )  # fmt: skip
    audio = np.arange(2 * 1024, dtype=np.int16).reshape(2, 1024)
    labels = np.array([[0, 1], [-1, 0]], np.int8)
    for split in ("calib", "eval"):
        np.savez(source / f"{split}.npz", audio=audio, label=labels)
    folder = write_project(tmp_path, facts, tmp_path / "project")
    held = np.load(folder / "eval.npz")
    assert held["x"].shape == (4, 514)
    assert (held["x"][1] * 32768).tolist() == list(range(510, 1024))
    assert (held["x"][2, :3] * 32768).tolist() == [0, 0, 1024]
    assert held["y"].tolist() == [0, 1, -1, 0]
    settings = tomllib.loads((folder / "edgekit.toml").read_text())
    assert settings["data"]["metric_options"] == {"ignore": -1}
    assert settings["model"]["inputs"]["s"] == {"from": "s1", "batch_axis": 1}


@pytest.mark.parametrize("name", COUNTS)
def test_edgekit_reads_the_project_of_each_task(name, tmp_path):
    home = found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")
    listed = tomllib.loads((home / "MANIFEST.toml").read_text())["entry"]
    facts = next(each for each in listed if each["name"] == name)
    folder = write_project(home, facts, tmp_path)
    project = load_project(folder)
    model = find_model(folder, None, project)
    split = open_split(
        project.data.evaluation,
        model=model,
        feeding=read_feeding(folder, project, model),
        folder=folder,
        settings=project.data.preprocess,
        files=project.data.files,
        targets="required",
    )
    assert split is not None
    assert split.count == COUNTS[name]
    assert project.data.metric == name_metric(facts)
