"""The examples of apps train, build, and answer through their own functions."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from edgekit.packaging.app_settings import load_app
from edgekit_agent import Session

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
RIGHT = {"bedside": 0.3, "alarm": 0.6}  # after two passes over the data; chance is .1 and .5


@pytest.fixture(scope="module", params=RIGHT)
def project(request, tmp_path_factory):
    """Return the name of an example, and its folder with trained and built model."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("examples") / request.param
    shutil.copytree(EXAMPLES / request.param, folder)
    command = [sys.executable, "-W", "ignore", "train.py", "--epochs", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    edgekit.build(folder=folder, steps=["clean"])
    return request.param, folder


def load_functions(folder):
    spec = importlib.util.spec_from_file_location("app_of_example", folder / "app" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_app_answers_as_often_right_as_the_build_says(project):
    name, folder = project
    app = load_functions(folder)
    settings = load_app(folder / "app")
    session = Session(str(folder / "app" / settings.models["main"]))
    files = sorted((folder / "eval").glob("*/*"))[::5]

    labels = session.settings.class_names
    answers = [app.answer({"main": session}, file.read_bytes())["result"] for file in files]

    right = sum(
        answer == labels[int(file.parent.name)] for answer, file in zip(answers, files, strict=True)
    )
    assert right / len(files) > RIGHT[name]
