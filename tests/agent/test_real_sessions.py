"""Sessions of real models answer files as their evaluation data expect."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
from PIL import Image
from task_projects import shrink_project, write_project

from edgekit_agent import Session
from tests.builders.projects import PROFILE, edgekit
from tests.conftest import BESIDE, found_or_skipped

pytestmark = [pytest.mark.zoo, pytest.mark.slow]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The project of a real model with a few samples, and its session."""
    home = found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")
    manifest = tomllib.loads((home / "MANIFEST.toml").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in manifest["entry"]}

    def build(name, samples=12):
        if name not in entries:
            pytest.skip(f"{home} has no {name}")
        folder = tmp_path_factory.mktemp(name) / "project"
        write_project(home, entries[name], folder)
        shrink_project(folder, samples)
        options = ("--device", PROFILE, "--step", "clean", "--allow-failing", "--out")
        done = edgekit("build", "-C", folder, *options, folder / "out")
        assert (folder / "out" / "manifest.json").exists(), done.err
        return folder, Session(str(folder / "out"))

    return build


def test_a_detector_finds_what_people_have_marked(opened):
    folder, session = opened("det-yolox-nano")
    document = json.loads((folder / "eval.json").read_text())
    names = {each["id"]: each["name"] for each in document["categories"]}
    overlaps = []
    for image in document["images"][:12]:
        truth = [each for each in document["annotations"] if each["image_id"] == image["id"]]
        for found in session.predict(folder / "eval" / image["file_name"])["result"]:
            if found["confidence"] > 0.5:
                same = [t["bbox"] for t in truth if names[t["category_id"]] == found["label"]]
                overlaps.append(max((compute_iou(found["box"], box) for box in same), default=0))
    assert len(overlaps) > 10
    assert np.mean(np.array(overlaps) > 0.5) > 0.7
    assert session.check().healthy


def compute_iou(found, box):
    x1, y1, x2, y2 = found
    x, y, width, height = box
    common = max(0, min(x2, x + width) - max(x1, x)) * max(0, min(y2, y + height) - max(y1, y))
    return common / ((x2 - x1) * (y2 - y1) + width * height - common)


def test_a_recognizer_reads_lines(opened):
    folder, session = opened("ocr-rec-ppocrv4")
    arrays = np.load(folder / "eval.npz")
    answers = [session.predict(x) for x in arrays["x"]]
    right = [a["result"] == str(y) for a, y in zip(answers, arrays["y"], strict=True)]
    assert np.mean(right) > 0.7
    assert all(0.2 < answer["confidence"] <= 1 for answer in answers)


def test_a_voice_detector_carries_its_state_along(opened):
    folder, session = opened("vad-silero-op15")
    arrays = np.load(folder / "eval.npz")
    (name,) = set(arrays) - {"y", "sequence"}
    right, stream, last = [], session.stream(), None
    for x, y, sequence in zip(arrays[name], arrays["y"], arrays["sequence"], strict=True):
        stream, last = (stream, last) if sequence == last else (session.stream(), sequence)
        answer = stream.predict(x)
        right += [int(answer["result"]) == y] if y >= 0 else []
    assert np.mean(right) > 0.9


def test_a_segmenter_names_most_pixels_right(opened):
    folder, session = opened("seg-camvid-unet")
    shares = []
    for file in sorted((folder / "eval" / "images").iterdir()):
        result = session.predict(file)["result"]
        runs = np.array(result["runs"]).reshape(-1, 2)
        mask = np.repeat(runs[:, 0], runs[:, 1]).reshape(result["height"], result["width"])
        target = np.asarray(Image.open(folder / "eval" / "masks" / f"{file.stem}.png"))
        shares.append((mask == target)[target != 255].mean())
    assert np.mean(shares) > 0.7
