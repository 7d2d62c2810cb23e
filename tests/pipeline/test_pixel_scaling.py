"""Unscaled pixels for a model that needs scaling are refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edgekit.cache.store import Store
from edgekit.config.profile import validate
from edgekit.config.project import PreprocessSettings, Project, load_project
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.metrics.metric import Table
from edgekit.onnx_graph.io import read_onnx
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.init_project import init_project
from edgekit.pipeline.pixel_scaling import (
    SCALINGS,
    find_clearly_best,
    format_toml,
    refuse_unscaled,
    set_scaling,
    try_scalings,
)
from edgekit_agent.scoring import MetricJob, Postprocess
from tests.builders.projects import PROFILE, assert_refused
from tests.builders.tiny import model

SIZE, CLASSES, COUNT = 6, 3, 90
TOP1 = Scoring(metrics=(MetricJob("top1"),))
BY_NAME = {scaling.name: scaling for scaling in SCALINGS}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def pictures():
    """Bytes whose brightness tells the class."""
    labels = np.arange(COUNT) % CLASSES
    noise = np.random.default_rng(0).integers(-20, 21, (COUNT, SIZE, SIZE, 3))
    return (50 + 70 * labels[:, None, None, None] + noise).astype(np.uint8), labels


def classifier(folder, scaling, *, first):
    """Build a model that knows the brightness of each class in scaled pixels."""
    centers = (np.array([50, 120, 190]) * scaling.scale - np.mean(scaling.mean)) / np.mean(
        scaling.std
    )
    shape = f"N,3,{SIZE},{SIZE}" if first else f"N,{SIZE},{SIZE},3"
    text = (
        f"g (float[{shape}] x) => (float[N,{CLASSES}] y) {{ m = ReduceMean<keepdims = 0, "
        "axes = [1,2,3]>(x) u = Unsqueeze(m, one) d = Sub(u, centers) q = Mul(d, d) y = Neg(q) }"
    )
    weights = {"one": np.array([1]), "centers": centers.astype(np.float32)[None]}
    made = model(folder, text, weights=weights)
    return made.path.rename(folder / "net.onnx")


def image_folder(folder, name="val", side=SIZE):
    x, labels = pictures()
    for i, (picture, label) in enumerate(zip(x, labels, strict=True)):
        place = folder / name / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).resize((side, side)).save(place / f"{i}.png")


SCALED = [name for name in BY_NAME if name != "no scaling"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", SCALED)
def test_init_writes_the_scaling_and_the_layout_of_an_image_folder(tmp_path, name, first):
    classifier(tmp_path, BY_NAME[name], first=first)
    image_folder(tmp_path)

    started = init_project(tmp_path, None)

    found = load_project(tmp_path).data.preprocess
    assert found.layout == ("NCHW" if first else "NHWC")
    assert (found.resize, found.crop) == (None, None)
    assert found == set_scaling(BY_NAME[name], found)
    assert f"# {name}, RGB: 50 of 50 correct, the best\n" in started.text
    assert not any("preprocess" in point for point in started.open_points)


def test_init_says_the_size_where_the_images_have_another(tmp_path):
    classifier(tmp_path, BY_NAME["0 to 1"], first=True)
    image_folder(tmp_path, side=9)

    init_project(tmp_path, None)

    found = load_project(tmp_path).data.preprocess
    assert (found.resize, found.crop, found.layout) == (SIZE, SIZE, "NCHW")
    assert found.scale == pytest.approx(1 / 255)


def test_init_sets_no_scaling_for_a_model_of_raw_bytes(tmp_path):
    classifier(tmp_path, BY_NAME["no scaling"], first=False)
    image_folder(tmp_path)

    text = init_project(tmp_path, None).text

    assert load_project(tmp_path).data.preprocess is None
    assert "no scaling, RGB: 50 of 50 correct, the best\n" in text


def test_init_reports_why_scaling_was_not_tried(tmp_path):
    classifier(tmp_path, BY_NAME["0 to 1"], first=False)
    x, labels = pictures()
    np.savez(tmp_path / "eval.npz", x=x, label=labels + 7)

    points = init_project(tmp_path, None).open_points

    assert any("[data.preprocess]" in point and "label 7" in point for point in points)


def dataset(folder, scaling, **how):
    source = read_onnx(classifier(folder, scaling, first=False))
    x, labels = pictures()
    np.savez(folder / "eval.npz", x=x, label=labels)
    opened = open_dataset(
        "eval.npz", source.signature, folder=folder, cache=folder / "c", targets="required", **how
    )
    return source, opened


def by(metric):
    return Scoring(metrics=(MetricJob(metric),))


def open_required(folder, source):
    return open_dataset(
        "eval.npz", source.signature, folder=folder, cache=folder / "c", targets="required"
    )


def check(folder, source, opened, settings=None, told=lambda *_: None, scoring=None):
    refuse_unscaled(
        source,
        opened,
        scoring=scoring or TOP1,
        settings=settings,
        store=Store(folder / "store"),
        tick=told,
    )


@pytest.mark.parametrize("name", SCALED)
def test_bytes_for_a_model_that_is_clearly_better_with_scaled_ones_are_refused(tmp_path, name):
    source, opened = dataset(tmp_path, BY_NAME[name])

    with pytest.raises(UserError, match=f"reaches {COUNT // 3} of {COUNT} correct") as caught:
        check(tmp_path, source, opened)

    pasted = caught.value.hint.partition("\n\n")[2]
    project = validate(Project, tomllib.loads(pasted), where="edgekit.toml")
    assert project.data.preprocess == set_scaling(BY_NAME[name], None)


def test_settings_of_the_project_are_kept_in_the_suggestion(tmp_path):
    source, opened = dataset(tmp_path, BY_NAME["0 to 1"])

    with pytest.raises(UserError) as caught:
        check(tmp_path, source, opened, PreprocessSettings(resize=8, crop=6))

    assert "resize = 8\n" in caught.value.hint
    assert "crop = 6\n" in caught.value.hint


def test_a_model_of_raw_bytes_is_let_through_and_asked_once(tmp_path):
    source, opened = dataset(tmp_path, BY_NAME["no scaling"])
    told = []

    check(tmp_path, source, opened, told=lambda *t: told.append(t))
    assert told[-1][1:] == (4 * COUNT, 4 * COUNT)
    told.clear()
    check(tmp_path, source, opened, told=lambda *t: told.append(t))

    assert told == []


def test_scaled_bytes_are_not_checked(tmp_path):
    how = set_scaling(BY_NAME["-1 to 1"], None)
    source, opened = dataset(tmp_path, BY_NAME["0 to 1"], settings=how)
    told = []

    check(tmp_path, source, opened, told=lambda *t: told.append(t))

    assert told == []


def test_a_few_samples_more_are_no_proof(tmp_path):
    source, opened = dataset(tmp_path, BY_NAME["0 to 1"])
    tried = try_scalings(source, opened, scoring=TOP1, settings=None, tick=lambda *_: None)
    raw, scaled = tried[:2]
    rows = raw.table.stack().copy()
    rows[np.flatnonzero(rows[:, 0] == 0)[:8], 0] = 1

    assert find_clearly_best([raw, scaled]) is scaled
    assert find_clearly_best([raw, replace(scaled, table=Table(rows=tuple(rows)))]) is None


@pytest.mark.parametrize("name", SCALED)
def test_the_table_to_paste_says_the_same(name):
    settings = set_scaling(BY_NAME[name], PreprocessSettings(layout="NCHW", crop=4))

    raw = tomllib.loads(format_toml(settings))

    assert validate(Project, {"data": raw["data"]}, where="t").data.preprocess == settings


def test_a_build_with_unscaled_bytes_ends_with_the_table_to_paste(tmp_path):
    path = classifier(tmp_path, BY_NAME["-1 to 1"], first=False)
    x, labels = pictures()
    np.savez(tmp_path / "eval.npz", x=x, label=labels)

    asked = ("build", path, "--device", PROFILE, "-C", tmp_path, "--eval", "eval.npz")
    done = assert_refused(*asked, says="without scaling; the model then reaches")

    assert "[data.preprocess]\nmean = 127.5\nstd = 127.5" in done.err
    assert not (tmp_path / "build").exists()


def colors():
    """Bytes whose color tells the class: red, green or blue."""
    labels = np.arange(COUNT) % CLASSES
    x = np.random.default_rng(0).integers(0, 60, (COUNT, SIZE, SIZE, CLASSES))
    x[np.arange(COUNT), :, :, labels] += 120
    return x.astype(np.uint8), labels


def blue_first_classifier(folder):
    text = (
        f"g (float[N,{SIZE},{SIZE},3] x) => (float[N,3] y) {{ m = ReduceMean<keepdims = 0, "
        "axes = [1,2]>(x) y = Gather<axis = 1>(m, order) }"
    )
    made = model(folder, text, weights={"order": np.array([2, 1, 0])})
    return made.path.rename(folder / "net.onnx")


@pytest.mark.parametrize("is_folder", [True, False])
def test_init_finds_the_order_of_channels(tmp_path, is_folder):
    path = blue_first_classifier(tmp_path)
    x, labels = colors()
    if is_folder:
        for i, (picture, label) in enumerate(zip(x, labels, strict=True)):
            place = tmp_path / "val" / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{i}.png")
    else:
        np.savez(tmp_path / "val.npz", x=x, y=labels)

    text = init_project(tmp_path, None).text

    settings = load_project(tmp_path).data.preprocess
    assert settings == PreprocessSettings(order="BGR")
    assert "# no scaling, BGR: 50 of 50 correct, the best\n" in text
    source = "val" if is_folder else "val.npz"
    opened = open_dataset(
        source,
        read_onnx(path).signature,
        folder=tmp_path,
        cache=tmp_path / "c",
        settings=settings,
        targets="required",
    )
    first = read_column(opened.samples.columns[0])
    by_name = sorted(range(COUNT), key=lambda i: (labels[i], f"{i}.png"))
    np.testing.assert_array_equal(first, x[by_name if is_folder else range(COUNT)][..., ::-1])


def test_a_segmenter_that_is_better_with_scaled_bytes_is_refused_unscaled(tmp_path):
    text = (
        f"g (float[N,{SIZE},{SIZE},1] x) => (float[N,{SIZE},{SIZE},2] y) {{ d = Sub(x, half) "
        "n = Neg(d) y = Concat<axis = 3>(n, d) }"
    )
    source = model(tmp_path, text, weights={"half": np.array([0.5], np.float32)})
    x = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 1)).astype(np.uint8)
    np.savez(tmp_path / "eval.npz", x=x, y=(x[..., 0] > 127).astype(np.uint8))

    with pytest.raises(UserError, match=r"with scaling \(0 to 1\) mean IoU 100"):
        check(tmp_path, source, open_required(tmp_path, source), scoring=by("miou"))


def test_a_detector_that_is_better_with_scaled_bytes_is_refused_unscaled(tmp_path):
    """The box moves with the brightness."""
    text = (
        f"g (float[N,{SIZE},{SIZE},1] x) => (float[N,1,6] y) {{ m = ReduceMean<keepdims = 0, "
        "axes = [1]>(x) s = ReduceMean<keepdims = 1, axes = [1]>(m) p = Mul(s, step) "
        "y = Add(p, start) }"
    )
    step = np.array([[[20, 20, 20, 20, 0, 0]]], np.float32)
    start = np.array([[[0, 0, 10, 10, 1, 0]]], np.float32)
    source = model(tmp_path, text, weights={"step": step, "start": start})
    level = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 1, 1))
    x = np.broadcast_to(level, (COUNT, SIZE, SIZE, 1)).astype(np.uint8)
    boxes = np.ascontiguousarray((level.reshape(-1, 1, 1) / 255 * step + start)[..., :5])
    boxes[..., 4] = 0
    np.savez(tmp_path / "eval.npz", x=x, y=boxes, y_length=np.ones(COUNT, np.int64))
    scoring = replace(by("map"), postprocess=Postprocess(kind="boxes"))

    with pytest.raises(UserError, match=r"with scaling \(0 to 1\) mAP 50-95 100"):
        check(tmp_path, source, open_required(tmp_path, source), scoring=scoring)
