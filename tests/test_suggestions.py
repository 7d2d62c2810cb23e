"""A misspelled word is answered with the most similar known one."""

from __future__ import annotations

import tomllib

import pytest

from edgekit.argument_checks import check_choice
from edgekit.compression.recipe_parser import parse_settings, parse_step, read_recipe
from edgekit.config.profile import load_profile, validate
from edgekit.config.project import Project
from edgekit.errors import UserError, did_you_mean
from edgekit.metrics.registry import get_metric


def read_error(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return caught.value.message


@pytest.mark.parametrize(
    ("step", "meant"),
    [
        ("wieghts", "did you mean 'quantize-weights'?"),
        ("Quantise", "did you mean 'quantize-static'?"),
        ("prune-chanels:remove=0.5", "did you mean 'prune-channels'?"),
        ("quantize-weights:bit=4", "did you mean 'bits'?"),
        ("quantize-weights:container=nativ", "did you mean 'native'?"),
        ("quantize-static:ranges=min-max", "did you mean 'minmax'?"),
    ],
)
def test_misspelled_passes_settings_and_values_get_a_suggestion(step, meant):
    assert read_error(parse_step, step).endswith(meant)


def test_misspelled_steps_in_a_recipe_file_get_a_suggestion(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[[step]]\npass = "qantize"\n')
    assert read_error(read_recipe, path).endswith("did you mean 'quantize-static'?")
    path.write_text('[[steps]]\npass = "quantize-static"\n')
    assert read_error(read_recipe, path).endswith("unknown key; did you mean 'step'?")


def test_misspelled_devices_runtimes_and_metrics_get_a_suggestion():
    assert read_error(load_profile, "raspberrypi4").endswith("?")
    assert read_error(check_choice, "runtime", "lite-rt", ("litert", "auto")).endswith("'litert'?")
    assert read_error(get_metric, "top_1").endswith("'top1'?")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[data]\ncalibrate = 'x'", "data.calibrate: unknown key; did you mean 'calibration'?"),
        ("[data.preprocess]\nlay_out = 'NCHW'", "did you mean 'layout'?"),
        ("[bild]\nseed = 1", "did you mean 'build'?"),
    ],
)
def test_misspelled_keys_of_the_project_file_get_a_suggestion(text, meant):
    assert meant in read_error(lambda: validate(Project, tomllib.loads(text), where="edgekit.toml"))


def test_an_unrelated_word_gets_no_suggestion():
    assert did_you_mean("xyzzy", ["quantize-weights", "quantize-static"]) == ""
    assert read_error(parse_settings, "xyzzy", []) == "no pass named 'xyzzy'"
