"""Metric and post-processing are proposed from the targets and the model's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.config.project import load_project
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.onnx_graph.io import read_onnx
from edgekit.pipeline.init_project import init_project
from edgekit.pipeline.proposals.charsets import list_ctc_kinds
from edgekit.pipeline.proposals.detector_heads import list_detector_heads
from edgekit.pipeline.proposals.missing_settings import complete_project
from edgekit.pipeline.proposals.task_facts import OutputFacts
from edgekit.pipeline.proposals.task_proposal import propose_task
from edgekit.progress import ignore_progress
from tests.builders.tiny import model

N = 40
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def propose(folder, text, arrays, **how):
    path = model(folder, text, **how).path.rename(folder / "net.onnx")
    source = read_onnx(path)
    np.savez(folder / "eval.npz", **arrays)
    opened = open_dataset(
        "eval.npz", source.signature, folder=folder, cache=folder / "c", targets="required"
    )
    return propose_task(source, opened, folders=(folder,))


def same(shape, operator="Identity"):
    """Build a model whose output is a function of each value of its input."""
    sizes = ",".join(map(str, shape))
    return f"g (float[N,{sizes}] x) => (float[N,{sizes}] y) {{ y = {operator}(x) }}"


def values(*shape):
    return RNG.normal(size=(N, *shape)).astype(np.float32)


HALF = np.arange(N) % 2
RARE = (np.arange(N) % 20 == 0).astype(np.int64)

CASES = {
    "classes": (same([3]), values(3), np.arange(N) % 3, "top1", {}),
    "classes as floats": (same([3]), values(3), (np.arange(N) % 3).astype(np.float32), "top1", {}),
    "two classes": (same([1], "Sigmoid"), values(1), HALF, "binary", {}),
    "two classes by a logit": (same([1]), 5 * values(1), HALF, "auc", {}),
    "a rare class": (same([1], "Sigmoid"), values(1), RARE, "auc", {}),
    "unscored frames": (
        same([1], "Sigmoid"),
        values(1),
        np.arange(N) % 3 - 1,
        "auc",
        {"ignore": -1},
    ),
    "a number": (same([1]), values(1), values(1)[:, 0], "mae", {}),
    "a count": (same([1]), values(1), np.arange(N), "mae", {}),
    "several numbers": (same([3]), values(3), values(3), "mae", {}),
    "labels": (same([4], "Sigmoid"), values(4), RNG.integers(0, 2, (N, 4)), "multilabel-map", {}),
    "masks": (same([3, 5, 6]), values(3, 5, 6), RNG.integers(0, 3, (N, 5, 6)), "miou", {}),
    "masks with an ignored label": (
        same([3, 5, 6]),
        values(3, 5, 6),
        RNG.choice([0, 1, 2, 255], (N, 5, 6)).astype(np.uint8),
        "miou",
        {"ignore": 255},
    ),
    "masks of one class": (
        same([1, 5, 6], "Sigmoid"),
        values(1, 5, 6),
        RNG.integers(0, 2, (N, 5, 6)),
        "miou",
        {},
    ),
    "masks of one class by logits": (
        same([1, 5, 6]),
        5 * values(1, 5, 6),
        RNG.integers(0, 2, (N, 5, 6)),
        "miou",
        {"threshold": 0.0},
    ),
    "images": (same([3, 5, 6]), values(3, 5, 6), RNG.random((N, 3, 5, 6)), "psnr", {}),
    "images of bytes": (
        same([3, 5, 6]),
        values(3, 5, 6),
        RNG.integers(0, 256, (N, 5, 6, 3)).astype(np.uint8),
        "psnr",
        {"data_range": 255.0},
    ),
    "anomalies": (same([12]), values(12), HALF, "reconstruction-auc", {}),
    "classes of frames": (
        same([7, 4]),
        values(7, 4),
        RNG.integers(0, 4, (N, 7)),
        "token-accuracy",
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_metric_fits_targets_and_output(tmp_path, name):
    text, x, y, metric, options = CASES[name]

    found = propose(tmp_path, text, {"x": x, "y": y})

    assert found.metric == metric
    assert found.options.model_dump(exclude_defaults=True) == options


def test_vectors_of_length_one_are_embeddings(tmp_path):
    text = "g (float[N,20] x) => (float[N,32] y) { m = MatMul(x, w) y = LpNormalization(m) }"
    weights = {"w": RNG.normal(size=(20, 32)).astype(np.float32)}

    found = propose(tmp_path, text, {"x": values(20), "y": np.arange(N) % 4}, weights=weights)

    assert found.metric == "pairs-auc"


@pytest.mark.parametrize(("softmax", "metric"), [(False, "perplexity"), (True, "token-accuracy")])
def test_a_token_for_each_position_is_a_language_model(tmp_path, softmax, metric):
    last = "y = Softmax<axis = -1>(e)" if softmax else "y = Identity(e)"
    text = f"g (int64[N,6] x) => (float[N,6,5] y) {{ e = Gather(w, x) {last} }}"
    tokens = RNG.integers(0, 5, (N, 6))
    weights = {"w": values(5)[:5]}

    found = propose(tmp_path, text, {"x": tokens, "y": tokens}, weights=weights)

    assert found.metric == metric


@pytest.mark.parametrize(("lines", "space"), [(6, True), (7, False)])
def test_texts_are_decoded_with_the_characters_near_the_data(tmp_path, lines, space):
    (tmp_path / "notes.txt").write_text("nothing\n", encoding="utf-8")
    (tmp_path / "dict.txt").write_text("\n".join("abcdefg"[:lines]) + "\n", encoding="utf-8")

    found = propose(tmp_path, same([9, 8]), {"x": values(9, 8), "y": np.array(["abc", "fed"] * 20)})

    assert found.metric == "cer"
    assert {(head.kind, head.charset, head.space) for head in found.heads} == {
        ("ctc", "dict.txt", space)
    }
    assert [head.blank for head in found.heads] == [0, 7]


def test_a_character_set_of_another_size_is_not_used(tmp_path):
    (tmp_path / "charset.txt").write_text("a\nb\nc\n", encoding="utf-8")

    assert list_ctc_kinds(9, [tmp_path]) == ()


def output(*shape, name="y", high=50.0):
    return OutputFacts(name=name, shape=shape, dtype="float32", low=0.0, high=high)


HEADS = {
    "cells of three levels": ([output(84, 85)], "yolox"),
    "three boxes of each cell": ([output(252, 85)], "yolov5"),
    "boxes last": ([output(14, 84)], "yolov8"),
    "boxes with score and class": ([output(20, 6)], "boxes"),
    "boxes and scores": ([output(50, 4, name="b"), output(50, 3, name="s", high=1.0)], "boxes"),
    "levels": (
        [
            *(output(3, side, side, name=f"s{side}") for side in (8, 4, 2)),
            *(output(32, side, side, name=f"d{side}") for side in (8, 4, 2)),
        ],
        "distances",
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_kind_of_detector_outputs_fits_their_shapes(name):
    outputs, kind = HEADS[name]

    found = list_detector_heads(outputs, (64, 64))

    assert found[0].kind == kind


def test_boxes_as_shares_are_told_from_pixels_by_their_values():
    pair = [output(50, 4, name="b", high=1.0), output(50, 3, name="s", high=1.0)]

    assert {head.box_unit for head in list_detector_heads(pair, None)} == {"share"}


def test_scores_and_classes_are_told_apart_by_their_values():
    four = [
        output(10, 4, name="a", high=1.0),
        output(10, name="b", high=80.0),
        output(10, name="c", high=1.0),
        output(name="d", high=10.0),
    ]

    assert list_detector_heads(four, None)[0].outputs == ("a", "c", "b", "d")


def test_init_writes_options_and_reasons(tmp_path):
    text, x, y, _, _ = CASES["masks with an ignored label"]
    model(tmp_path, text).path.rename(tmp_path / "net.onnx")
    np.savez(tmp_path / "eval.npz", x=x, y=y)

    started = init_project(tmp_path, None)

    data = load_project(tmp_path).data
    assert (data.metric, data.metric_options.ignore) == ("miou", 255)
    assert 'metric = "miou"  # masks as targets' in started.text


def test_init_without_targets_sets_no_metric(tmp_path):
    model(tmp_path, same([3])).path.rename(tmp_path / "net.onnx")
    np.savez(tmp_path / "eval.npz", x=values(3))

    started = init_project(tmp_path, None)

    assert load_project(tmp_path).data.metric is None
    assert "agreement with the original" in started.text


def complete(folder, settings, **how):
    text, x, y, _, _ = CASES["masks with an ignored label"]
    source = read_onnx(model(folder, text).path.rename(folder / "net.onnx"))
    np.savez(folder / "eval.npz", x=x, y=y)
    (folder / "edgekit.toml").write_text(settings, encoding="utf-8")
    opened = open_dataset(
        "eval.npz", source.signature, folder=folder, cache=folder / "c", targets="required"
    )
    return complete_project(
        load_project(folder), source, opened, folder=folder, tick=lambda *_: None, **how
    )


def test_a_build_without_metric_uses_the_one_that_init_proposes_and_says_so(tmp_path):
    found = complete(tmp_path, "", metric=None)

    assert (found.project.data.metric, found.project.data.metric_options.ignore) == ("miou", 255)
    assert "no metric is set: miou is used (masks as targets)" in found.notes[0]


def test_settings_of_the_user_come_first(tmp_path):
    options = "[data]\n[data.metric_options]\nignore = 2\n"

    assert complete(tmp_path, options, metric=None).project.data.metric_options.ignore == 2


@pytest.mark.parametrize("settings", ["", '[data]\nmetric = "dice"\n'])
def test_nothing_is_chosen_where_a_metric_is_set(tmp_path, settings):
    found = complete(tmp_path, settings, metric=None if settings else "dice")

    assert found.notes == ()
    assert found.project.data.metric == ("dice" if settings else None)


@pytest.mark.parametrize(("name", "heads"), [("y", [("boxes", "xyxy")]), ("boxes", [])])
def test_a_detector_gets_its_post_processing_unless_its_outputs_have_final_names(
    tmp_path, name, heads
):
    text = (
        f"g (float[N,8] x) => (float[N,2,4] {name}, float[N,2,1] scores) {{ "
        f"{name} = Reshape(x, rows) s = ReduceMax<keepdims = 1, axes = [2]>({name}) "
        "scores = Sigmoid(s) }"
    )
    weights = {"rows": np.array([-1, 2, 4])}
    source = read_onnx(model(tmp_path, text, weights=weights).path.rename(tmp_path / "net.onnx"))
    boxes = np.sort(RNG.random((N, 2, 5)) * 50, axis=2)
    boxes[..., 4] = 0
    x = boxes[..., :4].reshape(N, 8).astype(np.float32)
    np.savez(tmp_path / "eval.npz", x=x, y=boxes, y_length=np.full(N, 2))
    opened = open_dataset(
        "eval.npz", source.signature, folder=tmp_path, cache=tmp_path / "c", targets="required"
    )

    found = complete_project(
        load_project(tmp_path), source, opened, folder=tmp_path, metric="map", tick=lambda *_: None
    )

    head = found.project.postprocess
    assert ([(head.kind, head.box_format)] if head else []) == heads
    assert len(found.notes) == len(heads)


@pytest.mark.parametrize(
    ("columns", "names"),
    [("y,y_dia", "y and y_dia"), ("y_sys,y_dia", "y_sys and y_dia"), ("a_label,y_dia", "y_dia")],
)
def test_several_targets_are_not_judged_by_the_first_alone(tmp_path, columns, names):
    made = model(tmp_path, "g (float[N,3] x) => (float[N,1] sys, float[N,1] dia) {"
                 " sys = ReduceMean<axes=[1]>(x) dia = ReduceMax<axes=[1]>(x) }")  # fmt: skip
    path = made.path.rename(tmp_path / "net.onnx")
    header = f"a,b,{columns}" if columns.startswith("a_") else f"a,b,c,{columns}"
    lines = [",".join(f"{value:.3f}" for value in row) for row in RNG.normal(size=(N, 5))]
    if columns.startswith("a_"):
        lines = [line.rpartition(",")[0] for line in lines]
    (tmp_path / "eval.csv").write_text("\n".join([header, *lines]) + "\n")

    started = init_project(tmp_path, None)

    assert f'# metric = "module:function"  # judges {names}\n' in started.text
    assert f"[data] metric: a function that judges the targets {names}" in started.open_points
    project, source = load_project(tmp_path), read_onnx(path)
    opened = open_dataset(
        "eval.csv", source.signature, folder=tmp_path, cache=tmp_path / "c", targets="required"
    )
    with pytest.raises(UserError, match=f"{names}, and no metric is set"):
        complete_project(
            project, source, opened, folder=tmp_path, metric=None, tick=ignore_progress
        )
    chosen = complete_project(
        project, source, opened, folder=tmp_path, metric="mae", tick=ignore_progress
    )
    assert chosen.project.data.metric is None
