"""Accurate candidates that exceed a budget are made smaller."""

from __future__ import annotations

import pytest

from edgekit.bundle.results import MIB, Rejection
from edgekit.pipeline.search.policy import propose
from tests.builders.candidates import (
    BOTH,
    accurate,
    candidate,
    explore,
    measuring,
    passes_of,
    settings_in,
    terms,
)


def test_if_all_candidates_are_too_slow_channels_are_pruned_beyond_the_limit():
    tried = [candidate("original", fails={"latency_p95_ms": 2.0})]
    int8 = measuring(lambda removed: 2.0 if not removed else 0.9)
    while recipes := propose(tried, terms()):
        tried += map(int8, recipes)

    pruned = [t.recipe for t in tried if "prune-channels" in settings_in(t.recipe)]
    assert [r.name for r in pruned] == ["pruned-55-static", "pruned-55-dynamic"]
    assert passes_of(pruned[0]) == ["clean", "prune-channels", "quantize-static"]
    assert settings_in(pruned[0])["prune-channels"].remove == 0.55
    assert tried[-1].recipe == pruned[-1]


def test_a_candidate_that_is_still_too_slow_is_pruned_at_most_three_times():
    tried = explore(measuring(lambda removed: 1.5 - 0.1 * removed))

    pruned = [name for name in tried if name.startswith("pruned-")]
    assert pruned == [f"pruned-{n}-{form}" for n in (40, 63, 77) for form in ("static", "dynamic")]


def test_the_search_ends_if_channels_cost_too_much_accuracy():
    slow = measuring(lambda removed: 1.5 - removed / 10, drop=lambda removed: removed - 0.5)

    pruned = [name for name in explore(slow) if name.startswith("pruned-")]
    assert {name.rsplit("-", 1)[0] for name in pruned} == {"pruned-40", "pruned-63"}


def test_if_too_many_channels_were_removed_fewer_are_tried():
    def outcome(recipe):
        pruned = settings_in(recipe).get("prune-channels")
        removed = pruned.remove if pruned else 0.0
        over = {0.0: 0.5, 0.4: -0.2}.get(removed, -0.02)
        fails = {"latency_p95_ms": over, "accuracy_drop_points": 0.1 if removed == 0.4 else -0.1}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    assert explore(outcome)[2:] == [
        "pruned-40-static",
        "pruned-40-dynamic",
        "pruned-30-static",
        "pruned-30-dynamic",
    ]


def test_only_the_nearest_recipes_are_pruned():
    def outcome(recipe):
        if "prune-channels" in settings_in(recipe):
            return accurate(recipe)
        over = 0.5 if recipe.name == "int8-static-tflite" else 3.0
        return candidate(recipe.name, recipe=recipe, fails={"latency_p95_ms": over})

    assert explore(outcome, BOTH)[5:] == ["pruned-40-static-tflite"]


def test_a_model_that_fits_as_it_is_loses_no_channels():
    fits = candidate("original", fails={"latency_p95_ms": -0.1})
    tried = [fits]
    while recipes := propose(tried, terms()):
        tried += map(measuring(lambda _: 2.0), recipes)

    assert [t.recipe.name for t in tried] == ["original", "int8-static", "int8-dynamic"]


def test_without_an_accurate_int8_the_float_model_is_pruned():
    def outcome(recipe):
        bad = 0.5 if recipe.name.startswith("int8") else -0.5
        fails = {"latency_p95_ms": 0.5, "accuracy_drop_points": bad}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    tried = [candidate("original", fails={"latency_p95_ms": 0.5})]
    while not any("prune-channels" in settings_in(t.recipe) for t in tried):
        tried += map(outcome, propose(tried, terms()))

    assert tried[-1].recipe.name == "pruned-40"
    assert passes_of(tried[-1].recipe) == ["clean", "prune-channels"]


def test_a_limit_that_would_remove_nearly_everything_is_not_tried():
    tried = explore(measuring(lambda _: 50.0))

    assert not [name for name in tried if not name.startswith("int8-")]


