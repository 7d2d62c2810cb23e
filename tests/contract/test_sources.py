"""Models of other tools are accepted wherever an .onnx file is."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.builders.projects import PROFILE, assert_refused, assert_untouched, edgekit, spawn

TORCH = """
import os
import torch

print("a line that no one asked for")
os.system("echo one more line")

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(4, 16), torch.nn.Linear(16, 3)
    def forward(self, features):
        return self.outer(torch.relu(self.inner(features)))

def net():
    torch.manual_seed(0)
    return Net(), torch.randn(1, 4)
"""


@pytest.fixture
def project(tiny):
    """The tiny project with a pickled pipeline, and its samples labeled by it."""
    x = np.load(tiny / "eval.npz")["x"]
    labels = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.5)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, labels)
    (tiny / "model.pkl").write_bytes(pickle.dumps(fitted))
    np.savez(tiny / "eval.npz", x=x, label=fitted.predict(x))
    return tiny


def manifest(project):
    return json.loads((project / "build" / PROFILE / "manifest.json").read_text())


def test_a_trusted_pickle_is_built_once_and_the_bundle_says_what_it_was(project):
    done = edgekit("build", "-C", project, "model.pkl", "--trust-pickle", "--json")
    assert done.code == 0, done.err
    assert "converting model.pkl" in done.err
    facts = json.loads(done.out)
    original = facts["candidates"][0]["measurements"][0]
    assert original["correct"] == original["n"] == 40

    source = manifest(project)["provenance"]["source"]
    assert source["file"] == "model.pkl"
    assert source["converted"]["tool"] == "skl2onnx"
    assert {"scikit-learn", "skl2onnx"} <= set(source["converted"]["versions"])

    again = edgekit("build", "-C", project, "model.pkl", "--trust-pickle", "--json")
    assert again.code == 0
    assert "converting" not in again.err
    assert manifest(project)["provenance"]["source"] == source


def test_trust_may_be_written_in_the_project(project):
    settings = (project / "edgekit.toml").read_text()
    (project / "edgekit.toml").write_text(
        settings.replace('path = "model.onnx"', 'path = "model.pkl"\ntrust_pickle = true')
    )
    done = edgekit("apply", "clean", "-C", project, "model.pkl", "-o", "clean.onnx")
    assert done.code == 0, done.err
    (project / "edgekit.toml").unlink()
    begun = edgekit("init", "-C", project, "model.pkl", "--trust-pickle")
    assert begun.code == 0, begun.err
    text = (project / "edgekit.toml").read_text()
    assert 'path = "model.pkl"\ntrust_pickle = true\n' in text


def test_a_pickle_is_not_opened_without_trust_and_its_code_does_not_run(project):
    class Harm:
        def __reduce__(self):
            return (open, (str(project / "harm"), "w"))

    for suffix in ("pkl", "joblib", "pt", "pth", "pt2"):
        (project / f"bad.{suffix}").write_bytes(pickle.dumps(Harm()))
    with assert_untouched(project):
        for suffix in ("pkl", "joblib", "pt", "pth", "pt2"):
            done = assert_refused(
                "inspect", "-C", project, f"bad.{suffix}", says="contains Python pickles"
            )
            assert "--trust-pickle" in done.err
        assert_refused("build", "-C", project, "bad.pkl", says="contains Python pickles")
        assert_refused("bench", "-C", project, "bad.pkl", "local", says="contains Python pickles")
        assert_refused(
            "apply",
            "clean",
            "-C",
            project,
            "bad.pkl",
            "-o",
            "o.onnx",
            says="contains Python pickles",
        )


def test_a_torch_function_is_built_and_what_it_prints_stays_out_of_the_json(tiny):
    (tiny / "nets.py").write_text(TORCH)
    done = spawn(
        "build", "-C", tiny, "nets:net", "--json", "--step", "quantize-static", "--allow-failing"
    )
    assert done.code in (0, 3), done.err
    facts = json.loads(done.out)
    assert next(c["name"] for c in facts["candidates"]) == "original"
    assert "no one asked for" not in done.out + done.err
    assert "one more line" not in done.out + done.err
    assert [line for line in done.err.splitlines() if "Warning" in line] == []
    if (tiny / "build" / PROFILE / "manifest.json").exists():
        made = manifest(tiny)
        assert made["provenance"]["source"]["file"] == "nets:net"
        assert [i["name"] for i in made["inputs"]] == ["features"]


def write_sources(folder):
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("config.json", "{}")
    (folder / "nets.py").write_text(TORCH)
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"x")
    (folder / "model.pkl").write_bytes(pickle.dumps({}))


@pytest.mark.parametrize(
    ("given", "blocked", "package", "extra"),
    [
        ("model.keras", ("tensorflow", "h5py"), "tensorflow", "tensorflow"),
        ("saved", ("tensorflow",), "tensorflow", "tensorflow"),
        ("nets:net", ("torch",), "torch", "torch"),
        ("model.pkl", ("joblib",), "scikit-learn", "sklearn"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(tiny, given, blocked, package, extra):
    write_sources(tiny)
    site = tiny.parent / "site"
    site.mkdir()
    for name in blocked:
        message = f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n"
        (site / f"{name}.py").write_text(message)
    done = spawn("inspect", "-C", tiny, given, "--trust-pickle", PYTHONPATH=_path(site))
    assert (done.code, done.out) == (2, ""), done.err
    stages = ("reading the model", "converting")
    said = [line for line in done.err.splitlines() if not line.startswith(stages)]
    assert said == [
        f"edgekit: {package} is not installed",
        f"  pip install 'edgekit[{extra}]'",
        f"  in the folder {tiny}",
    ]


def _path(site):
    return os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("none.keras", "none.keras: cannot be read: No such file"),
        ("none.h5", "none.h5: cannot be read: No such file"),
        ("folder", "a folder, not a model file"),
        ("folder#serving_default", "cannot be read: No such file"),
        ("no_such:function", "no module 'no_such'"),
        ("nets:missing", "nets has no 'missing'"),
        ("nets:raises", "ValueError: boom (nets.py, line 4)"),
        ("broken:function", "SyntaxError"),
    ],
)
def test_missing_sources_are_reported_in_one_line(tiny, given, says):
    (tiny / "folder").mkdir()
    (tiny / "nets.py").write_text("\n\ndef raises():\n    raise ValueError('boom')\n")
    (tiny / "broken.py").write_text("def function(:\n")
    assert_refused("inspect", "-C", tiny, given, says=says)
