"""Escalation of the search when a candidate exceeds the transfer budget."""

from __future__ import annotations

from edgekit.bundle.results import MIB, Rejection
from edgekit.pipeline.search.policy import find_nearest, propose
from tests.builders.candidates import (
    BOTH,
    candidate,
    explore,
    passes_of,
    settings_in,
    terms,
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
            return Rejection(
                recipe=recipe, reason="the smallest possible value is most_bytes=47359"
            )
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
    return part * (1 - 0.9 * found["prune-weights"].sparsity if "prune-weights" in found else 1.0)


def in_8_bits(found):
    return 1.5 * remains(found)


def in_few_bits(found):
    sent = in_8_bits(found)
    return (
        min(sent, found["quantize-weights"].most_bytes / MIB)
        if "quantize-weights" in found
        else sent
    )


def test_if_few_bits_are_refused_channels_are_pruned_for_the_transfer_budget():
    passes, _ = ended_well(sending(in_8_bits, refuses=["quantize-weights"]))

    assert passes == ["clean", "prune-channels", "quantize-static"]


def with_least_size(mib, *, loses=(), limit=1.0):
    """What becomes of recipes where few bits reach no less than so many MiB of the whole graph."""
    inner = sending(in_few_bits, loses=loses, limit=limit)

    def outcome(recipe):
        found = settings_in(recipe)
        least = int(mib * remains(found) * MIB)
        if "quantize-weights" in found and (found["quantize-weights"].most_bytes or 0) < least:
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


def test_the_smallest_size_of_few_bits_is_tried_and_can_be_the_nearest():
    def others(found):
        return bool(set(found) & {"prune-channels", "prune-weights", "low-rank"})

    found = candidates_of(with_least_size(1.2, loses=[others]))
    near = find_nearest(found, source="host")

    assert passes_of(near.recipe) == ["clean", "quantize-weights", "quantize-static"]
    assert settings_in(near.recipe)["quantize-weights"].most_bytes == int(1.2 * MIB)
    assert near.verdict.shortfall[1] == 1


def test_a_size_between_the_smallest_and_8_bits_is_tried():
    def others(found):
        return bool(set(found) & {"prune-channels", "prune-weights", "low-rank"})

    def coarsest(found):
        return "quantize-weights" in found and found["quantize-weights"].most_bytes < 1.25 * MIB

    found = candidates_of(with_least_size(1.2, loses=[others, coarsest]))
    near = find_nearest(found, source="host")

    assert passes_of(near.recipe) == ["clean", "quantize-weights", "quantize-static"]
    assert 1.3 * MIB < settings_in(near.recipe)["quantize-weights"].most_bytes < 1.4 * MIB
    of_few_bits = [
        c
        for c in found
        if {"quantize-weights", "clean", "quantize-static"} == set(passes_of(c.recipe))
    ]
    assert len({settings_in(c.recipe)["quantize-weights"].most_bytes for c in of_few_bits}) == 2


def test_few_bit_candidates_of_the_smallest_size_are_pruned():
    passes, _ = ended_well(with_least_size(1.2))

    assert passes == ["clean", "prune-channels", "quantize-weights", "quantize-static"]


def test_sparsity_is_tried_if_the_smallest_few_bit_file_is_too_large():
    def others(found):
        return bool(set(found) & {"prune-channels", "low-rank"})

    passes, _ = ended_well(with_least_size(1.2, loses=[others]))

    assert passes == ["clean", "prune-weights", "quantize-static"]


def test_a_least_size_that_is_refused_again_ends_the_tries():
    asked = []

    def outcome(recipe):
        found = settings_in(recipe)
        if "quantize-weights" not in found:
            return sending(in_8_bits, refuses=["prune-channels", "low-rank", "prune-weights"])(
                recipe
            )
        asked.append(found["quantize-weights"].most_bytes)
        return Rejection(recipe=recipe, reason="too few bytes", least_bytes=asked[-1] + 100)

    candidates_of(outcome)

    assert len(set(asked)) == 3


def test_if_few_bits_lose_too_much_channels_are_pruned_for_the_transfer_budget():
    passes, _ = ended_well(sending(in_few_bits, loses=[lambda found: "quantize-weights" in found]))

    assert passes == ["clean", "prune-channels", "quantize-static"]


def test_if_few_bits_and_channels_are_refused_sparsity_is_tried():
    passes, _ = ended_well(sending(in_8_bits, refuses=["quantize-weights", "prune-channels"]))

    assert passes == ["clean", "prune-weights", "quantize-static"]


def test_low_rank_is_tried_last():
    refuses = ["quantize-weights", "prune-channels", "prune-weights"]
    passes, _ = ended_well(sending(in_8_bits, refuses=refuses))

    assert passes == ["clean", "low-rank", "quantize-static"]


def test_channels_that_are_accurate_and_still_too_many_get_fewer_bits():
    def bits(found):
        return "quantize-weights" in found and found[
            "quantize-weights"
        ].most_bytes / MIB < 0.5 * in_8_bits(found)

    def sends(found):
        return max(in_few_bits(found), 0.0) if "quantize-weights" in found else 2 * in_8_bits(found)

    def too_few(found):
        return found.get("prune-channels") is not None and found["prune-channels"].remove > 0.7

    passes, _ = ended_well(sending(sends, loses=[bits, too_few], limit=0.5))

    assert passes == ["clean", "prune-channels", "quantize-weights", "quantize-static"]


def test_if_channels_and_bits_alone_lose_too_much_half_of_each_is_tried():
    def bits(found):
        return "quantize-weights" in found and "prune-channels" not in found

    def channels(found):
        return "prune-channels" in found and found["prune-channels"].remove > 0.3

    passes, _ = ended_well(sending(in_few_bits, loses=[bits, channels]))

    assert passes == ["clean", "prune-channels", "quantize-weights", "quantize-static"]


def test_where_8_bit_activations_lose_too_much_weights_of_8_bits_and_16_bit_floats_are_tried():
    def activations(found):
        return "quantize-static" in found or "quantize-dynamic" in found

    def sends(found):
        return {"quantize-weights": 1.0, "float16": 2.0}.get(list(found)[-1], 4.0)

    passes, _ = ended_well(sending(sends, loses=[activations], limit=1.2))
    assert passes == ["clean", "quantize-weights"]
    passes, _ = ended_well(
        sending(sends, loses=[activations], refuses=["quantize-weights"], limit=2.2)
    )
    assert passes == ["clean", "float16"]


def test_a_budget_that_no_candidate_meets_ends_after_a_bounded_number_of_candidates():
    def everything(found):
        return bool(
            set(found) & {"quantize-weights", "prune-channels", "prune-weights", "low-rank"}
        )

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
        lost = 0.5 if removed == 0.66 or "quantize-weights" in settings_in(recipe) else -0.5
        fails = {"transfer_mib": sent - 1, "accuracy_drop_points": lost}
        return candidate(recipe.name, recipe=recipe, size=int(sent * MIB), fails=fails)

    last = explore(outcome)[-2:]
    assert last == ["pruned-61-static", "pruned-61-dynamic"]
