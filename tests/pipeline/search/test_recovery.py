"""Inaccurate candidates within the budgets learn from the original, within a limited time."""

from __future__ import annotations

from edgekit.pipeline.search.policy import propose
from edgekit.pipeline.search.recovery import propose_recovery
from tests.builders.candidates import candidate, passes_of, settings_in, terms

DROP, DOWNLOAD, LATENCY = "accuracy_drop_points", "transfer_mib", "latency_p95_ms"


def search(outcome, asked):
    """Return all results of a search in which each candidate is measured before any one learns."""
    tried = [candidate("original", fails={DOWNLOAD: 5.0, LATENCY: 1.0})]
    for _ in range(30):
        recipes = propose(tried, asked) or propose_recovery(tried, asked)
        if not recipes:
            return tried
        tried += [outcome(recipe) for recipe in recipes]
    raise AssertionError("the search does not end")


def over_unless_pruned(used):
    return -0.1 if "prune-channels" in used else 1.0


def over_unless_changed(used):
    return -0.1 if used else 1.0


def measuring(*, drop, over=over_unless_pruned):
    """Return an outcome with a loss of points beyond 1, and an excess over a latency of 1 ms."""

    def outcome(recipe):
        used = settings_in(recipe)
        fails = {LATENCY: over(used), DROP: drop(used)}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    return outcome


def distilled(tried):
    return [t.recipe for t in tried if "distil" in passes_of(t.recipe)]


def lost_by_pruning(used):
    return 5.0 if "prune-channels" in used and "distil" not in used else -0.5


def test_a_pruned_candidate_learns_before_its_weights_are_stored_in_8_bits():
    tried = search(measuring(drop=lost_by_pruning), terms(minutes=10.0))

    found = distilled(tried)
    assert [r.name for r in found] == ["pruned-55-distilled-static", "pruned-55-distilled-dynamic"]
    assert passes_of(found[0]) == ["clean", "prune-channels", "distil", "quantize-static"]
    assert settings_in(found[0])["distil"].minutes == 5.0
    assert settings_in(found[0])["distil"] == settings_in(found[1])["distil"]


def test_without_minutes_nothing_learns():
    assert not distilled(search(measuring(drop=lost_by_pruning), terms(minutes=0.0)))


def test_nothing_learns_where_a_candidate_is_accurate_and_small_enough():
    tried = search(measuring(drop=lambda _: -0.5), terms(minutes=10.0))

    assert not distilled(tried)


def test_nothing_learns_where_the_loss_is_out_of_reach():
    outcome = measuring(drop=lambda used: 40.0 if "prune-channels" in used else -0.5)

    assert not distilled(search(outcome, terms(minutes=10.0)))


def test_int8_that_loses_accuracy_learns_as_it_is_and_before_the_conversion():
    def drop(used):
        return 3.0 if used and "distil" not in used else -0.5

    asked = terms("onnx", "tflite", minutes=10.0)
    outcome = measuring(drop=drop, over=over_unless_changed)
    found = distilled(search(outcome, asked))

    passes = [passes_of(recipe) for recipe in found]
    assert ["clean", "quantize-static", "distil"] in passes
    assert ["clean", "quantize-static", "distil", "to-tflite"] in passes
    assert found[0].name == "int8-static-distilled"


def test_three_models_share_the_minutes_if_none_recovers():
    def drop(used):
        static = used.get("quantize-static")
        return {"auto": 4.0, "mse": 5.0, "minmax": 6.0}[static.ranges] if static else 40.0

    outcome = measuring(drop=drop, over=over_unless_changed)
    found = distilled(search(outcome, terms(minutes=9.0)))

    assert [settings_in(r)["quantize-static"].ranges for r in found] == ["auto", "mse", "minmax"]
    assert [settings_in(r)["distil"].minutes for r in found] == [4.5, 2.25, 2.25]


def test_a_pruned_candidate_that_recovers_gets_fewer_bits_and_learns_once_more():
    def outcome(recipe):
        used = settings_in(recipe)
        few, pruned = used.get("quantize-weights"), used.get("prune-channels")
        size = 1.0 if few and pruned else 2.0 if pruned or few else 4.0
        lost = 3.0 if pruned else 60.0 if few else -0.5
        learned = passes_of(recipe).count("distil")
        if learned:
            lost = 2.0 if few and learned < 2 else -0.5
        fails = {DOWNLOAD: size - 1.5, DROP: lost}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    found = distilled(search(outcome, terms(minutes=10.0, attempts=3)))

    last = passes_of(found[-1])
    assert last[:4] == ["clean", "prune-channels", "distil", "quantize-weights"]
    assert last[-1] == "distil"
    assert passes_of(found[-2]) == [*last[:4], "quantize-dynamic"]


def test_few_bits_that_just_fit_are_made_lighter_before_they_learn():
    def outcome(recipe):
        few = settings_in(recipe).get("quantize-weights")
        lost = 3.0 if few and "distil" not in passes_of(recipe) else -0.5
        fails = {DOWNLOAD: -0.01 if few else 3.0, DROP: lost}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    tried = search(outcome, terms(minutes=10.0))

    (learned,) = distilled(tried)
    sizes = [settings_in(t.recipe)["quantize-weights"].most_bytes for t in tried[-3:]]
    assert passes_of(learned) == ["clean", "quantize-weights", "quantize-static", "distil"]
    assert 0.95 * sizes[0] < sizes[-1] < sizes[0]
