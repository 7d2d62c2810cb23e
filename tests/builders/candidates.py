"""Candidates and limits for tests of the search."""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle.results import MIB, Candidate, Check, Measurement, Verdict
from edgekit.model import Model, Signature
from edgekit.pipeline.search.policy import Terms, propose
from edgekit.recipe import Recipe
from edgekit_agent.worker_results import Latency

MODEL = Model(path=Path("m"), format="onnx", digest="d", signature=Signature(inputs=(), outputs=()))


def candidate(name, *, ms=None, size=100, fails=(), reasons=(), recipe=None):
    times = (Latency((ms,) * 5, 1, 1, 1.0),) if ms else ()
    lines = tuple(
        Check(
            name=n,
            limit=1.0,
            measured=1.0 + by,
            outcome="fails" if by > 0 else "holds",
            metric="top1" if n == "accuracy_drop_points" else "",
        )
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
    """Return the terms of a search; by default with files for onnxruntime only."""
    return Terms(source=source, formats=formats or ("onnx",), weight_bits=8, seed=7, **others)


BOTH = terms("onnx", "tflite")
LITE = terms("tflite", dims=(("L", 16),), target="tflite-runtime")


def explore(outcome, asked=None):
    """Return all recipes that the search tries, where ``outcome(name)`` is the result of each."""
    tried = []
    for _ in range(20):
        recipes = propose(tried, asked or terms())
        if not recipes:
            return [t.recipe.name for t in tried]
        tried += [outcome(recipe) for recipe in recipes]
    raise AssertionError("the search does not end")


def of_low_bits(names):
    return [name for name in names if name.startswith("low-bits-")]


def weighing(mib, **others):
    """Return a candidate with this share of a download limit of one MiB."""

    def outcome(recipe):
        few = [s for s in recipe.steps if s.name == "quantize-weights"]
        name = recipe.name
        size = int((mib(few[0].settings.most_bytes / MIB) if few else 2.0) * MIB)
        fails = {"transfer_mib": size / MIB - 1} | others.get("fails", {})
        return candidate(name, recipe=recipe, size=size, fails=fails)

    return outcome


def accurate(recipe):
    return candidate(recipe.name, recipe=recipe, fails={"accuracy_drop_points": -0.5})


def passes_of(recipe):
    return [s.name for s in recipe.steps]


def settings_in(recipe):
    return {step.name: step.settings for step in recipe.steps}


def measuring(over, *, drop=lambda _: -0.5, name="latency_p95_ms"):
    """Return a candidate that uses this multiple of one limit."""

    def outcome(recipe):
        pruned = settings_in(recipe).get("prune-channels")
        removed = pruned.remove if pruned else 0.0
        fails = {name: over(removed) - 1, "accuracy_drop_points": drop(removed)}
        return candidate(recipe.name, recipe=recipe, fails=fails)

    return outcome
