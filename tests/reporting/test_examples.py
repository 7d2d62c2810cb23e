"""The report shows the samples that the candidate changes, with the answers of both models."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from PIL import Image

from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import Postprocess
from tests.builders.build_folders import assert_closed, page, read_page
from tests.builders.metrics.outliers import (
    CLASS_NAMES,
    write_classifier,
    write_detector,
    write_segmenter,
    write_stream,
)
from tests.builders.projects import PROFILE, edgekit

STEP = ("--step", "quantize-dynamic", "--allow-failing")


def build(folder, *arguments):
    """Build the dynamic int8 candidate; return the output folder and the JSON document."""
    done = edgekit("build", "-C", folder, *STEP, "--with-samples", "--json", *arguments)
    assert done.code in (0, 3), done.err
    return folder / "build" / PROFILE, json.loads(done.out)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """Return the project of the segmenter, built, with its output folder; tests copy it."""
    folder = tmp_path_factory.mktemp("segmenter")
    write_segmenter(folder)
    return folder, build(folder)[0]


@pytest.fixture
def copied(segmented, tmp_path):
    """Return a copy of the build folder of the segmenter."""
    return Path(shutil.copytree(segmented[1], tmp_path / "built"))


def run(model, arrays):
    """Run a model on each sample alone, as edgekit does."""
    session = onnxruntime.InferenceSession(str(model))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in arrays[name]])


def read_examples(out):
    return json.loads((out / "examples.json").read_text())


def decode(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture["png"])))


def test_of_a_classifier_the_samples_that_turned_wrong_are_shown_with_their_class_names(tmp_path):
    write_classifier(tmp_path, outliers=(3, 7, 11, 20))
    arrays = dict(np.load(tmp_path / "eval.npz"))

    out, facts = build(tmp_path)

    before, after = (
        run(m, arrays).argmax(1) for m in (tmp_path / "model.onnx", out / "model.onnx")
    )
    label = arrays["label"]
    worse = np.flatnonzero((before == label) & (after != label)).tolist()
    assert worse
    compared = facts["candidates"][-1]["comparison"]
    assert sorted(compared["changed"]) == worse
    found = read_examples(out)
    assert sorted(each["number"] for each in found["examples"]) == worse
    for each in found["examples"]:
        number = each["number"]
        texts = [each[who]["text"] for who in ("target", "original", "candidate")]
        assert texts == [CLASS_NAMES[c[number]] for c in (label, before, after)]
        assert decode(each["input"]["picture"]).size == (16, 16)
    line = json.loads((out / "results.jsonl").read_text().splitlines()[-1])
    assert sorted(line["comparison"]["changed"]) == worse
    words, elements, text = page(out, with_samples=True)
    assert "Samples that changed" in words
    assert CLASS_NAMES[1] in words
    assert "<b>road" not in text
    assert "data:image/png;base64," in text
    assert not any(tag in ("script", "img") for tag, _ in elements)


def test_of_a_segmenter_the_three_masks_are_shown(segmented):
    folder, out = segmented
    arrays = dict(np.load(folder / "eval.npz"))

    (example,) = read_examples(out)["examples"]
    assert example["number"] == 5
    masks = {"target": arrays["y"][5]}
    masks |= {
        who: run(model, arrays)[5].argmax(-1)
        for who, model in (("original", folder / "model.onnx"), ("candidate", out / "model.onnx"))
    }
    colors = {each["label"]: each["color"] for each in example["colors"]}
    for who, mask in masks.items():
        shown = np.array(decode(example[who]["picture"]).convert("RGB"))
        for number, name in enumerate(CLASS_NAMES):
            wanted = tuple(bytes.fromhex(colors[name].removeprefix("#")))
            assert np.array_equal((shown == wanted).all(-1), mask == number), (who, name)
    words, _, text = page(out, with_samples=True)
    assert_closed(text)
    assert f"mean IoU of the image: {example['before']} → {example['after']}" in words


def test_of_a_detector_the_boxes_of_both_models_and_of_the_data_are_drawn(tmp_path):
    write_detector(tmp_path)
    arrays = dict(np.load(tmp_path / "eval.npz"))

    out, facts = build(tmp_path)

    assert sorted(facts["candidates"][-1]["comparison"]["changed"]) == [2, 9]
    settings = Postprocess("yolox", size=(64, 64), strides=(8,))
    raw = run(tmp_path / "model.onnx", arrays)
    examples = read_examples(out)["examples"]
    for each in examples:
        number = each["number"]
        own = postprocess({"boxes": raw[number]}, {}, settings)
        sure = own["scores"] >= 0.25
        drawn = [
            [box[side] for side in ("x1", "y1", "x2", "y2")] for box in each["original"]["boxes"]
        ]
        np.testing.assert_allclose(np.sort(drawn, 0), np.sort(own["boxes"][sure], 0), atol=1e-4)
        wanted = arrays["y"][number]
        targets = [[box[s] for s in ("x1", "y1", "x2", "y2")] for box in each["target"]["boxes"]]
        np.testing.assert_allclose(targets, wanted[:, :4], rtol=1e-6)
        assert [b["label"] for b in each["target"]["boxes"]] == [
            CLASS_NAMES[int(c)] for c in wanted[:, 4]
        ]
        assert each["candidate"] == {
            "text": "no box", "picture": None, "boxes": [], "curve": []
        }  # fmt: skip
    _, elements, text = page(out, with_samples=True)
    assert_closed(text)
    classes = [dict(attributes).get("class") for tag, attributes in elements if tag == "rect"]
    assert classes.count("box of-target") == 4
    assert classes.count("box of-original") == sum(len(e["original"]["boxes"]) for e in examples)


def test_the_worst_classes_have_names_in_the_report(segmented):
    _, _, text = page(segmented[1], with_samples=True)

    assert '<th scope="row">car <small>2</small></th>' in text


def test_many_large_images_are_drawn_so_small_that_the_page_stays_small(tmp_path):
    write_classifier(tmp_path, samples=24, outliers=tuple(range(24)), side=160, channels=3)

    out, _ = build(tmp_path)

    assert len(read_examples(out)["examples"]) >= 12
    assert (out / "examples.json").stat().st_size < 1_000_000


def find_positions(text):
    """Return the numbers of the samples that a page lists."""
    section = text[text.index("Samples that changed") :]
    return [int(n) for n in re.findall(r"<b>(\d+)</b>", section[: section.index("</section>")])]


def test_without_the_option_positions_are_listed_and_no_sample_is_stored(segmented, tmp_path):
    folder = Path(shutil.copytree(segmented[0], tmp_path / "project"))
    drawn = read_examples(folder / "build" / PROFILE)["examples"]

    done = edgekit("build", "-C", folder, *STEP)

    out = folder / "build" / PROFILE
    assert "car: " in done.out, "the class is named in the terminal"
    listed = read_examples(out)["examples"]
    for each, other in zip(listed, drawn, strict=True):
        assert {key for key, value in each.items() if value} - {"input"} == {
            key for key in ("number", "is_worse", "before", "after") if other[key]
        }
        assert each["number"] == other["number"]
        assert (each["before"], each["after"]) == (other["before"], other["after"])
        assert not any(each["input"].values())
    words, _, text = read_page(out)
    assert find_positions(text) == [each["number"] for each in drawn]
    assert f"{drawn[0]['before']} → {drawn[0]['after']}" in words
    assert "edgekit build --with-samples" in words
    assert "data:image" not in text
    again = edgekit("report", "--with-samples", out)
    assert again.code == 2
    assert "the build drew no samples" in again.err
    assert "build again with --with-samples" in again.err


def test_right_and_wrong_answers_are_listed_without_the_texts_of_classes(tmp_path):
    write_classifier(tmp_path, outliers=(3, 7, 11, 20))

    done = edgekit("build", "-C", tmp_path, *STEP)

    assert done.code in (0, 3), done.err
    words, _, text = read_page(tmp_path / "build" / PROFILE)
    line = json.loads((tmp_path / "build" / PROFILE / "results.jsonl").read_text().splitlines()[-1])
    assert sorted(find_positions(text)) == sorted(line["comparison"]["changed"])
    assert "right → wrong" in words


def test_a_report_draws_the_samples_of_a_build_only_if_it_is_told_to(copied):
    assert edgekit("report", copied).code == 0
    assert "data:image" not in read_page(copied)[2]

    assert edgekit("report", "--with-samples", copied).code == 0
    assert "data:image" in read_page(copied)[2]


def test_the_settings_can_draw_samples_as_well(segmented, tmp_path):
    folder = Path(shutil.copytree(segmented[0], tmp_path / "project"))
    with (folder / "edgekit.toml").open("a") as file:
        file.write("examples = true\n")

    edgekit("build", "-C", folder, *STEP)

    assert "data:image" in read_page(folder / "build" / PROFILE)[2]


def test_a_cleared_cache_keeps_no_images_of_the_data(segmented, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(segmented[0], tmp_path / "project"))
    arrays = dict(np.load(folder / "eval.npz"))
    np.savez(folder / "eval.npz", x=arrays["x"])  # without labels, outputs are kept as well
    settings = (folder / "edgekit.toml").read_text().replace('metric = "miou"\n', "")
    (folder / "edgekit.toml").write_text(settings)
    out, _ = build(folder)
    assert (out / "examples.json").exists()
    assert any((tmp_path / "cache" / "examples").rglob("*.json"))

    assert edgekit("cache", "--clear").code == 0

    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["in-use"]


def test_outputs_that_are_too_large_leave_a_note_and_the_build_goes_on(tmp_path):
    write_classifier(tmp_path, samples=24, outliers=(3, 4, 5))
    model = onnx.load(tmp_path / "model.onnx")
    graph = model.graph
    graph.node[-1].output[0] = "few"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2_200_000]), "times"))
    graph.node.append(onnx.helper.make_node("Tile", ["few", "times"], ["scores"]))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6_600_000
    onnx.save(model, tmp_path / "model.onnx")

    out, facts = build(tmp_path)

    assert facts["candidates"][-1]["comparison"]["changed"]
    words, _, _ = page(out, with_samples=True)
    assert "The answers are not shown: " in words
    assert "6,600,000 values" in words


@pytest.mark.parametrize("settings", ["", 'kind = "softmax"'], ids=["scores", "softmax"])
def test_masks_of_large_images_are_shown(tmp_path, settings):
    write_segmenter(tmp_path, samples=12, outliers=(2, 5), side=272)
    if settings:  # all scores are needed, which an agent sends in pieces
        with (tmp_path / "edgekit.toml").open("a") as file:
            file.write(f"[postprocess]\n{settings}\n")
    arrays = dict(np.load(tmp_path / "eval.npz"))

    out, _ = build(tmp_path)

    examples = read_examples(out)["examples"]
    assert sorted(each["number"] for each in examples) == [2, 5]
    for each in examples:
        shown = np.array(decode(each["original"]["picture"]).convert("RGB"))
        places = np.arange(160) * 272 // 160
        mask = run(tmp_path / "model.onnx", {"x": arrays["x"][[each["number"]]]})[0].argmax(-1)
        colors = {each["label"]: each["color"] for each in each["colors"]}
        wanted = np.array([list(bytes.fromhex(colors[name][1:])) for name in CLASS_NAMES])
        assert np.array_equal(shown, wanted[mask[np.ix_(places, places)]])


def test_masks_of_one_score_per_pixel_are_shown(tmp_path):
    write_segmenter(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    weights = onnx.numpy_helper.from_array(np.array([[-1], [1], [-1]], np.float32), "w")
    model.graph.initializer[0].CopyFrom(weights)
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    arrays = dict(np.load(tmp_path / "eval.npz"))
    arrays["y"] = (arrays["y"] == 1).astype(np.int64)
    arrays["x"][5, 0, 0] = (0, 4000, 0)
    np.savez(tmp_path / "eval.npz", **arrays)
    with (tmp_path / "edgekit.toml").open("a") as file:
        file.write("[data.metric_options]\nthreshold = 0.0\n")

    out, _ = build(tmp_path)

    example = next(e for e in read_examples(out)["examples"] if e["number"] == 5)
    colors = {each["label"]: bytes.fromhex(each["color"][1:]) for each in example["colors"]}
    shown = np.array(decode(example["original"]["picture"]).convert("RGB"))
    found = (shown == list(colors[CLASS_NAMES[1]])).all(-1)
    assert np.array_equal(found, run(tmp_path / "model.onnx", arrays)[5, ..., 0] > 0)


@pytest.mark.parametrize("outliers", [(4500,), (4500, 7)])
def test_samples_after_many_steps_are_not_run(tmp_path, outliers):
    write_stream(tmp_path, steps=5000, outliers=outliers)

    out, facts = build(tmp_path)

    assert sorted(facts["candidates"][-1]["comparison"]["changed"]) == sorted(outliers)
    (example,) = read_examples(out)["examples"]
    words, _, _ = page(out, with_samples=True)
    if 7 in outliers:
        assert (example["number"], example["candidate"]["text"]) == (7, "sky")
        assert "The answers are not shown" not in words
    else:
        assert (example["number"], example["candidate"]) == (4500, None)
        assert "to run the samples, with the steps before them, would take too long" in words


def test_a_forged_or_foreign_file_of_examples_is_not_shown(copied):
    out = copied
    found = read_examples(out)
    hostile = json.loads(json.dumps(found))
    hostile["examples"][0]["input"]["picture"]["png"] = '"/><script>alert(1)</script>'
    for forged in (hostile, {**found, "build": "another"}, {**found, "more": 1}):
        (out / "examples.json").write_text(json.dumps(forged))

        words, _, text = page(out, with_samples=True)

        assert "Samples that changed" not in words
        assert "alert(1)" not in text
