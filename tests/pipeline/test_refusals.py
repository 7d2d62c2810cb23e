"""A refusal that is read from the cache equals the stored one."""

from __future__ import annotations

import json

import pytest

from edgekit.errors import PassRefused
from edgekit.pipeline.refusals import decode_refusal, encode_refusal, make_rejection
from edgekit.recipe import Recipe


@pytest.mark.parametrize(
    "refusal",
    [
        PassRefused("nothing to prune"),
        PassRefused("too few bytes", least_bytes=4711),
        PassRefused("the model is already quantized", quantized=True),
    ],
)
def test_a_refusal_from_the_cache_rejects_the_recipe_for_the_same_reason(refusal):
    recipe = Recipe(name="int8")

    known = decode_refusal(json.loads(json.dumps(encode_refusal(refusal))))

    assert known is not None
    assert make_rejection(recipe, known) == make_rejection(recipe, refusal)


def test_facts_of_a_model_or_nothing_are_no_refusal():
    assert decode_refusal(None) is None
    assert decode_refusal({"digest": "abc", "layers": [], "notes": []}) is None


def test_a_refusal_stored_by_an_earlier_version_is_read_as_far_as_it_goes():
    known = decode_refusal({"rejected": "too few bytes", "least_bytes": "many"})

    assert (str(known), known.least_bytes, known.quantized) == ("too few bytes", None, False)
