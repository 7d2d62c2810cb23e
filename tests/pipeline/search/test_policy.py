"""The recipes that the search tries, its choice, and the nearest candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.bundle.results import MIB, Rejection
from edgekit.compression.pass_specs import PASSES, build_step
from edgekit.pipeline.search.policy import choose_candidate, find_nearest, make_original, propose
from edgekit.recipe import Recipe
from tests.builders.candidates import (
    BOTH,
    LITE,
    accurate,
    candidate,
    explore,
    of_low_bits,
    passes_of,
    terms,
    weighing,
)


def test_two_recipes_are_enough_if_the_static_one_is_accurate():
    tried = explore(lambda r: candidate(r.name, recipe=r, fails={"accuracy_drop_points": -0.5}))

    assert tried == ["int8-static", "int8-dynamic"]


def test_ranges_that_ruin_the_outputs_lead_to_other_ranges():
    tried = explore(
        lambda r: (
            candidate(r.name, recipe=r, fails={"accuracy_drop_points": -0.5})
            if r.name.endswith(("mse", "dynamic"))
            else Rejection(recipe=r, reason="failed: outputs are constant", broken=True)
        )
    )

    assert tried == ["int8-static", "int8-dynamic", "int8-static-mse"]


def test_other_ranges_are_tried_only_when_the_first_loses_too_much():
    tried = explore(lambda r: candidate(r.name, recipe=r, fails={"accuracy_drop_points": 0.5}))

    assert tried == [
        "int8-static",
        "int8-dynamic",
        "int8-static-mse",
        "int8-static-minmax",
    ]


def test_a_slow_but_accurate_candidate_does_not_lead_to_other_ranges():
    tried = explore(lambda r: candidate(r.name, recipe=r, fails={"latency_p95_ms": 0.5}))

    assert not [name for name in tried if "mse" in name or "minmax" in name]


def test_where_no_pass_applies_the_search_ends():
    assert len(explore(lambda r: Rejection(recipe=r, reason="nothing to quantize"))) == 2


def test_every_recipe_carries_the_seed_and_the_original_has_no_steps():
    assert {r.seed for r in propose([], BOTH)} == {7}
    assert make_original(7) == Recipe(name="original", seed=7)


def test_the_fastest_that_passes_wins():
    slow, fast = candidate("slow", ms=2.0), candidate("fast", ms=1.0)
    wrong = candidate("wrong", ms=0.5, fails={"accuracy_drop_points": 1})

    assert choose_candidate([slow, fast, wrong], source="host") is fast


def test_of_equally_fast_ones_the_smaller_wins():
    large, small = candidate("large", ms=1.00, size=400), candidate("small", ms=1.02, size=100)

    assert choose_candidate([large, small], source="host") is small


def test_of_those_no_slower_than_the_original_compressed_ones_win_over_converted_ones():
    original, converted, small, slow = (
        candidate("original", ms=2.0, size=1000, recipe=make_original(7)),
        candidate("converted", ms=1.0, size=980, recipe=accurate_recipe("to-tflite")),
        candidate("small", ms=1.8, size=260, recipe=accurate_recipe("quantize-static")),
        candidate("slow", ms=2.5, size=250, recipe=accurate_recipe("quantize-dynamic")),
    )

    assert choose_candidate([original, converted, small, slow], source="host") is small
    assert choose_candidate([original, converted, slow], source="host") is converted
    failing = replace(small, verdict=slow.verdict.__class__(checks=(), reasons=("killed",)))
    assert choose_candidate([original, converted, failing], source="host") is converted


def accurate_recipe(name):
    """Return a recipe of one pass with its defaults."""
    return Recipe(name=name, steps=(build_step(PASSES[name].settings()),))


def test_a_candidate_not_timed_on_the_device_loses_against_a_timed_one():
    timed, untimed = candidate("timed", ms=9.0), candidate("untimed")

    assert choose_candidate([untimed, timed], source="host") is timed
    assert choose_candidate([untimed], source="host") is untimed


def test_where_none_passes_nothing_is_chosen():
    assert choose_candidate([candidate("a", ms=1, reasons=["killed"])], source="host") is None


@pytest.mark.parametrize(
    "worse",
    [
        {"fails": {"latency_p95_ms": 0.1, "model_mib": 0.1}},
        {"fails": {"latency_p95_ms": 0.9}},
        {"reasons": ["the device killed it for memory"]},
    ],
    ids=["more failing lines", "by more", "cannot run at all"],
)
def test_the_nearest_candidate_misses_the_limits_least(worse):
    best = candidate("best", ms=5, fails={"latency_p95_ms": 0.5})

    assert find_nearest([candidate("worse", ms=1, **worse), best], source="host") is best


def test_every_recipe_has_the_weight_bits_that_suit_the_processors():
    recipes = propose([], replace(terms(), weight_bits=7))

    bits = [s.settings.weight_bits for r in recipes for s in r.steps if s.name != "clean"]
    assert bits == [7, 7]


def test_fewer_bits_are_tried_only_if_int8_exceeds_the_transfer_budget():
    tried = explore(weighing(lambda room: 0.97 * room))

    assert tried == [
        "int8-static",
        "int8-dynamic",
        "low-bits-1024k-static",
        "low-bits-1024k-dynamic",
    ]


def test_a_file_that_is_too_large_is_made_smaller_a_few_times():
    assert explore(weighing(lambda room: 1.1 * room))[4:] == [
        "low-bits-902k-static",
        "low-bits-902k-dynamic",
    ]
    assert len(of_low_bits(explore(weighing(lambda room: 2.0)))) == 2 * 3


def test_fewer_bits_end_where_there_are_no_such_weights():
    def outcome(recipe):
        if any(s.name == "quantize-weights" for s in recipe.steps):
            return Rejection(recipe=recipe, reason="too few for anything")
        return candidate(recipe.name, recipe=recipe, size=2 * MIB, fails={"transfer_mib": 1.0})

    assert len(of_low_bits(explore(outcome))) == 2


# ---------------------------------------------------------------- two runtimes


def test_with_both_runtimes_each_recipe_is_tried_in_both_formats():
    assert explore(accurate, BOTH) == [
        "int8-static",
        "int8-dynamic",
        "original-tflite",
        "int8-static-tflite",
        "int8-dynamic-tflite",
    ]


def test_the_tflite_candidate_of_a_recipe_begins_with_the_same_steps():
    tried = []
    while recipes := propose(tried, BOTH):
        tried += map(accurate, recipes)
    steps = {t.recipe.name: t.recipe.steps for t in tried}
    assert steps["int8-static-tflite"][:-1] == steps["int8-static"]
    assert steps["int8-static-tflite"][-1].name == "to-tflite"
    assert steps["int8-dynamic-tflite"][-1].settings.precision == "dynamic"


def test_if_the_original_cannot_be_converted_its_int8_is_not_tried():
    def outcome(recipe):
        if recipe.name == "original-tflite":
            return Rejection(recipe=recipe, reason="no counterpart")
        return accurate(recipe)

    assert explore(outcome, BOTH) == ["int8-static", "int8-dynamic", "original-tflite"]


def test_a_device_with_litert_alone_gets_files_for_it_alone_with_sizes_and_target():
    tried = []
    while recipes := propose(tried, LITE):
        tried += map(accurate, recipes)
    assert [t.recipe.name for t in tried] == [
        "original-tflite",
        "int8-static-tflite",
        "int8-dynamic-tflite",
    ]
    settings = [t.recipe.steps[-1].settings for t in tried]
    assert {(s.dims, s.target) for s in settings} == {((("L", 16),), "tflite-runtime")}


def test_activations_of_16_bits_come_after_all_ranges_and_only_for_litert():
    def inaccurate(recipe):
        return candidate(recipe.name, recipe=recipe, fails={"accuracy_drop_points": 0.5})

    tried = explore(inaccurate, LITE)
    assert tried[3:] == [
        "int8-static-mse-tflite",
        "int8-static-minmax-tflite",
        "int16x8-tflite",
    ]
    assert not [name for name in explore(inaccurate) if "int16" in name]


def test_a_model_whose_int8_fails_for_one_runtime_still_gets_ranges_for_the_other():
    def outcome(recipe):
        if recipe.name == "int8-static":
            return Rejection(recipe=recipe, reason="an operator is forbidden")
        return candidate(recipe.name, recipe=recipe, fails={"accuracy_drop_points": 0.5})

    later = explore(outcome, BOTH)[5:]
    assert later == ["int8-static-mse-tflite", "int8-static-minmax-tflite", "int16x8-tflite"]


def test_float16_is_tried_only_if_floats_are_too_large_and_int8_is_inaccurate():
    def outcome(*, heavy):
        return lambda r: candidate(
            r.name, recipe=r, fails={"accuracy_drop_points": 0.5, "model_mib": heavy}
        )

    assert explore(outcome(heavy=0.5), LITE)[-1] == "float16-tflite"
    assert "float16-tflite" not in explore(outcome(heavy=-0.5), LITE)


def test_a_tflite_model_is_converted_first_and_then_compressed():
    asked = terms("onnx", "tflite", source="tflite")
    tried = explore(accurate, asked)
    assert tried == [
        "original-onnx",
        "int8-static",
        "int8-dynamic",
        "int8-static-tflite",
        "int8-dynamic-tflite",
    ]
    assert passes_of(propose([accurate(propose([], asked)[0])], asked)[0]) == [
        "to-onnx",
        "clean",
        "quantize-static",
    ]


def test_a_tflite_model_too_new_for_the_device_is_rewritten():
    known = terms("tflite", source="tflite", target="tflite-runtime", remakes=True)
    first = propose([], known)
    assert [r.name for r in first] == ["original-tflite"]
    assert passes_of(first[0]) == ["to-onnx", "clean", "to-tflite"]
    assert propose([], replace(known, remakes=False)) != first


def test_a_tflite_model_that_cannot_be_converted_is_kept():
    def refused(recipe):
        return Rejection(recipe=recipe, reason="no counterpart")

    assert explore(refused, terms("onnx", "tflite", source="tflite")) == ["original-onnx"]
    lite = explore(refused, terms("tflite", source="tflite"))
    assert lite == ["int8-static-tflite", "int8-dynamic-tflite"]


def test_fewer_bits_use_the_recipes_in_which_int8_was_accurate():
    tried = explore(weighing(lambda room: 0.97 * room), BOTH)

    assert tried[5:] == [
        "low-bits-1024k-static",
        "low-bits-1024k-dynamic",
        "low-bits-1024k-static-tflite",
        "low-bits-1024k-dynamic-tflite",
    ]
