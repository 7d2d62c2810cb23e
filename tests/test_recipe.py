"""A candidate key depends on everything that decides the bytes, and on nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgekit.pass_settings import Clean, QuantizeStatic
from edgekit.recipe import Recipe, Step, compute_candidate_key

STEP = Step(name="quantize-static", version=1, settings=QuantizeStatic())
RECIPE = Recipe(name="int8", steps=(Step(name="clean", version=1, settings=Clean()), STEP), seed=0)
FACTS = {
    "source": "a" * 64,
    "splits": {"calibration": "b" * 64},
    "tools": {"onnx": "1.19", "numpy": "2.0"},
}


def with_step(**changes):
    return replace(RECIPE, steps=(RECIPE.steps[0], replace(STEP, **changes)))


@pytest.mark.parametrize(
    ("recipe", "facts"),
    [
        (replace(RECIPE, seed=1), {}),
        (with_step(version=2), {}),
        (with_step(settings=QuantizeStatic(ranges="mse")), {}),
        (with_step(settings=QuantizeStatic(percentile=99.9)), {}),
        (with_step(settings=QuantizeStatic(max_samples=100)), {}),
        (replace(RECIPE, steps=RECIPE.steps[1:]), {}),
        (replace(RECIPE, steps=RECIPE.steps[::-1]), {}),
        (RECIPE, {"source": "c" * 64}),
        (RECIPE, {"splits": {"calibration": "c" * 64}}),
        (RECIPE, {"splits": {}}),
        (RECIPE, {"tools": {"onnx": "1.20", "numpy": "2.0"}}),
    ],
)
def test_another_step_setting_version_source_split_seed_or_tool_is_another_key(recipe, facts):
    assert compute_candidate_key(recipe, **FACTS | facts) != compute_candidate_key(RECIPE, **FACTS)


def test_a_recipes_name_and_the_order_of_facts_leave_the_key_as_it_is():
    swapped = FACTS | {"tools": dict(reversed(FACTS["tools"].items()))}

    assert compute_candidate_key(replace(RECIPE, name="other"), **swapped) == compute_candidate_key(
        RECIPE, **FACTS
    )


def test_a_step_can_be_written_as_json_with_all_of_its_settings():
    written = json.loads(json.dumps(STEP.as_json()))

    assert written == {
        "name": "quantize-static",
        "version": 1,
        "settings": {
            "ranges": "auto",
            "weight_bits": "auto",
            "percentile": 99.99,
            "max_samples": 512,
            "bias_correction": True,
            "equalize": True,
            "float_layers": "auto",
        },
    }
