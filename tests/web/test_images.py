"""Images in the page become the same pixels as on other devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from edgekit_agent.preprocess.images import arrange_image
from edgekit_agent.preprocess.settings import DecodeSettings
from tests.web.node_calls import NodeError, Numbers, call, rename

_PLAIN: dict[str, Any] = {
    "resize": None, "crop": None, "mode": None, "size": None, "pad": 114, "centered": True,
    "reversed_channels": False, "gray": False,
}  # fmt: skip


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="earlier versions of Pillow round differently"
)
@pytest.mark.parametrize("gray", [False, True], ids=["color", "gray"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resize": 20},
        {"resize": 33, "crop": 30},
        {"crop": 17},
        {"mode": "stretch", "size": (24, 40)},
        {"mode": "letterbox", "size": (64, 48)},
        {"mode": "letterbox", "size": (64, 48), "centered": False, "pad": 0},
        {"mode": "letterbox", "size": (21, 300), "reversed_channels": True},
        {"resize": 20, "crop": 15, "reversed_channels": True},
    ],
    ids=str,
)
def test_pixels_and_their_places_are_those_of_other_devices(
    changes: dict[str, Any], gray: bool
) -> None:
    """Resized, cropped, letterboxed; in colors of any order, and in gray."""
    look = DecodeSettings(**{**_PLAIN, **changes, "gray": gray})
    random = np.random.default_rng(0)
    for width, height in ((31, 50), (50, 31), (45, 45), (19, 170), (64, 48)):
        rgba = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
        image = {"width": width, "height": height, "data": Numbers(rgba.ravel())}
        picture = Image.fromarray(rgba).convert("RGB").convert("L" if gray else "RGB")
        wanted = arrange_image(picture, look, "image")
        found = call("images/images", "preparePixels", image, rename(look))
        assert found["shape"] == list(wanted.values.shape)
        np.testing.assert_array_equal(found["data"], wanted.values.ravel())
        assert found["letterbox"] == {
            "scaleX": wanted.scale_x, "scaleY": wanted.scale_y, "left": wanted.left,
            "top": wanted.top, "width": width, "height": height,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [((10, 30), {"crop": 12}, "too small"), ((1, 40_000), {"resize": 2000}, "long and thin")],
)
def test_images_that_cannot_be_used_are_refused(
    size: tuple[int, int], changes: dict[str, Any], said: str
) -> None:
    """In words for people who use the app."""
    width, height = size
    data = Numbers(np.zeros(4 * width * height, np.uint8))
    look = DecodeSettings(**{**_PLAIN, **changes})
    with pytest.raises(NodeError, match=said) as caught:
        call(
            "images/images",
            "preparePixels",
            {"width": width, "height": height, "data": data},
            rename(look),
        )
    assert caught.value.kind == "bad_sample"


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((3, 4, 10, 9), (3, 4, 10, 9)),
        ((3.7, 4.2, 9.1, 8.5), (3, 4, 10, 9)),
        ((-5, -5, 100, 100), (0, 0, 20, 12)),
        ((6, 6, 6, 6), (6, 6, 7, 7)),
        ((50, 50, 60, 60), (19, 11, 20, 12)),
    ],
)
def test_boxes_are_cut_out_of_images(box: tuple[float, ...], part: tuple[int, ...]) -> None:
    """Whole pixels inside of the image, at least one, for the next model of an app."""
    rgba = np.random.default_rng(1).integers(0, 256, (12, 20, 4), dtype=np.uint8)
    image = {"width": 20, "height": 12, "data": Numbers(rgba.ravel())}
    found = call("images/images", "cutImage", image, box)
    left, top, right, bottom = part
    assert (found["width"], found["height"]) == (right - left, bottom - top)
    np.testing.assert_array_equal(found["data"], rgba[top:bottom, left:right].ravel())
