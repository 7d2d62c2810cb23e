"""Wheels are downloaded with the available pip; without one, nothing is sent."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.builders.environments import ROOT, get_plain_environment, make_environment
from tests.builders.servers import make_bundle
from tests.remote.test_wheels import NATIVE, wheel

FETCH = """
import sys
from pathlib import Path
from edgekit.config.profile import RuntimeSpec
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.wheels import fetch_runtime

pi = DevicePython(version="3.11.2", arch="aarch64", glibc=(2, 36), kernel="6.1")
found = fetch_runtime(
    "onnxruntime", RuntimeSpec(version=">=1.15"), pi, tested_version="", cache=Path(sys.argv[1])
)
print(*(path.name.split("-")[0] for path, _ in found.files))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The commands of an environment without pip."""
    return make_environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def index(tmp_path):
    folder = tmp_path / "index"
    wheel(folder, "numpy", "2.4.0", NATIVE)
    wheel(folder, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    return folder


def run(bare, *arguments, **variables):
    return subprocess.run(
        [str(bare / "python"), *map(str, arguments)],
        env=get_plain_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )


def pack_pip(folder):
    """A wheel of the pip that is installed here, for uv to find without a network."""
    pip = importlib.metadata.distribution("pip")
    names = [str(f) for f in pip.files if not str(f).startswith("..") and f.suffix != ".pyc"]
    record = f"pip-{pip.version}.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"pip-{pip.version}-py3-none-any.whl", "w") as archive:
        for name in names:
            if name != record:
                archive.write(pip.locate_file(name), name)
        archive.writestr(record, "".join(f"{name},,\n" for name in names))


def test_without_pip_and_uv_a_push_fails_before_anything_is_sent(bare, tmp_path):
    make_bundle(tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    manifest["profile"]["runtimes"]["onnxruntime"]["version"] = "==1.15.*"  # not the one here
    (tmp_path / "bundle/manifest.json").write_text(json.dumps(manifest))
    arguments = ("push", tmp_path / "bundle", "local", "--home", tmp_path / "device")
    done = run(bare, "-m", "edgekit", *arguments, PATH="/usr/bin:/bin")
    assert done.returncode == 2, done.stderr
    assert "pip 24.0 or newer is needed" in done.stderr
    assert "has no pip, and uv is not on PATH" in done.stderr
    assert "ensurepip" in done.stderr
    assert "Traceback" not in done.stderr
    sent = [p.name for p in (tmp_path / "device").rglob("*") if p.suffix in (".whl", ".onnx")]
    assert not sent


def test_without_pip_uv_runs_one(bare, tmp_path, index):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    pack_pip(index)
    done = run(
        *(bare, "-c", FETCH, tmp_path / "cache"),
        PATH=f"{os.path.dirname(uv)}:/usr/bin:/bin",  # noqa: PTH120
        UV_CACHE_DIR=str(tmp_path / "uv"),
        UV_NO_INDEX="1",
        UV_FIND_LINKS=str(index),
        UV_NO_CONFIG="1",
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(index),
        PIP_CONFIG_FILE="/dev/null",
    )
    assert done.stdout.split() == ["onnxruntime", "numpy"], done.stderr


def test_a_pip_that_is_too_old_is_not_used(bare, tmp_path, index):
    old = tmp_path / "old"
    (old / "pip-21.0.dist-info").mkdir(parents=True)
    (old / "pip-21.0.dist-info" / "METADATA").write_text("Name: pip\nVersion: 21.0\n")
    (old / "pip.py").write_text("raise SystemExit('must not run')\n")
    arguments = ("-c", FETCH, tmp_path / "cache")
    done = run(bare, *arguments, PATH="/usr/bin:/bin", PYTHONPATH=str(old))
    assert "has pip 21.0, which is too old, and uv is not on PATH" in done.stderr
    assert "must not run" not in done.stderr


def test_installing_edgekit_replaces_no_pip():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "pip" not in {Requirement(text).name for text in project["dependencies"]}
