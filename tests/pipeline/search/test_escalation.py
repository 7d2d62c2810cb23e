"""What is accurate but over a budget is made smaller."""

from __future__ import annotations

import pytest

from edgekit.bundle.results import MIB, Rejection
from edgekit.pipeline.search.policy import find_nearest, propose
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
        "pruned-30-static",
        "pruned-30-dynamic",
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
        "pruned-40-low-bits-1024k-static",
        "pruned-40-low-bits-1024k-dynamic",
    ]
    assert passes_of(last[-1]) == ["clean", "prune-channels", "weights", "quantize-dynamic"]


def test_few_bits_that_are_accurate_and_too_heavy_lose_channels():
    made = []

    def outcome(recipe):
        made.append(recipe)
        found = settings_in(recipe)
        if "weights" in found and found["weights"].most_bytes < MIB and "prune" not in recipe.name:
            return Rejection(recipe=recipe, reason="too few for anything")
        over = 0.2 if "weights" in found else 2.0
        over = -0.1 if "prune-channels" in found else over
        size = int((1 + over) * MIB)
        return candidate(recipe.name, recipe=recipe, size=size, fails={"transfer_mib": over})

    tried = explore(outcome)
    assert tried[-2:] == ["pruned-25-low-bits-827k-static", "pruned-25-low-bits-827k-dynamic"]
    assert passes_of(made[-1]) == ["clean", "prune-channels", "weights", "quantize-dynamic"]
    assert settings_in(made[-1])["weights"].most_bytes == pytest.approx(MIB * 0.97 / 1.2, abs=2)


def test_low_rank_comes_once_and_after_channels():
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
def test_ranks_are_counted_in_what_the_budget_that_binds_depends_on(budget, of):
    made = []

    def outcome(recipe):
        made.append(recipe)
        if "prune-channels" in settings_in(recipe):
            return Rejection(recipe=recipe, reason="all its channels are outputs")
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
        tried.append(Rejection(recipe=recipe, reason="the model is quantised already"))

    (pruned,) = propose(tried, asked)
    assert (pruned.name, passes_of(pruned)) == (
        "pruned-40-tflite",
        ["onnx", "clean", "prune-channels", "tflite"],
    )


def sending(mib, *, refuses=(), loses=(), limit=1.0):
    """What becomes of recipes where only the bytes to send are limited.

    Args:
        mib: what a recipe sends, of its settings by pass.
        refuses: passes that refuse.
        loses: predicates of settings; where one is true, the accuracy is lost.
        limit: of the transfer, in MiB.
    """

    def outcome(recipe):
        found = settings_in(recipe)
        if any(name in found for name in refuses):
            return Rejection(recipe=recipe, reason="47359 bytes are the least to try")
        sent = mib(found)
        fails = {
            "transfer_mib": sent / limit - 1,
            "accuracy_drop_points": 0.5 if any(lost(found) for lost in loses) else -0.5,
        }
        return candidate(recipe.name, recipe=recipe, size=int(sent * MIB), fails=fails)

    return outcome


def ended_well(outcome, asked=None):
    """The passes of the last recipe that was tried, which must pass."""
    tried = [candidate("original", fails={"transfer_mib": 5.0, "accuracy_drop_points": -1.0})]
    for _ in range(40):
        recipes = propose(tried, asked or terms())
        if not recipes:
            break
        tried += [outcome(recipe) for recipe in recipes]
    else:
        raise AssertionError("the search does not end")
    best = [t for t in tried if not isinstance(t, Rejection) and t.verdict.passes]
    return passes_of(best[0].recipe) if best else None, len(tried)


def remains(found):
    """The part of the bytes that channels, ranks and zeros leave."""
    part = 1 - found["prune-channels"].remove if "prune-channels" in found else 1.0
    part *= found["low-rank"].keep if "low-rank" in found else 1.0
    return part * (1 - 0.9 * found["prune"].sparsity if "prune" in found else 1.0)


def in_8_bits(found):
    return 1.5 * remains(found)


def in_few_bits(found):
    sent = in_8_bits(found)
    return min(sent, found["weights"].most_bytes / MIB) if "weights" in found else sent


def test_where_few_bits_are_refused_channels_go_for_the_bytes_to_send():
    passes, _ = ended_well(sending(in_8_bits, refuses=["weights"]))

    assert passes == ["clean", "prune-channels", "quantize"]


def with_least_size(mib, *, loses=(), limit=1.0):
    """What becomes of recipes where few bits reach no less than so many MiB of the whole graph."""
    inner = sending(in_few_bits, loses=loses, limit=limit)

    def outcome(recipe):
        found = settings_in(recipe)
        least = int(mib * remains(found) * MIB)
        if "weights" in found and (found["weights"].most_bytes or 0) < least:
            return Rejection(recipe=recipe, reason="too few bytes", least_bytes=least)
        return inner(recipe)

    return outcome


def candidates_of(outcome, asked=None):
    tried = [candidate("original", fails={"transfer_mib": 5.0, "accuracy_drop_points": -1.0})]
    for _ in range(40):
        recipes = propose(tried, asked or terms())
        if not recipes:
            return [t for t in tried if not isinstance(t, Rejection)]
        tried += [outcome(recipe) for recipe in recipes]
    raise AssertionError("the search does not end")


def test_the_least_size_of_few_bits_is_tried_and_is_the_nearest_where_nothing_holds():
    def others(found):
        return bool(set(found) & {"prune-channels", "prune", "low-rank"})

    found = candidates_of(with_least_size(1.2, loses=[others]))
    near = find_nearest(found, source="host")

    assert passes_of(near.recipe) == ["clean", "weights", "quantize"]
    assert settings_in(near.recipe)["weights"].most_bytes == int(1.2 * MIB)
    assert near.verdict.shortfall[1] == 1


