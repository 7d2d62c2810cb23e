"""Terminals of other encodings, closed descriptors, full disks and closed pipes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

ENCODINGS = (
    {},
    {"LC_ALL": "C"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Create a model and its data under names of several alphabets."""
    folder = tmp_path_factory.mktemp("names") / "päth 模型 'q' $HOME;"
    folder.mkdir()
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[N, 24] x) => (float[N, 24] y) { y = MatMul(x, w) }"
    )
    random = np.random.default_rng(0)
    weights = random.standard_normal((24, 24)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    (folder / "mödel 型.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "c ä.npz", x=random.standard_normal((24, 24)).astype(np.float32))
    return folder


def edgekit(*arguments, **more):
    env = {**os.environ, **more.pop("env", {})}
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", *map(os.fsencode, arguments)],
        capture_output=True,
        env=env,
        check=False,
        **more,
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("env", ENCODINGS, ids=str)
def test_every_encoding_shows_every_name(folder, env):
    model = str(folder / "mödel 型.onnx")
    done = edgekit("inspect", model, env=env)
    assert (done.returncode, done.stderr.count(b"edgekit:")) == (0, 0)
    done = edgekit("inspect", str(folder / "absent 型.onnx"), env=env)
    assert done.returncode == 2
    assert b"absent " in done.stderr


@pytest.mark.parametrize("env", [ENCODINGS[2], ENCODINGS[4]], ids=str)
def test_files_under_such_names_are_read_and_written(folder, tmp_path, env):
    out = tmp_path / "q ü型.onnx"
    given = ("--data", str(folder / "c ä.npz"), "-o", str(out))
    assert (
        edgekit(
            "apply", "quantize-static", str(folder / "mödel 型.onnx"), *given, env=env
        ).returncode
        == 0
    )
    onnx.load(out)


REDIRECTIONS = (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "| true", "2>&1 | true")


@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize(
    ("arguments", "code"), [("passes", 0), ("--help", 0), ("inspect /absent", 2)]
)
def test_a_closed_output_does_not_change_the_exit_code(tmp_path, redirection, arguments, code):
    errors = tmp_path / "errors"
    script = f"set -o pipefail; {{ {sys.executable} -m edgekit {arguments} {redirection} ; }}"
    done = subprocess.run(
        ["bash", "-c", f"{script} 2>{errors} >/dev/null"], check=False, stdin=subprocess.DEVNULL
    )
    said = errors.read_text()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert done.returncode == code


@pytest.mark.parametrize("arguments", [["passes"], ["passes", "--json"], ["--help"]])
def test_a_result_that_cannot_be_stored_is_an_error(arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1
    assert b"cannot be written: No space left" in done.stderr


def test_a_file_opened_by_a_command_never_becomes_its_output(folder, tmp_path):
    out = tmp_path / "q.onnx"
    script = f"{sys.executable} -m edgekit apply clean m*.onnx -o {out} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], cwd=folder, check=False).returncode == 0
    onnx.checker.check_model(str(out))


@pytest.mark.parametrize("arguments", [["inspect", b"b\xff.onnx"], ["build", "-C", b"\xff"]])
def test_a_name_that_is_not_utf8_causes_one_line(tmp_path, arguments):
    done = edgekit(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert b"this name is not valid UTF-8" in done.stderr


def test_a_removed_folder_or_one_with_such_a_name_causes_one_line(tmp_path):
    for name, message in ((b"gone", b"current folder"), (b"\xff", b"not valid UTF-8")):
        place = os.fsencode(tmp_path) + b"/" + name
        script = b"mkdir %s; cd %s; rmdir ../gone; exec %s -m edgekit passes" % (
            place,
            place,
            os.fsencode(sys.executable),
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (2, False)
        assert message in done.stderr
