"""A classifier of colors, packaged for browsers, and pages driven in headless Chromium."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgekit
from edgekit.packaging.app_settings import AppSettings
from edgekit.packaging.web.web_package import package_for_web
from edgekit.progress import ignore_progress
from tests.packaging.web.driven_app import AppDriver
from tests.pages.browser import open_browser

COLORS = ("blue", "green", "red")
SIDE, SAMPLES = 24, 200

PROJECT = f"""\
[model]
path = "model.onnx"

[data]
calibration = "calibration"
evaluation = "images"
metric = "top1"

[data.preprocess]
layout = "NCHW"
resize = {SIDE}
crop = {SIDE}
scale = {1 / 255!r}
mean = [0.5, 0.4, 0.45]
std = [0.25, 0.2, 0.3]
"""


def write_model(path):
    """Write a small network with random weights in front of the mean of each color."""
    random = np.random.default_rng(5)
    mixing = np.eye(3)[:, ::-1] + random.normal(0, 0.2, (3, 3))
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[:, :, 1, 1] = mixing
    kernel += random.normal(0, 0.01, kernel.shape).astype(np.float32)
    weights = {"w": kernel, "v": (2 * np.eye(3)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def write_images(folder, count, seed):
    """Write images whose strongest color is close to the others, so that some are mistaken."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    random = np.random.default_rng(seed)
    for number in range(count):
        kind = number % 3
        levels = random.uniform(90, 150, 3)
        levels[2 - kind] += 40
        size = random.integers(SIDE, 3 * SIDE, 2)
        pixels = levels + random.normal(0, 30, (*size, 3))
        path = folder / COLORS[kind] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def colors(tmp_path_factory, shared_cache):
    """A project of a classifier of images, built for tablets' browsers in float and in int8."""
    folder = tmp_path_factory.mktemp("colors")
    write_model(folder / "model.onnx")
    write_images(folder / "images", SAMPLES, 7)
    write_images(folder / "calibration", 30, 8)
    (folder / "edgekit.toml").write_text(PROJECT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(shared_cache))
        for name, steps in (("float", ["clean"]), ("int8", ["clean", "quantize-static"])):
            edgekit.build(folder=folder, device="tablet-web", steps=steps, out=f"build/{name}")
    return folder


@pytest.fixture(scope="session")
def package_colors(colors, web_runtime):
    """Return a function that packages one of the builds of the classifier."""

    def package(out, *, build="float", version="1.0.0", files=None, **settings):
        given = {"schema": 1, "name": "colors", "version": version, "input": "image", **settings}
        return package_for_web(
            AppSettings.model_validate(given),
            files or {},
            {"main": edgekit.open_bundle(colors / "build" / build)},
            web_runtime,
            out,
            tick=ignore_progress,
        )

    return package


@pytest.fixture(scope="session")
def browser():
    """A browser whose requests are logged."""
    with open_browser(logs=("browser", "performance")) as driver:
        yield driver


@pytest.fixture
def app_driver(browser):
    """A page in the browser, which knows no app yet."""
    driver = AppDriver(browser)
    driver.forget()
    yield driver
    driver.forget()
