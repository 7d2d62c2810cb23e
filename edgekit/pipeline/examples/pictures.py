"""Small PNG pictures of images and masks, made of arrays with zlib alone.

Format: https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import base64
import colorsys
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.pipeline.examples.records import Picture

Bytes = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE = 0, 2, 3
# Shortest side of an array of two axes that is taken for an image.
_FEWEST_PIXELS = 8
_FEWEST_SIDES = 4
_MOST_COLORS = 256
_GOLDEN = 0.618033988749895
_BACKGROUND = (40, 44, 52)


def find_image(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return an array as an image [height, width, 1 or 3]; ``None`` if it does not look like one.

    Axes of length 1 before the image do not count; channels may be first or last.
    """
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2 and min(array.shape) >= _FEWEST_PIXELS:
        return array[:, :, np.newaxis]
    if array.ndim != 3:
        return None
    for image in (array, np.moveaxis(array, 0, -1)):
        if image.shape[-1] in (1, 3) and min(image.shape[:2]) >= _FEWEST_SIDES:
            return image
    return None


def draw_image(
    image: NDArray[Any], side: int, limits: tuple[float, float] | None = None
) -> Picture:
    """Draw an image [height, width, channels]: bytes as they are, other numbers scaled.

    Args:
        image: The image.
        side: Most pixels of a side; larger images are reduced by the mean of their pixels.
        limits: The values of black and white; ``None`` = the smallest and the largest.
    """
    height, width = image.shape[:2]
    small = _average_blocks(image.astype(np.float64), side)
    if image.dtype != np.uint8:
        low, high = limits or (float(image.min()), float(image.max()))
        small = (small - low) * (255 / (high - low or 1.0))
    pixels = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    is_gray = pixels.shape[-1] == 1
    png = _encode_png(pixels.reshape(len(pixels), -1), _GRAY if is_gray else _RGB)
    return Picture(png=png, width=width, height=height)


def draw_mask(mask: NDArray[np.int64], side: int) -> Picture:
    """Draw a mask [height, width] in the colors of its classes."""
    height, width = mask.shape
    rows, columns = (_pick_places(size, max(mask.shape), side) for size in mask.shape)
    numbers, places = np.unique(mask[rows][:, columns], return_inverse=True)
    palette = bytes(part for number in numbers[:_MOST_COLORS] for part in choose_color(int(number)))
    pixels = np.minimum(places, _MOST_COLORS - 1).astype(np.uint8).reshape(rows.size, columns.size)
    return Picture(png=_encode_png(pixels, _PALETTE, palette), width=width, height=height)


def choose_color(number: int) -> tuple[int, int, int]:
    """Return the color of a class, always the same one; class 0 is dark."""
    if number == 0:
        return _BACKGROUND
    value = 0.95 if number % 2 else 0.75
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.65, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _pick_places(size: int, longest: int, side: int) -> NDArray[np.int64]:
    """Return evenly spaced places along an axis, so that the longest axis has ``side`` of them."""
    count = size if longest <= side else max(1, size * side // longest)
    return np.arange(count) * size // count


def _average_blocks(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Reduce an image to means of blocks of pixels, at most ``side`` of them along an axis."""
    longest = max(image.shape[:2])
    for axis in (0, 1):
        starts = _pick_places(image.shape[axis], longest, side)
        sizes = np.diff(starts, append=image.shape[axis]).reshape((-1, 1, 1))
        sums = np.add.reduceat(image, starts, axis=axis)
        image = sums / (sizes if axis == 0 else sizes.reshape(1, -1, 1))
    return image


def _encode_png(rows: Bytes, kind: int, palette: bytes = b"") -> str:
    """Encode rows of pixels as a PNG in base64.

    Args:
        rows: Bytes of each row.
        kind: Type of the pixels: gray, RGB, or places in the palette.
        palette: Three bytes for each color.
    """
    height, width = rows.shape[0], rows.shape[1] // (3 if kind == _RGB else 1)
    # Each row is stored as differences to the pixel on the left (filter 1), but places of colors.
    step, filtered = (3 if kind == _RGB else 1), rows.copy()
    if kind != _PALETTE:
        filtered[:, step:] -= rows[:, :-step]
    marked = np.insert(filtered, 0, 0 if kind == _PALETTE else 1, axis=1)
    chunks = [
        _encode_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
        *([_encode_chunk(b"PLTE", palette)] if kind == _PALETTE else []),
        _encode_chunk(b"IDAT", zlib.compress(marked.tobytes(), 9)),
        _encode_chunk(b"IEND", b""),
    ]
    return base64.b64encode(_SIGNATURE + b"".join(chunks)).decode("ascii")


def _encode_chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
