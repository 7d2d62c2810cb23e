"""The part of an image that the mask of a model covers."""

import io

import pytest

from edgekit_agent.session import Session
from tests.builders.apps.model_folders import write_model_folder
from tests.web.step_vectors import make_picture

image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

SQUARE = "g (float[N,20,20,3] x) => (float[N,20,20,3] y) <float k = {0.1}> { y = Mul(x, k) }"
MASK = {"answer": {"kind": "mask", "class_axis": 2}}


def find_region(folder, preprocess, width, height):
    write_model_folder(folder, SQUARE, preprocess={"scale": 1 / 255, **preprocess}, **MASK)
    file = io.BytesIO()
    image.fromarray(make_picture(height, width, 1)).save(file, "PNG")
    with Session(str(folder)) as session:
        result = session.predict(file.getvalue())["result"]
    assert (result["width"], result["height"]) == (20, 20)
    return result.get("region")


def test_a_letterbox_reaches_beyond_the_image(tmp_path):
    # 40 x 20 pixels are halved to 20 x 10, with 5 rows of border above and below.
    region = find_region(tmp_path, {"resize_mode": "letterbox"}, 40, 20)
    assert region == [0, -10, 40, 30]


def test_a_center_crop_is_inside_of_the_image(tmp_path):
    # 60 x 30 pixels are scaled to 40 x 20, of which the middle 20 x 20 are cut.
    region = find_region(tmp_path, {"resize": 20, "crop": 20}, 60, 30)
    assert region == [15, 0, 45, 30]


def test_a_stretched_image_is_covered_whole(tmp_path):
    assert find_region(tmp_path, {"resize_mode": "stretch"}, 60, 30) is None
