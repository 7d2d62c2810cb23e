"""Images in the page are resized to the same bytes as on other devices."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
from PIL import Image

from tests.web.node_calls import Numbers, call_all

pytestmark = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="earlier versions of Pillow round differently"
)
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("name", list(_FILTERS))
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_pixels_equal_those_of_pillow(name: str, channels: int) -> None:
    """Random sizes, larger and smaller, also of one pixel."""
    random = np.random.default_rng(channels)
    calls, wanted = [], []
    for _ in range(60):
        width, height, new_width, new_height = (int(n) for n in random.integers(1, 90, 4))
        pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
        image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
        wanted.append(np.asarray(image.resize((new_width, new_height), _FILTERS[name])).ravel())
        calls.append(
            [Numbers(pixels.ravel()), width, height, channels, new_width, new_height, name]
        )
    for found, expected in zip(
        call_all("images/resample", "resizePixels", calls), wanted, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_which_pass_comes_first_depends_on_the_shrinking_of_both_sides() -> None:
    """Heights that shrink by just less, by just, and by just more than twice as much as widths."""
    random = np.random.default_rng(7)
    calls, wanted = [], []
    for new_height in (99, 100, 101):
        pixels = random.integers(0, 256, (160, 120), dtype=np.uint8)
        image = Image.fromarray(pixels)
        wanted.append(np.asarray(image.resize((90, new_height), _FILTERS["bicubic"])).ravel())
        calls.append([Numbers(pixels.ravel()), 120, 160, 1, 90, new_height, "bicubic"])
    for found, expected in zip(
        call_all("images/resample", "resizePixels", calls), wanted, strict=True
    ):
        np.testing.assert_array_equal(found, expected)
