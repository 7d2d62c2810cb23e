"""Pass and setting names of version 0.1 are accepted wherever a user types them, with one note."""

import json

import pytest

from tests.builders.projects import edgekit

NOTE = "edgekit: note: "
NEW = {
    "quantize": "quantize-static",
    "weights": "quantize-weights",
    "prune": "prune-weights",
    "tflite": "to-tflite",
    "onnx": "to-onnx",
}


def notes(done):
    return [line for line in done.err.splitlines() if line.startswith(NOTE)]


@pytest.mark.parametrize(("old", "new"), NEW.items())
def test_passes_describes_a_pass_by_its_old_name(old, new):
    done = edgekit("passes", old, "--json")
    assert done.code == 0
    assert json.loads(done.out)["name"] == new
    assert notes(done) == [
        f"{NOTE}`{old}` is now `{new}`; the old name works until the next release"
    ]
    assert done.out == edgekit("passes", new, "--json").out


def test_the_list_of_passes_has_the_new_names_and_no_note():
    done = edgekit("passes", "--json")
    assert not {each["name"] for each in json.loads(done.out)} & NEW.keys()
    assert notes(done) == []


def test_apply_takes_an_old_pass_and_an_old_setting_with_one_note(tiny):
    old = edgekit(
        "apply", "quantize", "-C", tiny, "model.onnx", "-o", "old.onnx", "--json",
        "--set", "equalise=false",
    )  # fmt: skip
    assert old.code == 0, old.err
    assert notes(old) == [
        f"{NOTE}`quantize` is now `quantize-static`, `equalise` is now `equalize`; "
        "the old names work until the next release"
    ]
    facts = json.loads(old.out)
    assert facts["pass"] == "quantize-static"
    assert "equalise" not in old.out
    new = edgekit(
        "apply", "quantize-static", "-C", tiny, "model.onnx", "-o", "new.onnx",
        "--set", "equalize=false",
    )  # fmt: skip
    assert notes(new) == []
    assert (tiny / "old.onnx").read_bytes() == (tiny / "new.onnx").read_bytes()


def test_a_note_stands_beside_the_error_of_a_wrong_setting():
    done = edgekit("apply", "weights", "m.onnx", "-o", "o.onnx", "--set", "bits=9")
    assert done.code == 2
    assert len(notes(done)) == 1
    assert "bits: must be a number from 1 to 8" in done.err


def test_one_setting_by_both_names_is_refused(tiny):
    (tiny / "r.toml").write_text(
        '[[step]]\npass = "quantize-static"\nequalise = true\nequalize = false\n'
    )
    for given in (
        ("--step", "quantize-static:equalise=true,equalize=false"),
        ("--recipe", tiny / "r.toml"),
    ):
        done = edgekit("build", "-C", tiny, *given)
        assert done.code == 2
        assert "equalize: given twice" in done.err


def test_a_build_takes_old_names_in_steps_and_in_a_recipe_file(tiny):
    (tiny / "r.toml").write_text(
        '[[step]]\npass = "clean"\n[[step]]\npass = "quantize-static"\nequalise = false\n'
    )
    by_file = edgekit("build", "-C", tiny, "--recipe", tiny / "r.toml", "--json")
    by_hand = edgekit(
        "build", "-C", tiny, "--step", "clean", "--step", "quantize:equalise=false", "--json"
    )
    for done in (by_file, by_hand):
        assert done.code == 0, done.err
        assert len(notes(done)) == 1
        assert '"quantize"' not in done.out
        assert "equalise" not in done.out
        assert json.loads(done.out)["chosen"] == "clean+quantize-static"


def test_a_misspelt_old_name_is_answered_with_the_new_one():
    done = edgekit("passes", "wieghts")
    assert done.code == 2
    assert "did you mean 'quantize-weights'?" in done.err
