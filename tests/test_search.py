"""Which recipes are tried, which candidate wins, and which one comes nearest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.model import Model, Signature
from edgekit.recipe import Recipe
from edgekit.results import MIB, Candidate, Check, Measurement, Rejected, Verdict
from edgekit.search import Terms, choose, nearest, original, propose
from edgekit_agent.records import Latency

MODEL = Model(path=Path("m"), format="onnx", digest="d", signature=Signature(inputs=(), outputs=()))


def candidate(name, *, ms=None, size=100, fails=(), reasons=(), recipe=None):
    times = (Latency((ms,) * 5, 1, 1, 1.0),) if ms else ()
    lines = tuple(
        Check(name=n, limit=1.0, measured=1.0 + by, outcome="fails" if by > 0 else "holds")
        for n, by in dict(fails).items()
    )
    return Candidate(
        key=name,
        recipe=recipe or Recipe(name=name),
        model=MODEL,
        measurements=(
            Measurement(
                source="host", tally=None, model_bytes=size, transfer_bytes=size, latency=times
            ),
        ),
        verdict=Verdict(checks=lines, reasons=tuple(reasons)),
    )


def terms(*formats, source="onnx", **others):
    """What recipes may be; files for onnxruntime alone where nothing else is said."""
    return Terms(source=source, formats=formats or ("onnx",), weight_bits=8, seed=7, **others)


BOTH = terms("onnx", "tflite")
LITE = terms("tflite", dims=(("L", 16),), target="tflite-runtime")


def explore(outcome, asked=None):
    """All recipes that are tried, with ``outcome(name)`` as what becomes of each."""
    tried = []
    for _ in range(20):
        recipes = propose(tried, asked or terms())
        if not recipes:
            return [t.recipe.name for t in tried]
        tried += [outcome(recipe) for recipe in recipes]
    raise AssertionError("the search does not end")


def test_two_recipes_are_enough_where_the_static_one_is_accurate():
    tried = explore(lambda r: candidate(r.name, recipe=r, fails={"accuracy_drop_points": -0.5}))

    assert tried == ["int8-static", "int8-dynamic"]


def test_ranges_that_leave_nothing_of_the_outputs_lead_to_others():
    tried = explore(
        lambda r: (
            candidate(r.name, recipe=r, fails={"accuracy_drop_points": -0.5})
            if r.name.endswith(("mse", "dynamic"))
            else Rejected(recipe=r, reason="failed: outputs are constant", broken=True)
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


def test_a_slow_but_accurate_candidate_is_no_reason_for_other_ranges():
    tried = explore(lambda r: candidate(r.name, recipe=r, fails={"latency_p95_ms": 0.5}))

    assert not [name for name in tried if "mse" in name or "minmax" in name]


def test_where_no_pass_applies_the_search_ends():
    assert len(explore(lambda r: Rejected(recipe=r, reason="nothing to quantise"))) == 2


def test_every_recipe_carries_the_seed_and_the_original_has_no_steps():
    assert {r.seed for r in propose([], BOTH)} == {7}
    assert original(7) == Recipe(name="original", seed=7)


def test_the_fastest_that_passes_wins():
    slow, fast = candidate("slow", ms=2.0), candidate("fast", ms=1.0)
    wrong = candidate("wrong", ms=0.5, fails={"accuracy_drop_points": 1})

    assert choose([slow, fast, wrong], source="host") is fast


def test_of_equally_fast_ones_the_smaller_wins():
    large, small = candidate("large", ms=1.00, size=400), candidate("small", ms=1.02, size=100)

    assert choose([large, small], source="host") is small


def test_one_that_was_not_timed_where_it_counts_loses_against_one_that_was():
    timed, untimed = candidate("timed", ms=9.0), candidate("untimed")

    assert choose([untimed, timed], source="host") is timed
    assert choose([untimed], source="host") is untimed


def test_where_none_passes_nothing_is_chosen():
    assert choose([candidate("a", ms=1, reasons=["killed"])], source="host") is None


@pytest.mark.parametrize(
    "worse",
    [
        {"fails": {"latency_p95_ms": 0.1, "model_mib": 0.1}},
        {"fails": {"latency_p95_ms": 0.9}},
        {"reasons": ["the device killed it for memory"]},
    ],
    ids=["more failing lines", "by more", "cannot run at all"],
)
def test_the_nearest_misses_least(worse):
    best = candidate("best", ms=5, fails={"latency_p95_ms": 0.5})

    assert nearest([candidate("worse", ms=1, **worse), best], source="host") is best


def test_every_recipe_has_weights_of_the_bits_that_the_processors_bear():
    recipes = propose([], replace(terms(), weight_bits=7))

    bits = [s.settings.weight_bits for r in recipes for s in r.steps if s.name != "clean"]
    assert bits == [7, 7]


def of_low_bits(names):
    return [name for name in names if name.startswith("low-bits-")]


def weighing(mib, **others):
    """A candidate whose way to the device takes so much of the one MiB there is."""

    def outcome(recipe):
        few = [s for s in recipe.steps if s.name == "weights"]
        name = recipe.name
        size = int((mib(few[0].settings.most_bytes / MIB) if few else 2.0) * MIB)
        fails = {"transfer_mib": size / MIB - 1} | others.get("fails", {})
        return candidate(name, recipe=recipe, size=size, fails=fails)

    return outcome


def test_fewer_bits_are_tried_only_where_int8_is_too_heavy_to_travel():
    tried = explore(weighing(lambda room: 0.97 * room))

    assert tried == [
        "int8-static",
        "int8-dynamic",
        "low-bits-1024k-static",
        "low-bits-1024k-dynamic",
    ]


def test_a_file_that_comes_out_too_heavy_is_made_lighter_a_few_times():
    assert explore(weighing(lambda room: 1.1 * room))[4:] == [
        "low-bits-902k-static",
        "low-bits-902k-dynamic",
    ]
    assert len(of_low_bits(explore(weighing(lambda room: 2.0)))) == 2 * 3


def test_fewer_bits_end_where_there_are_no_such_weights():
    def outcome(recipe):
        if any(s.name == "weights" for s in recipe.steps):
            return Rejected(recipe=recipe, reason="too few for anything")
        return candidate(recipe.name, recipe=recipe, size=2 * MIB, fails={"transfer_mib": 1.0})

    assert len(of_low_bits(explore(outcome))) == 2


# ---------------------------------------------------------------- two runtimes


def accurate(recipe):
    return candidate(recipe.name, recipe=recipe, fails={"accuracy_drop_points": -0.5})


def passes_of(recipe):
    return [s.name for s in recipe.steps]


def test_where_both_runtimes_are_there_each_recipe_is_tried_in_both_forms():
    assert explore(accurate, BOTH) == [
        "int8-static",
        "int8-dynamic",
        "original-tflite",
        "int8-static-tflite",
        "int8-dynamic-tflite",
    ]


def test_the_twin_of_a_recipe_begins_with_the_same_steps():
    tried = []
    while recipes := propose(tried, BOTH):
        tried += map(accurate, recipes)
    steps = {t.recipe.name: t.recipe.steps for t in tried}
    assert steps["int8-static-tflite"][:-1] == steps["int8-static"]
    assert steps["int8-static-tflite"][-1].name == "tflite"
    assert steps["int8-dynamic-tflite"][-1].settings.precision == "dynamic"


def test_where_the_original_does_not_cross_over_its_int8_is_not_tried_there():
    def outcome(recipe):
        if recipe.name == "original-tflite":
            return Rejected(recipe=recipe, reason="no counterpart")
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
            return Rejected(recipe=recipe, reason="an operator is forbidden")
        return candidate(recipe.name, recipe=recipe, fails={"accuracy_drop_points": 0.5})

    later = explore(outcome, BOTH)[5:]
    assert later == ["int8-static-mse-tflite", "int8-static-minmax-tflite", "int16x8-tflite"]


def test_floats_of_16_bits_are_tried_only_where_floats_are_too_heavy_and_int8_is_not_accurate():
    def outcome(*, heavy):
        return lambda r: candidate(
            r.name, recipe=r, fails={"accuracy_drop_points": 0.5, "model_mib": heavy}
        )

    assert explore(outcome(heavy=0.5), LITE)[-1] == "float16-tflite"
    assert "float16-tflite" not in explore(outcome(heavy=-0.5), LITE)


def test_a_tflite_model_is_brought_over_first_and_then_tried_as_any_other():
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
        "onnx",
        "clean",
        "quantize",
    ]


def test_a_tflite_model_that_the_device_is_too_old_for_is_written_anew():
    known = terms("tflite", source="tflite", target="tflite-runtime", remakes=True)
    first = propose([], known)
    assert [r.name for r in first] == ["original-tflite"]
    assert passes_of(first[0]) == ["onnx", "clean", "tflite"]
    assert propose([], replace(known, remakes=False)) != first


def test_a_tflite_model_that_cannot_be_brought_over_is_left_as_it_is():
    def refused(recipe):
        return Rejected(recipe=recipe, reason="no counterpart")

    assert explore(refused, terms("onnx", "tflite", source="tflite")) == ["original-onnx"]
    lite = explore(refused, terms("tflite", source="tflite"))
    assert lite == ["int8-static-tflite", "int8-dynamic-tflite"]


def test_fewer_bits_run_in_the_forms_that_int8_was_accurate_in():
    tried = explore(weighing(lambda room: 0.97 * room), BOTH)

    assert tried[5:] == [
        "low-bits-1024k-static",
        "low-bits-1024k-dynamic",
        "low-bits-1024k-static-tflite",
        "low-bits-1024k-dynamic-tflite",
    ]


# ---------------------------------------------------------------- smaller graphs


def settings_in(recipe):
    return {step.name: step.settings for step in recipe.steps}


def measuring(over, *, drop=lambda _: -0.5, name="latency_p95_ms"):
    """A candidate that takes so many times one limit; both depend on the part that was removed."""

    def outcome(recipe):
        pruned = settings_in(recipe).get("prune-channels")
        removed = pruned.remove if pruned else 0.0
        fails = {name: over(removed) - 1, "accuracy_drop_points": drop(removed)}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    return outcome


def test_where_all_are_too_slow_channels_go_as_the_limit_asks_and_some_more():
    tried = [candidate("original", fails={"latency_p95_ms": 2.0})]
    int8 = measuring(lambda removed: 2.0 if not removed else 0.9)
    while recipes := propose(tried, terms()):
        tried += map(int8, recipes)

    pruned = [t.recipe for t in tried if "prune-channels" in settings_in(t.recipe)]
    assert [r.name for r in pruned] == ["pruned-55-static", "pruned-55-dynamic"]
    assert passes_of(pruned[0]) == ["clean", "prune-channels", "quantize"]
    assert settings_in(pruned[0])["prune-channels"].remove == 0.55
    assert tried[-1].recipe == pruned[-1]


def test_what_is_still_too_slow_loses_more_channels_at_most_three_times():
    tried = explore(measuring(lambda removed: 1.5 - 0.1 * removed))

    pruned = [name for name in tried if name.startswith("pruned-")]
    assert pruned == [f"pruned-{n}-{form}" for n in (40, 63, 77) for form in ("static", "dynamic")]


def test_channels_that_cost_too_much_accuracy_are_the_end_of_it():
    slow = measuring(lambda removed: 1.5 - removed / 10, drop=lambda removed: removed - 0.5)

    pruned = [name for name in explore(slow) if name.startswith("pruned-")]
    assert {name.rsplit("-", 1)[0] for name in pruned} == {"pruned-40", "pruned-63"}


def test_where_too_many_went_and_there_is_room_some_come_back():
    def outcome(recipe):
        pruned = settings_in(recipe).get("prune-channels")
        removed = pruned.remove if pruned else 0.0
        over = {0.0: 0.5, 0.4: -0.2}.get(removed, -0.02)
        fails = {"latency_p95_ms": over, "accuracy_drop_points": 0.1 if removed == 0.4 else -0.1}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    assert explore(outcome)[2:] == [
        "pruned-40-static",
        "pruned-40-dynamic",
        "pruned-27-static",
        "pruned-27-dynamic",
    ]


def test_the_nearest_forms_are_pruned_and_no_others():
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


def test_where_no_int8_is_accurate_the_floats_lose_channels():
    def outcome(recipe):
        bad = 0.5 if recipe.name.startswith("int8") else -0.5
        fails = {"latency_p95_ms": 0.5, "accuracy_drop_points": bad}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    tried = [candidate("original", fails={"latency_p95_ms": 0.5})]
    while not any("prune-channels" in settings_in(t.recipe) for t in tried):
        tried += map(outcome, propose(tried, terms()))

    assert tried[-1].recipe.name == "pruned-40"
    assert passes_of(tried[-1].recipe) == ["clean", "prune-channels"]


def test_a_limit_that_leaves_next_to_nothing_of_a_model_is_not_aimed_at():
    tried = explore(measuring(lambda _: 50.0))

    assert not [name for name in tried if not name.startswith("int8-")]


def test_what_has_become_fast_enough_gets_fewer_bits_where_it_is_too_heavy_to_travel():
    def outcome(recipe):
        found = settings_in(recipe)
        fails = {
            "latency_p95_ms": -0.1 if "prune-channels" in found else 0.5,
            "transfer_mib": -0.1 if "weights" in found else 0.5,
        }
        return candidate(recipe.name, recipe=recipe, size=int(1.5 * MIB), fails=fails)

    last = []

    def kept(recipe):
        last.append(recipe)
        return outcome(recipe)

    tried = explore(kept)
    assert tried[-2:] == [
        "low-bits-1024k-pruned-40-static",
        "low-bits-1024k-pruned-40-dynamic",
    ]
    assert passes_of(last[-1]) == ["clean", "prune-channels", "weights", "quantize-dynamic"]


def test_few_bits_that_are_accurate_and_too_heavy_lose_channels():
    made = []

    def outcome(recipe):
        made.append(recipe)
        found = settings_in(recipe)
        if "weights" in found and found["weights"].most_bytes < MIB and "prune" not in recipe.name:
            return Rejected(recipe=recipe, reason="too few for anything")
        over = 0.2 if "weights" in found else 2.0
        over = -0.1 if "prune-channels" in found else over
        size = int((1 + over) * MIB)
        return candidate(recipe.name, recipe=recipe, size=size, fails={"transfer_mib": over})

    tried = explore(outcome)
    assert tried[-2:] == ["pruned-25-low-bits-827k-static", "pruned-25-low-bits-827k-dynamic"]
    assert passes_of(made[-1]) == ["clean", "prune-channels", "weights", "quantize-dynamic"]
    assert settings_in(made[-1])["weights"].most_bytes == int(MIB * 0.97 / 1.2)


def test_low_rank_comes_once_and_after_channels():
    def outcome(recipe):
        if "prune-channels" in settings_in(recipe):
            return Rejected(recipe=recipe, reason="all its channels are outputs")
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
def test_ranks_are_counted_in_what_the_budget_that_binds_depends_on(budget, of):
    made = []

    def outcome(recipe):
        made.append(recipe)
        if "prune-channels" in settings_in(recipe):
            return Rejected(recipe=recipe, reason="all its channels are outputs")
        return candidate(recipe.name, recipe=recipe, fails={budget: 0.5, "peak_rss_mib": 0.1})

    explore(outcome)
    assert settings_in(made[-1])["low-rank"].of == of


def test_zeros_come_only_where_fewer_bits_lose_too_much():
    def outcome(*, low_bits):
        def made(recipe):
            found = settings_in(recipe)
            lost = low_bits if "weights" in found else -0.5
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
        tried.append(Rejected(recipe=recipe, reason="the model is quantised already"))

    (pruned,) = propose(tried, asked)
    assert (pruned.name, passes_of(pruned)) == (
        "pruned-40-tflite",
        ["onnx", "clean", "prune-channels", "tflite"],
    )
