"""A web app of two models: the code of the how-to page reads what a detector has found."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekit
from edgekit.packaging.app_settings import AppSettings
from edgekit.packaging.web.web_package import package_for_web
from edgekit.progress import ignore_progress
from edgekit_agent.session import Session
from tests.builders.apps.projects import build_application, write_finder
from tests.packaging.web.served_app import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]
_PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "app-in-a-browser.md"


def _read_example():
    blocks = re.findall(r"```text[^\n]*\n(.*?)```", _PAGE.read_text(), re.S)
    return next(block for block in blocks if "cutImage" in block).encode()


def _draw_photo():
    values = np.random.default_rng(0).integers(0, 60, (90, 70, 3))
    values[20:60, 12:36] = (235, 250, 255)
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_detector_and_a_reader_of_what_it_finds(
    app_driver, colors, web_runtime, tmp_path_factory, tmp_path
):
    project = tmp_path_factory.mktemp("finder")
    write_finder(project)
    folders = {"detector": build_application(project), "reader": colors / "build" / "float"}
    settings = {"schema": 1, "name": "finder", "version": "1.0.0", "input": "image"}
    package_for_web(
        AppSettings.model_validate(settings),
        {"answer.js": _read_example()},
        {name: edgekit.open_bundle(folder) for name, folder in folders.items()},
        web_runtime,
        tmp_path / "app",
        tick=ignore_progress,
    )
    photo = _draw_photo()
    with serve(tmp_path / "app") as server:
        app_driver.open(server.addresses[0])
        found = app_driver.predict(photo)

    detector, reader = (Session(str(folder)) for folder in folders.values())
    wanted = detector.predict(photo)
    assert wanted["result"], "the detector finds the rectangle"
    image = Image.open(io.BytesIO(photo))
    for each, expected in zip(found["result"], wanted["result"], strict=True):
        assert each["box"] == pytest.approx(expected["box"], abs=1e-3)
        left, top, right, bottom = expected["box"]
        part = image.crop((int(left), int(top), math.ceil(right), math.ceil(bottom)))
        file = io.BytesIO()
        part.save(file, "PNG")
        assert each["label"] == reader.predict(file.getvalue())["result"]
