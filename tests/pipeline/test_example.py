"""Example projects are copied completely, into a new or empty folder."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from edgekit.errors import UserError
from edgekit.pipeline.example import list_examples, write_example
from tests.builders.projects import DIGITS, ROOT, assert_refused, assert_untouched, edgekit, listing


def test_the_command_lists_examples_and_what_each_is():
    done = edgekit("example")
    assert done.code == 0
    assert "digits  A small convolutional network for the 8x8 handwritten digits" in done.out
    names = [each["name"] for each in json.loads(edgekit("example", "--json").out)]
    assert names == ["alarm", "bedside", "digits"]


@pytest.mark.parametrize("facts", list_examples(), ids=lambda facts: facts.name)
def test_every_example_is_described_in_one_line_and_is_a_project(tmp_path, facts):
    written = write_example(facts.name, tmp_path / "project")
    assert 10 < len(facts.summary) < 100
    assert "edgekit.toml" in written.files
    assert written.device in edgekit("devices", "list").out


def test_a_copy_holds_the_tracked_files_and_no_other(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files", "."], cwd=DIGITS, check=True, capture_output=True, text=True
    ).stdout.split()
    (DIGITS / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DIGITS / "build"):  # as after a build in the checkout
        written = write_example("digits", tmp_path / "project")
    copied = listing(tmp_path / "project")
    assert sorted(copied) == sorted(written.files) == sorted(tracked)
    assert copied == {name: listing(DIGITS)[name] for name in copied}
    assert list(tmp_path.iterdir()) == [tmp_path / "project"], "no scratch folder stays"


def test_the_command_prints_the_folder_and_the_next_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = edgekit("example", "digits", "my digits")
    assert done.code == 0
    assert done.out.splitlines() == [
        f"{tmp_path / 'my digits'} written (6 files)",
        "  next: edgekit build -C 'my digits' --device tablet-x86",
        "        edgekit bench 'my digits/build/tablet-x86' local",
    ]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_example("digits", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "model.onnx").is_file()


def test_a_folder_that_is_not_empty_is_not_changed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with assert_untouched(tmp_path):
        assert_refused("example", "digits", tmp_path / "mine", says="mine: is not empty")
        assert_refused(
            "example", "digits", tmp_path / "file", says="file: exists, and is not a folder"
        )
        assert_refused("example", "digits", tmp_path / "no" / "such", says="no: no such folder")


def test_the_current_folder_is_not_replaced_under_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused("example", "digits", ".", says=".: is the current folder")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(self: Path, data: bytes) -> int:
        if self.name == "model.onnx":
            raise OSError(28, "No space left on device", str(self))
        return real(self, data)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", fail)
    assert_refused("example", "digits", tmp_path / "project", says="No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_example_is_answered_with_those_that_exist(tmp_path):
    assert_refused("example", "digit", tmp_path / "x", says="did you mean 'digits'?")
    assert_refused("example", "digits", says="DIR is missing")
    with pytest.raises(UserError, match="no example named 'mnist'"):
        write_example("mnist", tmp_path / "x")


def test_the_readme_of_an_example_uses_no_path_of_the_checkout():
    for facts in list_examples():
        text = (ROOT / "examples" / facts.name / "README.md").read_text(encoding="utf-8")
        assert "examples/" not in text


def test_the_first_command_trains_the_model_that_an_example_lacks(tmp_path):
    done = edgekit("example", "bedside", tmp_path / "bedside")
    script = tmp_path / "bedside" / "train.py"

    assert f"next: python {script}\n" in done.out
    assert script.is_file()
