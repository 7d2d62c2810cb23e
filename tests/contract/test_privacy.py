"""What leaves the machine holds no real samples and no folders of it, and is said before."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from edgekit.compression.pass_specs import PASSES
from tests.builders.build_folders import read_page
from tests.builders.projects import PROFILE, copy_digits, edgekit

TELLTALE = "patient-mueller"
# Nothing listens there.
AWAY = "user@127.0.0.1:1"


def raises(source, settings, work):
    raise ZeroDivisionError(f"division by zero in {source.path} and {work.scratch}")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a project in a folder with a telltale name, built with a pass that crashes."""
    folder = tmp_path_factory.mktemp(TELLTALE)
    project = copy_digits(folder / "digits")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        patched.setenv("HOME", str(folder / "home"))
        patched.chdir(folder)
        spec = replace(PASSES["quantize-dynamic"], function=f"{__name__}:raises")
        patched.setitem(PASSES, "quantize-dynamic", spec)
        done = edgekit(
            *("build", "-C", project, "--json", "--runtime", "onnxruntime"),
            *("--data", folder / "digits" / "calib.npz", "--eval", folder / "digits" / "eval.npz"),
        )
    assert done.code == 0, done.err
    return project, json.loads(done.out)


def read_all(folder):
    """Yield the name and the bytes of every file of a build, also of those in the bundle file."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".edgekit":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path.name}/{name}", archive.read(name)


def test_bundle_results_and_report_name_no_folder_of_this_machine(built):
    project, facts = built

    out = project / "build" / PROFILE
    assert TELLTALE in facts["hints"]["int8-dynamic"], "the terminal names the whole path"
    files = dict(read_all(out))
    assert {"report.html", "results.jsonl", "manifest.json", "edgekit.lock"} <= files.keys()
    assert b"attach CACHE/crashes/" in files["results.jsonl"]
    for name, data in files.items():
        assert TELLTALE.encode() not in data, name


def test_a_bundle_holds_no_value_of_a_sample_and_says_so(built):
    project, _ = built
    out = project / "build" / PROFILE

    manifest = json.loads((out / "manifest.json").read_text())

    assert manifest["golden_kind"] == "synthetic"
    words, _, _ = read_page(out)
    assert "synthetic, drawn from statistics over the samples" in words
    golden = np.load(out / "golden.npz")
    images = np.load(project / "calib.npz")["image"]
    for drawn in golden["input:image"].reshape(2, -1):
        assert not any(np.array_equal(drawn, real.ravel()) for real in images)


def test_copies_of_samples_are_named_everywhere(tmp_path, monkeypatch):
    project = copy_digits(tmp_path / "digits")
    with (project / "edgekit.toml").open("a") as file:
        file.write('\n[golden]\nsamples = "calibration"\n')

    done = edgekit("build", "-C", project, "--step", "clean", "--allow-failing")

    out = project / "build" / PROFILE
    assert "the golden samples are coarse copies of two samples" in done.out
    assert json.loads((out / "manifest.json").read_text())["golden_kind"] == "calibration"
    assert "coarse copies of two calibration samples" in read_page(out)[0]
    pushed = edgekit("push", out, AWAY)
    assert "golden.npz holds coarse copies of two real samples" in pushed.err


def test_what_is_sent_is_said_before_a_host_is_asked(built):
    project, _ = built
    out = project / "build" / PROFILE

    pushed = edgekit("push", out, AWAY)

    assert pushed.code == 4
    said = pushed.err.splitlines()[0]
    assert said == (
        f"{AWAY}: sends model.onnx, golden.npz, manifest.json; no real samples are among them"
    )
    measured = edgekit("bench", out, AWAY, "--eval", project / "eval.npz")
    assert "eval.npz are sent too, and removed from the device at the end" in measured.err
    timed = edgekit("bench", out, AWAY)
    assert "sends model.onnx, inputs to time; no real samples are among them" in timed.err
    there = edgekit("build", "-C", project, "--on", AWAY)
    assert there.code == 4
    assert "the evaluation samples are sent too, and removed" in there.err


def test_json_of_push_and_bench_names_what_was_sent(built, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    out = built[0] / "build" / PROFILE

    pushed = edgekit("push", out, "local", "--json")
    measured = edgekit("bench", out, "local", "--eval", built[0] / "eval.npz", "--json")

    assert "sends" not in pushed.err, "nothing leaves this machine"
    (sent,) = [each["sent"] for each in json.loads(pushed.out)]
    assert sent == {"names": ["model.onnx", "golden.npz", "manifest.json"], "real_samples": ""}
    (sent,) = [each["sent"] for each in json.loads(measured.out)]
    assert "evaluation samples" in sent["real_samples"]
