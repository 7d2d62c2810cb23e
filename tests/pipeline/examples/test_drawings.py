"""Drawings of inputs and answers show what arrays hold."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edgekit.metrics.answers import Boxes, Classes, Text, Values
from edgekit.pipeline.examples.drawings import Pen
from edgekit.pipeline.examples.pictures import draw_image, draw_mask


def decode(picture):
    return np.array(Image.open(io.BytesIO(base64.b64decode(picture.png))).convert("RGB"))


@pytest.mark.parametrize(
    "shape", [(40, 60, 3), (3, 40, 60), (1, 40, 60, 3), (1, 3, 40, 60)]
)  # fmt: skip
def test_channels_first_or_last_give_the_same_picture(shape):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    array = image.transpose(2, 0, 1) if 3 in shape[:2] else image

    drawn = Pen().draw_input(0, {"x": array.reshape(shape)})

    assert np.array_equal(decode(drawn.picture), image)


def test_images_stored_as_bgr_are_drawn_as_rgb():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)

    drawn = Pen(is_reversed=True).draw_input(0, {"x": image[:, :, ::-1]})

    assert np.array_equal(decode(drawn.picture), image)


def test_numbers_are_scaled_from_black_to_white():
    values = np.linspace(-2, 2, 81).reshape(9, 9).astype(np.float32)

    pixels = decode(Pen().draw_input(0, {"x": values}).picture)[..., 0]

    expected = np.rint((values + 2) / 4 * 255)
    assert np.abs(pixels - expected).max() <= 1


def test_large_images_are_reduced_by_the_mean_of_their_pixels():
    image = np.random.default_rng(1).random((600, 400, 1))
    image[:300] += 5

    picture = draw_image(image, 150)

    assert (picture.width, picture.height) == (400, 600)
    pixels = decode(picture)[..., 0].astype(float)
    assert pixels.shape == (150, 100)
    expected = image.reshape(150, 4, 100, 4).mean(axis=(1, 3))
    low, high = image.min(), image.max()
    assert np.abs(pixels - (expected - low) / (high - low) * 255).max() <= 0.51


def test_a_mask_has_one_color_for_each_class():
    mask = np.repeat(np.arange(12), 20).reshape(12, 20)

    pixels = decode(draw_mask(mask, 160))

    rows = {tuple(row[0]) for row in pixels}
    assert len(rows) == 12
    assert all((row == row[0]).all() for row in pixels)


def test_boxes_are_placed_on_the_scaled_image():
    answer = Boxes(
        corners=np.array([[100.0, 50, 200, 150]]), classes=np.array([1]), scores=np.array([0.9])
    )

    drawn = Pen(names={1: "cat"}).draw_answer(answer, letterbox=np.array([0.5, 10, 20, 400, 300]))

    (box,) = drawn.boxes
    assert (box.x1, box.y1, box.x2, box.y2) == (60, 45, 110, 95)
    assert box.label == "cat 0.90"


def test_unsure_boxes_are_drawn_only_if_there_is_no_other():
    corners, classes = np.tile([0.0, 0, 9, 9], (3, 1)), np.arange(3)

    def count(scores):
        answer = Boxes(corners=corners, classes=classes, scores=np.array(scores))
        return [box.label for box in Pen().draw_answer(answer).boxes]

    assert count([0.1, 0.8, 0.3]) == ["1 0.80", "2 0.30"]
    assert count([0.1, 0.2, 0.05]) == ["1 0.20"]


def test_answers_are_put_into_words():
    pen = Pen(names={0: "cat", 2: "dog"})

    assert pen.draw_answer(Classes(numbers=np.array([2]))).text == "dog"
    assert pen.draw_answer(Classes(numbers=np.array([2, 1, 0]))).text == "dog, 1, cat"
    assert pen.draw_answer(Classes(numbers=np.zeros(0, np.int64))).text == "none"
    assert pen.draw_answer(Text(text="")).text == "(empty)"
    assert pen.draw_answer(Text(text="a\x1b[2Jb")).text == "a\\x1b[2Jb"
    assert pen.draw_answer(Values(numbers=np.array([0.12345678, 2]))).text == "0.1235, 2"
    assert pen.draw_answer(None) is None


def test_a_signal_is_drawn_as_a_curve():
    signal = np.sin(np.linspace(0, 6, 16000)).astype(np.float32)

    drawn = Pen().draw_input(0, {"x": signal[None]})

    assert drawn.picture is None
    assert len(drawn.curve) == 120
    assert (min(drawn.curve), max(drawn.curve)) == pytest.approx((0, 1), abs=1e-3)


def test_tokens_are_listed():
    assert (
        Pen().draw_input(0, {"ids": np.arange(20)}).text == "0, 1, 2, 3, 4, 5, 6, 7 … (20 values)"
    )


def test_a_text_is_shown_instead_of_its_tokens():
    pen = Pen(texts={3: "one line\nand another"})

    assert pen.draw_input(3, {"ids": np.arange(20)}).text == r"one line\nand another"
    assert pen.draw_input(0, {"ids": np.arange(2)}).text == "0, 1"
