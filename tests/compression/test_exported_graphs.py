"""Passes on random graphs as exporters write them: a correct result or a true reason."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.random_graphs_case import SINGLE, run_recipe, write
from edgekit.compression.pass_specs import PASSES
from edgekit.errors import PassRefused
from tests.builders.exported.kinds import KINDS, export_kind

TRIED = ("clean", "quantize-static", "quantize-weights", "prune-channels", "to-tflite")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def written(kind, seed, folder):
    graph = export_kind(kind, seed)
    write(graph, folder)
    return graph


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_keeps_its_promises_on_a_random_graph_or_refuses_with_a_true_reason(tmp_path, kind):
    graph = written(kind, 4, tmp_path)

    cases = [run_recipe(graph, name, SINGLE[name], tmp_path) for name in TRIED]

    assert [case for case in cases if case.status == "fault"] == []
    assert any(case.status == "ok" for case in cases)


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_graph_is_the_same_from_the_same_seed_and_another_from_another(kind):
    first, again, other = (export_kind(kind, seed).proto.SerializeToString() for seed in (1, 1, 2))

    assert first == again
    assert first != other


def replace_weights(monkeypatch, function):
    row = dataclasses.replace(PASSES["clean"], function=f"{__name__}:{function}")
    monkeypatch.setitem(PASSES, "clean", row)


def crash(source, settings, work):
    raise ZeroDivisionError("of a pass")


def refuse(source, settings, work):
    raise PassRefused("no Conv, Gemm or MatMul with stored float weights")


@pytest.mark.parametrize(
    ("function", "said"), [("crash", "ZeroDivisionError"), ("refuse", "wrong refusal")]
)
def test_a_crash_and_an_untrue_refusal_are_found(tmp_path, monkeypatch, function, said):
    graph = written("convolutions", 0, tmp_path)
    replace_weights(monkeypatch, function)

    case = run_recipe(graph, "clean", SINGLE["clean"], tmp_path)

    assert case.status == "fault"
    assert said in case.text


def refuse_by_shape(source, settings, work):
    raise PassRefused(
        "nothing to prune: w (Conv, 64 x 64) is too small: 4096 entries, fewer than 99"
    )


def refuse_all(source, settings, work):
    raise PassRefused("nothing to quantize: no layer has stored float weights")


@pytest.mark.parametrize("function", ["refuse_by_shape", "refuse_all"])
def test_a_reason_that_the_graph_contradicts_is_found(tmp_path, monkeypatch, function):
    graph = written("detector", 0, tmp_path)
    replace_weights(monkeypatch, function)

    case = run_recipe(graph, "clean", SINGLE["clean"], tmp_path)

    assert case.status == "fault"
    assert "wrong refusal" in case.text
