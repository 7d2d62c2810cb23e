"""Invalid settings, paths and folders: one message names every error, nothing is written."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.builders.projects import PROFILE, assert_refused, assert_untouched, command, edgekit


def refused_build(project, *arguments, says):
    with assert_untouched(project):
        return assert_refused("build", "-C", project, *arguments, says=says)


# ---------------------------------------------------------------- edgekit.toml


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model\npath = 1", "edgekit.toml: not TOML: "),
        ("[model]\npath = 'a'\npath = 'b'\n", "edgekit.toml: not TOML: "),
        ("[model]\npath = 3\n", "model.path: "),
        ("[modle]\npath = 'model.onnx'\n", "modle: unknown key"),
        ("model = 'model.onnx'\n", "model: "),
        ("[data]\nmetric = 1\n", "data.metric: "),
        ("[data.preprocess]\nlayout = 'CHWN'\n", "data.preprocess.layout: "),
        ("[data.preprocess]\nresize = 0\n", "data.preprocess.resize: "),
        ("[gate]\nmax_drop_points = -1.0\n", "gate.max_drop_points: "),
        ("[gate]\nmax_drop_points = nan\n", "gate.max_drop_points: "),
        ("[gate]\nmax_drop_points = inf\n", "gate.max_drop_points: "),
        ("[gate]\nmax_drop_points = '1'\n", "gate.max_drop_points: "),
        ("[build]\nseed = 1.5\n", "build.seed: "),
        ("[build]\ndevice = 7\n", "build.device: "),
        ("[model]\ndims = { N = 'many' }\n", "model.dims.N: "),
        ("[model]\ndims = { N = 0 }\n", "model.dims.N: "),
    ],
)
def test_a_wrong_project_file_is_refused(tiny, text, says):
    (tiny / "edgekit.toml").write_text(text)
    refused_build(tiny, tiny / "model.onnx", says=says)


@pytest.mark.parametrize(
    ("table", "setting"),
    [("[data]\nmetric = 'f1'\n", "data.metric"), ("[gate.guards]\nf1 = 1\n", "gate.guards.f1")],
)
def test_an_unknown_metric_of_a_project_file_is_refused(tiny, table, setting):
    file = tiny / "edgekit.toml"
    text = file.read_text()
    file.write_text(text.replace("[data]\n", table) if "[data]" in table else text + table)
    refused_build(tiny, says=f"edgekit.toml: {setting}: unknown metric 'f1'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[postprocess]\nkind = 'sofmax'\n", "got 'sofmax'; did you mean 'softmax'?"),
        ("[data.preprocess]\norder = 'rgb'\n", "got 'rgb'; did you mean 'RGB'?"),
        ("[data.audio]\nspectrogram = 'mell'\n", "got 'mell'; did you mean 'mel'?"),
        ("[postprocess]\nkind = 'softmax'\noutputs = ['yy']\n", "'yy'; did you mean 'y'?"),
        ("[model.inputs.xx]\nconstant = 1\n", "no input 'xx'; did you mean 'x'?"),
    ],
    ids=["kind", "order", "spectrogram", "output", "input"],
)
def test_a_misspelled_word_of_a_setting_comes_with_the_right_one(tiny, text, says):
    with (tiny / "edgekit.toml").open("a") as file:
        file.write(text)
    refused_build(tiny, says=says)


def test_a_project_file_that_is_not_text_is_refused(tiny):
    (tiny / "edgekit.toml").write_bytes(b"\xff\xfe[model]")
    refused_build(tiny, says="edgekit.toml: not TOML: ")
    (tiny / "edgekit.toml").unlink()
    (tiny / "edgekit.toml").mkdir()
    refused_build(tiny, says="edgekit.toml: cannot be read: Is a directory")


def test_all_errors_of_a_project_file_are_named_at_once(tiny):
    (tiny / "edgekit.toml").write_text(
        "[model]\npath = 1\n[data]\nmetric = 1\nsplits = 3\n[gate]\nmax_drop_points = -1.0\n"
    )
    done = refused_build(tiny, says="edgekit.toml:\n")
    for path in ("model.path: ", "data.metric: ", "data.splits: unknown key", "gate.max_drop"):
        assert f"\n  {path}" in done.err


def test_an_output_that_the_model_does_not_have_is_refused(tiny):
    settings = (tiny / "edgekit.toml").read_text()
    (tiny / "edgekit.toml").write_text(settings.replace("[data]\n", "[data]\noutput = 'logits'\n"))
    done = refused_build(tiny, says="data.output: the model has no output 'logits'")
    assert "its outputs: y" in done.err
    with assert_untouched(tiny):
        assert_refused(
            "bench", "-C", tiny, tiny / "model.onnx", "local", "--eval", "eval.npz", says="'logits'"
        )


def test_a_missing_project_folder_is_named(tiny):
    nowhere = tiny.parent / "nowhere"
    for asked in (("build",), ("init",), ("inspect", tiny / "model.onnx")):
        assert_refused(*asked, "-C", nowhere, says=f"{nowhere}: no such folder")
    assert not nowhere.exists()


def test_a_folder_without_a_project_says_what_is_missing(workplace):
    with assert_untouched(workplace):
        assert_refused("build", says="no device")
        assert_refused("build", "--device", PROFILE, says="no model")


# ---------------------------------------------------------------- devices


def test_an_unknown_device_is_refused(tiny):
    done = refused_build(tiny, "--device", "toaster", says="no device profile named 'toaster'")
    assert PROFILE in done.err
    with assert_untouched(tiny):
        assert_refused("inspect", tiny / "model.onnx", "--device", "toaster", says="'toaster'")
        assert_refused("devices", "show", "toaster", says="'toaster'")
        assert_refused(
            "devices", "check", tiny / "none.toml", says="none.toml: cannot read the profile"
        )
        assert_refused("devices", "check", tiny, says="cannot read the profile")
    refused_build(tiny, "--device", "none.toml", says="edgekit: none.toml: cannot read the profile")
    settings = (tiny / "edgekit.toml").read_text()
    (tiny / "edgekit.toml").write_text(settings.replace(PROFILE, "none.toml"))
    refused_build(tiny, says="edgekit: none.toml: cannot read the profile")


def test_all_errors_of_a_profile_are_named_at_once(tiny):
    profile = tiny / "own.toml"
    profile.write_text(
        "schema = 1\nname = 'My Device'\nsummary = 's'\ncolor = 'red'\n"
        "[hardware]\narch = 'z80'\ncpu = 'c'\ncores = 0\nthreads = 1\n"
        "[runtimes.tensorrt]\nversion = '>=1'\n[runtimes.litert]\nversion = 'newest'\n"
        "[budget]\nmodel_mib = nan\nlatency_p95_ms = -3.0\n"
    )
    for arguments in (
        ("devices", "check", profile),
        ("build", "-C", tiny, "--device", profile),
        ("inspect", tiny / "model.onnx", "--device", profile),
    ):
        with assert_untouched(tiny):
            done = assert_refused(*arguments, says="own.toml:\n")
        for path in (
            "name: ",
            "color: unknown key",
            "hardware.arch: ",
            "hardware.cores: ",
            "hardware.memory_mib: missing",
            "runtimes.tensorrt: ",
            "runtimes.litert.version: ",
            "budget.model_mib: ",
            "budget.latency_p95_ms: ",
        ):
            assert f"\n  {path}" in done.err, done.err


def test_a_profile_that_is_not_toml_is_refused(tiny):
    (tiny / "own.toml").write_text("schema = \n")
    with assert_untouched(tiny):
        assert_refused("devices", "check", tiny / "own.toml", says="own.toml: not TOML: ")
    (tiny / "own.toml").write_bytes(b"\xff\xff")
    refused_build(tiny, "--device", tiny / "own.toml", says="own.toml: cannot read the profile")


# ---------------------------------------------------------------- places to write to


def test_an_output_folder_that_cannot_be_written_is_reported_before_any_work(tiny):
    (tiny / "file").write_text("here already")
    for out in (tiny / "file", tiny / "file" / "deeper" / "out"):
        done = refused_build(tiny, "--out", out, says="cannot be written")
        assert "score" not in done.err
    (tiny / "build").write_text("a file, not a folder")
    refused_build(tiny, says="cannot be written")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_folder_that_takes_no_files_even_from_root_is_reported(tiny, monkeypatch):
    model = tiny / "model.onnx"
    refused_build(tiny, "--out", "/proc/a/b", says="no file can be created in /proc")
    with assert_untouched(tiny):
        assert_refused("apply", "clean", model, "-o", "/proc/a.onnx", says="created in /proc")
        assert_refused("example", "digits", "/proc/a", says="no file can be created in /proc")
        monkeypatch.setenv("EDGEKIT_CACHE", "/proc/a")
        assert_refused("apply", "clean", model, "-o", tiny / "o.onnx", says="created in /proc")


def test_an_error_in_the_folder_of_an_option_names_the_folder(tiny):
    done = assert_refused("build", "-C", tiny, "none.onnx", says="none.onnx: cannot be read")
    assert done.err.splitlines()[-1] == f"  in the folder {tiny}"
    assert "in the folder" not in assert_refused("inspect", "none.onnx", says="none.onnx").err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("build", "--out", ""), "empty argument after --out"),
        (("build", "--device="), "empty argument of --device"),
        (("inspect", ""), "empty argument after inspect"),
        (("status", "local", "--home", ""), "empty argument after --home"),
    ],
)
def test_an_empty_argument_is_refused(tiny, monkeypatch, arguments, says):
    monkeypatch.chdir(tiny)
    with assert_untouched(tiny):
        assert_refused(*arguments, says=says)


def test_a_cache_that_cannot_be_written_is_reported(tiny, monkeypatch):
    (tiny / "file").write_text("here already")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tiny / "file" / "cache"))
    refused_build(tiny, says="cannot be written")


def test_a_build_never_replaces_files_of_the_user(tiny):
    done = refused_build(
        tiny, "--out", tiny, says="the build would replace model.onnx, which edgekit did not write"
    )
    assert "--out" in done.err
    (tiny / "kept").mkdir()
    (tiny / "kept" / "manifest.json").write_text("{}")
    refused_build(
        tiny,
        "--out",
        tiny / "kept",
        says="the build would replace manifest.json, which edgekit did not write",
    )


def test_init_leaves_a_project_file_as_it_is(tiny):
    with assert_untouched(tiny):
        assert_refused("init", "-C", tiny, says="edgekit.toml: exists already")


def test_init_asks_which_model_where_there_are_none_or_several(tiny):
    (tiny / "edgekit.toml").unlink()
    (tiny / "other.onnx").write_bytes((tiny / "model.onnx").read_bytes())
    with assert_untouched(tiny):
        assert_refused("init", "-C", tiny, says="2 model files (model.onnx, other.onnx)")
    (tiny / "other.onnx").unlink()
    (tiny / "model.onnx").unlink()
    with assert_untouched(tiny):
        assert_refused("init", "-C", tiny, says="contains no model file")


@pytest.mark.parametrize("name", ['we"ird.onnx', "back\\slash.onnx", "ümläut 😀.onnx", "a#b.onnx"])
def test_init_copes_with_any_file_name(tiny, name):
    (tiny / "edgekit.toml").unlink()
    (tiny / "model.onnx").rename(tiny / name)
    done = edgekit("init", "-C", tiny)
    assert done.code == 0, done.err
    found = edgekit("build", "-C", tiny, "--device", "toaster")
    assert "toaster" in found.err
    assert edgekit("inspect", "-C", tiny, tiny / name, "--json").code == 0


# ---------------------------------------------------------------- builds and bundles


def test_a_report_of_a_folder_without_a_build_is_refused(tiny):
    with assert_untouched(tiny):
        assert_refused("report", tiny, says="not a build folder")
        assert_refused("report", tiny / "nowhere", says="not a build folder")
        assert_refused("report", tiny / "model.onnx", says="not a build folder")
    (tiny / "results.jsonl").write_text(json.dumps({"kind": "candidate"}) + "\n")
    with assert_untouched(tiny):
        assert_refused("report", tiny, says="the file contains no build")
    (tiny / "results.jsonl").write_text("\n")
    with assert_untouched(tiny):
        assert_refused("report", tiny, says="the file contains no build")


def test_an_output_that_cannot_be_written_ends_with_2(workplace):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("devices", "list"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "edgekit: the output: cannot be written: No space left on device\n"


def test_a_closed_pipe_is_not_an_error(workplace):
    with subprocess.Popen(
        command("devices", "show", PROFILE), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
