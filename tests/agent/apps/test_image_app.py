"""An app with two models that takes pictures, from its package to its answers."""

import io

import numpy as np
import pytest
from PIL import Image

from edgekit_agent.apps.package_format import PackagedModel
from tests.builders.apps.model_folders import write_model_folder
from tests.builders.apps.packages import RUNTIME, draft_package, pack_wheel, read_model

pytestmark = pytest.mark.slow

COLORS = "g (float[N,8,8,3] x) => (float[N,3] y) { y = ReduceMean<axes=[1,2], keepdims=0>(x) }"
CODE = """
def answer(models, sample):
    color = models["main"].predict(sample)
    bright = models["bright"].predict(sample)["result"]["y"]
    return {**color, "brightness": bright}
"""


def make_bundle(folder, graph, outputs, **fields):
    """Write a build folder with golden samples; ``outputs`` computes what is right."""
    write_model_folder(folder, graph, **fields)
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    np.savez(folder / "golden.npz", **{"input:x": pixels, "output:y": outputs(pixels)})
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    colors = make_bundle(
        folder / "colors",
        COLORS,
        lambda x: x.mean((1, 2)),
        class_names=["red", "green", "blue"],
        answer={"kind": "class", "output": "y"},
        preprocess={"scale": 1 / 255},
    )
    bright = make_bundle(
        folder / "bright",
        "g (float[N,8,8,3] x) => (float[N,1] y) "
        "{ m = ReduceMean<axes=[1,2,3], keepdims=0>(x) s = Constant<value_ints=[-1,1]>() "
        "y = Reshape(m, s) }",
        lambda x: x.mean((1, 2, 3))[:, None],
        preprocess={"scale": 1 / 255},
    )
    models = tuple(
        PackagedModel(name, f"models/{name}", "onnxruntime") for name in ("main", "bright")
    )
    wheels = tuple(f"wheels/{name}.whl" for name in (*RUNTIME, "pillow"))
    draft = draft_package(
        colors, name="color", input="image", entry="main:answer", models=models, wheels=wheels
    )
    members = {
        **read_model(bright, "bright", packed=False),
        "app/main.py": CODE.encode(),
        "wheels/pillow.whl": pack_wheel("pillow"),
    }
    return draft.replace(members).write(folder / "color.run")


def test_pictures_are_answered_by_both_models_and_others_refused(device, file):
    assert device.install(file).returncode == 0
    checked = device.run("check", name="color")
    assert "main: works" in checked.stdout
    assert "bright: works" in checked.stdout
    with device.serve(name="color") as server:
        server.wait_until_ready()
        assert set(server.ask("GET", "/health").json["models"]) == {"main", "bright"}
        for color, (red, green, blue) in {
            "red": (250, 0, 0),
            "green": (0, 250, 0),
            "blue": (0, 0, 250),
        }.items():
            for kind in ("jpeg", "png", "bmp", "webp"):
                picture = draw(kind, (red, green, blue))
                found = server.predict(picture, f"image/{kind}").json
                assert (found["kind"], found["result"]) == ("class", color)
                assert found["classes"][0]["label"] == color
                assert found["brightness"] == pytest.approx([250 / 255 / 3], abs=0.02)
        assert server.ask("POST", "/predict", draw("png", (1, 9, 1))).json["result"] == "green"
        for wrong in (b"no picture", draw("png", (1, 2, 3))[:60], draw("jpeg", (1, 2, 3))[:200]):
            refused = server.predict(wrong, "image/png")
            assert (refused.status, refused.json["error"]["code"]) == (400, "bad_sample")
        assert server.predict(b"{}", "application/json").status == 415
        huge = io.BytesIO()
        Image.new("1", (30_000, 30_000)).save(huge, "PNG")
        assert server.predict(huge.getvalue(), "image/png").status == 400
        assert server.predict(draw("png", (200, 0, 0)), "image/png").status == 200


def draw(kind, color):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, kind.upper())
    return buffer.getvalue()