def test_between_a_least_size_that_loses_too_much_and_8_bits_one_more_is_tried():
    def others(found):
        return bool(set(found) & {"prune-channels", "prune", "low-rank"})

    def coarsest(found):
        return "weights" in found and found["weights"].most_bytes < 1.25 * MIB

    found = candidates_of(with_least_size(1.2, loses=[others, coarsest]))
    near = find_nearest(found, source="host")

    assert passes_of(near.recipe) == ["clean", "weights", "quantize"]
    assert 1.3 * MIB < settings_in(near.recipe)["weights"].most_bytes < 1.4 * MIB
    of_few_bits = [c for c in found if {"weights", "clean", "quantize"} == set(passes_of(c.recipe))]
    assert len({settings_in(c.recipe)["weights"].most_bytes for c in of_few_bits}) == 2


def test_channels_go_from_few_bits_of_the_least_size():
    passes, _ = ended_well(with_least_size(1.2))

    assert passes == ["clean", "prune-channels", "weights", "quantize"]


def test_zeros_are_tried_where_few_bits_of_the_least_size_cannot_be_sent():
    def others(found):
        return bool(set(found) & {"prune-channels", "low-rank"})

    passes, _ = ended_well(with_least_size(1.2, loses=[others]))

    assert passes == ["clean", "prune", "quantize"]


def test_a_least_size_that_is_refused_again_ends_the_tries():
    asked = []

    def outcome(recipe):
        found = settings_in(recipe)
        if "weights" not in found:
            return sending(in_8_bits, refuses=["prune-channels", "low-rank", "prune"])(recipe)
        asked.append(found["weights"].most_bytes)
        return Rejection(recipe=recipe, reason="too few bytes", least_bytes=asked[-1] + 100)

    candidates_of(outcome)

    assert len(set(asked)) == 3


def test_where_few_bits_lose_too_much_channels_go_for_the_bytes_to_send():
    passes, _ = ended_well(sending(in_few_bits, loses=[lambda found: "weights" in found]))

    assert passes == ["clean", "prune-channels", "quantize"]


def test_where_few_bits_and_channels_are_refused_zeros_are_sent():
    passes, _ = ended_well(sending(in_8_bits, refuses=["weights", "prune-channels"]))

    assert passes == ["clean", "prune", "quantize"]


def test_where_nothing_else_is_left_ranks_go():
    refuses = ["weights", "prune-channels", "prune"]
    passes, _ = ended_well(sending(in_8_bits, refuses=refuses))

    assert passes == ["clean", "low-rank", "quantize"]


def test_channels_that_are_accurate_and_still_too_many_get_fewer_bits():
    def bits(found):
        return "weights" in found and found["weights"].most_bytes / MIB < 0.5 * in_8_bits(found)

    def sends(found):
        return max(in_few_bits(found), 0.0) if "weights" in found else 2 * in_8_bits(found)

    def too_few(found):
        return found.get("prune-channels") is not None and found["prune-channels"].remove > 0.7

    passes, _ = ended_well(sending(sends, loses=[bits, too_few], limit=0.5))

    assert passes == ["clean", "prune-channels", "weights", "quantize"]


def test_where_channels_alone_and_bits_alone_lose_too_much_half_of_each_is_tried():
    def bits(found):
        return "weights" in found and "prune-channels" not in found

    def channels(found):
        return "prune-channels" in found and found["prune-channels"].remove > 0.3

    passes, _ = ended_well(sending(in_few_bits, loses=[bits, channels]))

    assert passes == ["clean", "prune-channels", "weights", "quantize"]


def test_where_8_bit_activations_lose_too_much_weights_of_8_bits_and_16_bit_floats_are_tried():
    def activations(found):
        return "quantize" in found or "quantize-dynamic" in found

    def sends(found):
        return {"weights": 1.0, "float16": 2.0}.get(list(found)[-1], 4.0)

    passes, _ = ended_well(sending(sends, loses=[activations], limit=1.2))
    assert passes == ["clean", "weights"]
    passes, _ = ended_well(sending(sends, loses=[activations], refuses=["weights"], limit=2.2))
    assert passes == ["clean", "float16"]


def test_a_budget_that_nothing_meets_is_given_up_after_a_bounded_number_of_candidates():
    def everything(found):
        return bool(set(found) & {"weights", "prune-channels", "prune", "low-rank"})

    for loses in ([], [everything]):
        passes, count = ended_well(sending(lambda _: 3.0, loses=loses), BOTH)
        assert passes is None
        assert count < 60


def test_recipes_of_the_same_steps_are_tried_once_whatever_they_are_called():
    tried = [candidate("original", fails={"transfer_mib": 5.0})]
    for recipe in propose(tried, terms()):
        tried.append(candidate("by another name", recipe=recipe, fails={"transfer_mib": 5.0}))

    steps = [t.recipe.steps for t in tried]
    assert all(r.steps not in steps for r in propose(tried, terms()))


def test_between_too_few_channels_lost_and_too_many_the_next_attempt_lies_between():
    sizes = {0.0: 2.0, 0.55: 1.2, 0.66: 0.8}

    def outcome(recipe):
        pruned = settings_in(recipe).get("prune-channels")
        removed = pruned.remove if pruned else 0.0
        sent = sizes.get(removed, 0.96)
        lost = 0.5 if removed == 0.66 or "weights" in settings_in(recipe) else -0.5
        fails = {"transfer_mib": sent - 1, "accuracy_drop_points": lost}
        return candidate(recipe.name, recipe=recipe, size=int(sent * MIB), fails=fails)

    last = explore(outcome)[-2:]
    assert last == ["pruned-61-static", "pruned-61-dynamic"]