def test_a_fast_candidate_gets_fewer_bits_if_its_download_is_too_large():
    def outcome(recipe):
        found = settings_in(recipe)
        fails = {
            "latency_p95_ms": -0.1 if "prune-channels" in found else 0.5,
            "transfer_mib": -0.1 if "quantize-weights" in found else 0.5,
        }
        return candidate(recipe.name, recipe=recipe, size=int(1.5 * MIB), fails=fails)

    last = []

    def kept(recipe):
        last.append(recipe)
        return outcome(recipe)

    tried = explore(kept)
    assert tried[-2:] == [
        "pruned-40-low-bits-1024k-static",
        "pruned-40-low-bits-1024k-dynamic",
    ]
    assert passes_of(last[-1]) == [
        "clean",
        "prune-channels",
        "quantize-weights",
        "quantize-dynamic",
    ]


def test_accurate_few_bit_candidates_that_are_too_large_are_pruned():
    made = []

    def outcome(recipe):
        made.append(recipe)
        found = settings_in(recipe)
        if (
            "quantize-weights" in found
            and found["quantize-weights"].most_bytes < MIB
            and "prune" not in recipe.name
        ):
            return Rejection(recipe=recipe, reason="too few for anything")
        over = 0.2 if "quantize-weights" in found else 2.0
        over = -0.1 if "prune-channels" in found else over
        size = int((1 + over) * MIB)
        return candidate(recipe.name, recipe=recipe, size=size, fails={"transfer_mib": over})

    tried = explore(outcome)
    assert tried[-2:] == ["pruned-25-low-bits-827k-static", "pruned-25-low-bits-827k-dynamic"]
    assert passes_of(made[-1]) == [
        "clean",
        "prune-channels",
        "quantize-weights",
        "quantize-dynamic",
    ]
    assert settings_in(made[-1])["quantize-weights"].most_bytes == pytest.approx(
        MIB * 0.97 / 1.2, abs=2
    )


def test_low_rank_is_tried_once_after_channels():
    def outcome(recipe):
        if "prune-channels" in settings_in(recipe):
            return Rejection(recipe=recipe, reason="all its channels are outputs")
        return candidate(recipe.name, recipe=recipe, fails={"model_mib": 0.5})

    assert explore(outcome)[2:] == [
        "pruned-40-static",
        "pruned-40-dynamic",
        "low-rank-60-static",
        "low-rank-60-dynamic",
    ]


@pytest.mark.parametrize(
    ("budget", "of"), [("latency_p95_ms", "macs"), ("model_mib", "parameters")]
)
def test_ranks_are_counted_in_the_unit_of_the_missed_budget(budget, of):
    made = []

    def outcome(recipe):
        made.append(recipe)
        if "prune-channels" in settings_in(recipe):
            return Rejection(recipe=recipe, reason="all its channels are outputs")
        return candidate(recipe.name, recipe=recipe, fails={budget: 0.5, "peak_rss_mib": 0.1})

    explore(outcome)
    assert settings_in(made[-1])["low-rank"].of == of


def test_sparsity_is_tried_only_if_fewer_bits_lose_too_much():
    def outcome(*, low_bits):
        def made(recipe):
            found = settings_in(recipe)
            lost = low_bits if "quantize-weights" in found else -0.5
            fails = {"transfer_mib": 0.5, "accuracy_drop_points": lost}
            return candidate(recipe.name, recipe=recipe, size=int(1.5 * MIB), fails=fails)

        return made

    inaccurate = explore(outcome(low_bits=0.5))
    assert [n for n in inaccurate if n.startswith("sparse-")][:2] == [
        "sparse-60-static",
        "sparse-60-dynamic",
    ]
    assert not [n for n in explore(outcome(low_bits=-0.5)) if n.startswith("sparse-")]


def test_a_tflite_model_loses_channels_on_its_onnx_graph():
    asked = terms("tflite", source="tflite")
    tried = [candidate("original", fails={"latency_p95_ms": 0.5})]
    for recipe in propose(tried, asked):
        tried.append(Rejection(recipe=recipe, reason="the model is already quantized"))

    (pruned,) = propose(tried, asked)
    assert (pruned.name, passes_of(pruned)) == (
        "pruned-40-tflite",
        ["to-onnx", "clean", "prune-channels", "to-tflite"],
    )
