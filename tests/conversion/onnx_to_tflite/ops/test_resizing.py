"""Resized images agree with onnxruntime."""

import numpy as np
import pytest

from tests.builders.both_runtimes import agree, noise, operators
from tests.builders.tiny import proto


def resize(attributes, *, sizes=None, scales=None, opset=18, shape=(1, 2, 5, 7)):
    given = {"s": np.array(sizes)} if sizes else {"r": np.array(scales, np.float32)}
    inputs = "x, , , s" if sizes else "x, , r"
    text = f"agraph (float{list(shape)} x) => (y) {{ y = Resize<{attributes}>({inputs}) }}"
    return proto(text, weights=given, opset=opset)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    "transformation",
    ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"],
)
@pytest.mark.parametrize("sizes", [(1, 2, 10, 9), (1, 2, 3, 4)])
def test_interpolation_is_that_of_onnxruntime(mode, transformation, sizes):
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{transformation}"'
    agree(resize(attributes, sizes=sizes), x=noise(1, 2, 5, 7), atol=1e-4)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transformation", ["half_pixel", "align_corners", "asymmetric"])
def test_nearest_entries_are_those_of_onnxruntime(rounding, transformation):
    attributes = (
        f'mode = "nearest", nearest_mode = "{rounding}",'
        f' coordinate_transformation_mode = "{transformation}"'
    )
    agree(resize(attributes, sizes=(1, 2, 11, 4)), x=noise(1, 2, 5, 7))


def test_one_axis_of_a_sequence_is_resized():
    made = resize('mode = "linear"', scales=[1, 1, 2.0], shape=(1, 3, 8))
    agree(made, x=noise(1, 3, 8))


def test_usual_upscaling_is_one_operator():
    made = resize('mode = "nearest"', scales=[1, 1, 2, 2])
    agree(made, x=noise(1, 2, 5, 7))
    assert operators(made)["RESIZE_NEAREST_NEIGHBOR"] == 1
    made = resize('mode = "linear"', scales=[1, 1, 2, 2])
    agree(made, x=noise(1, 2, 5, 7))
    assert operators(made)["RESIZE_BILINEAR"] == 1


def test_shrinking_with_a_wider_filter_is_that_of_onnxruntime():
    agree(resize('mode = "linear", antialias = 1', sizes=(1, 2, 2, 3)), x=noise(1, 2, 5, 7))


def test_scales_of_older_opsets_are_read():
    text = 'agraph (float[1, 2, 4, 4] x) => (y) { y = Upsample<mode = "nearest">(x, r) }'
    scales = {"r": np.array([1, 1, 2, 3], np.float32)}
    agree(proto(text, weights=scales, opset=9), x=noise(1, 2, 4, 4))
    text = text.replace("Upsample", "Resize").replace("nearest", "linear")
    agree(proto(text, weights=scales, opset=10), x=noise(1, 2, 4, 4))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_images_sampled_on_a_grid_are_those_of_onnxruntime(mode, padding, corners):
    attributes = f'mode = "{mode}", padding_mode = "{padding}", align_corners = {corners}'
    text = f"""agraph (float[2, 3, 5, 4] x, float[2, 6, 7, 2] g) => (y) {{
        y = GridSample<{attributes}>(x, g) }}"""
    agree(proto(text, opset=20, ir=9), x=noise(2, 3, 5, 4), g=noise(2, 6, 7, 2, seed=1), atol=1e-4)
