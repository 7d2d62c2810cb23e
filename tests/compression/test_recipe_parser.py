"""Parsing of steps: every setting by its type, every mistake in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from edgekit.compression.pass_specs import PASSES, PassSpec
from edgekit.compression.recipe_parser import list_settings, parse_settings, parse_step, read_recipe
from edgekit.errors import UserError
from edgekit.pass_settings import Bounds, Clean, QuantizeStatic, QuantizeWeights


@dataclass(frozen=True, kw_only=True)
class Everything:
    """A setting of every type that a pass may have."""

    bits: Literal[2, 4] = 4
    mode: Literal["fast", "slow"] = "fast"
    share: Annotated[float, Bounds(0, 1)] = 0.5
    count: int = 3
    symmetric: bool = True
    label: str = "x"
    widths: tuple[tuple[str, Literal[2, 4, 8]], ...] = ()
    table: dict[str, int] | None = None
    skip: tuple[str, ...] = ()


@pytest.fixture
def everything(monkeypatch):
    row = PassSpec(settings=Everything, function="none:none", summary="takes all", version=7)
    monkeypatch.setitem(PASSES, "all", row)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("bits=2", 2),
        ("mode=slow", "slow"),
        ("share=0.25", 0.25),
        ("share=1", 1.0),
        ("count=-2", -2),
        ("symmetric=false", False),
        ("label=4", "4"),
        ("label=a=b", "a=b"),
        ("widths=conv/1:4,fc:0:2", (("conv/1", 4), ("fc:0", 2))),
        ("widths=none", ()),
        ("table=a:1,b:2", {"a": 1, "b": 2}),
        ("table=none", None),
        ("skip=a,b", ("a", "b")),
    ],
)
def test_a_value_in_words_becomes_one_of_the_settings_type(everything, pair, value):
    settings = parse_settings("all", [pair]).settings

    found = getattr(settings, pair.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("bits=3", "bits: must be one of 2, 4, got '3'"),
        ("bits=2.0", "bits: must be one of 2, 4"),
        ("mode=Fast", "mode: must be one of fast, slow"),
        ("share=2", "share: must be a number from 0 to 1, got 2.0"),
        ("share=nan", "share: must be a number from 0 to 1, got nan"),
        ("share=", "share: must be a number"),
        ("count=1.5", "count: must be a whole number, got '1.5'"),
        ("count=true", "count: must be a whole number"),
        ("symmetric=maybe", "symmetric: must be true or false"),
        ("widths=conv:3", "widths: must be NAME:VALUE,..., each value one of 2, 4, 8"),
        ("widths=4", "widths: must be NAME:VALUE"),
        ("table=a:x", "table: must be NAME:VALUE,..., each value a whole number or none"),
        ("nothing=1", "nothing: unknown setting of all"),
        ("bits", "'bits': expected KEY=VALUE"),
    ],
)
def test_an_invalid_value_is_refused_with_the_allowed_ones(everything, pair, says):
    with pytest.raises(UserError) as caught:
        parse_settings("all", [pair])

    assert caught.value.message.startswith(says)
    for setting in list_settings("all"):
        assert str(setting) in str(caught.value)
    assert "share: a number from 0 to 1 (default 0.5)" in str(caught.value)


def test_a_setting_given_twice_is_refused():
    with pytest.raises(UserError, match="bits: given twice"):
        parse_settings("quantize-weights", ["bits=2", "bits=3"])


def test_a_step_on_the_command_line_is_a_name_and_its_settings(everything):
    assert parse_step("quantize-weights:bits=3,grid=fixed").settings == QuantizeWeights(
        bits=3, grid="fixed"
    )
    assert parse_step("clean").settings == Clean()
    assert parse_step("all:widths=a:4,b:2,count=1").settings == Everything(
        widths=(("a", 4), ("b", 2)), count=1
    )
    assert parse_step("all").version == 7


RECIPE = """
name = "three bits"
[[step]]
pass = "quantize-weights"
bits = 3
[[step]]
pass = "quantize-static"
ranges = "mse"
percentile = 99
"""


def written(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_file_is_read_with_its_steps_in_order(tmp_path):
    recipe = read_recipe(written(tmp_path, RECIPE))

    assert recipe.name == "three bits"
    assert [s.settings for s in recipe.steps] == [
        QuantizeWeights(bits=3),
        QuantizeStatic(ranges="mse", percentile=99.0),
    ]
    unnamed = read_recipe(written(tmp_path, RECIPE.replace('name = "three bits"', "")))
    assert unnamed.name == "quantize-weights+quantize-static"


def test_a_table_in_a_recipe_file_may_name_any_layer(tmp_path, everything):
    text = '[[step]]\npass = "all"\nskip = ["a,b"]\nwidths = { "a,=:b" = 4 }'

    settings = read_recipe(written(tmp_path, text)).steps[0].settings

    assert settings == Everything(skip=("a,b",), widths=(("a,=:b", 4),))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("bits = 3", "bits = 9", "step 1: bits: must be a number from 1 to 8, got 9"),
        ("bits = 3", 'bits = "3"', "step 1: bits: must be a number from 1 to 8"),
        ("bits = 3", "bits = true", "step 1: bits: must be a number from 1 to 8"),
        ("bits = 3", f"bits = 1{'0' * 400}", "step 1: bits: must be a number from 1 to 8"),
        (
            "bits = 3",
            "weight_bits = 7.0",
            "step 1: weight_bits: must be one of auto, 7, 8",
        ),
        ("percentile = 99", "percentile = inf", "step 2: percentile: must be a number"),
        ("percentile = 99", "percentiles = 99", "step 2: percentiles: unknown setting"),
        ('"quantize-static"', '"quantize-statis"', "step 2: no pass named 'quantize-statis'"),
        ('pass = "quantize-static"', "", "step 2: pass: missing or not a name"),
        ('"three bits"', "3", "name: must be one line of text"),
        ('"three bits"', '"a\\nb"', "name: must be one line of text"),
        ("name =", "title =", "title: unknown key"),
        ("[[step]]", "[[steps]]", "steps: unknown key"),
        ("bits = 3", "bits = ", "not TOML"),
        (RECIPE, "", "no [[step]] table"),
        (RECIPE, "step = 3", "no [[step]] table"),
    ],
)
def test_a_mistake_in_a_recipe_file_is_named_with_its_place(tmp_path, old, new, says):
    assert old in RECIPE
    path = written(tmp_path, RECIPE.replace(old, new))

    with pytest.raises(UserError) as caught:
        read_recipe(path)

    assert caught.value.message.startswith(f"{path}: {says}")
