"""Pixels of one image: decoded, resized, cropped or letterboxed, in the model's channel order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import PreprocessSettings
from edgekit.errors import UserError, make_missing_extra_error
from edgekit_agent.postprocess.letterbox import compute_letterbox, scale_side

# Pillow's constants of resampling; Pillow is imported only to read images.
_NEAREST, _BILINEAR, _BICUBIC = 0, 2, 3
# Class of mask pixels that a letterbox adds, which metrics do not score with ignore = 255.
IGNORED = 255
# Modes of Pillow whose pixels are integers: bits, gray, palette, and up to 32 bits.
_MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_BYTE_MODES = _MASK_MODES[:3]


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Sizes and channels of decoded images.

    Attributes:
        resize: Length of the short side, bicubic.
        crop: Side of the square cut from the center.
        mode: How an image becomes ``size``: scaled into it and padded, or stretched; bilinear.
        size: Height and width of the result if there is a mode.
        pad: Value of the padding.
        centered: Whether padding is on both sides, else below and to the right.
        reversed_channels: Whether channels are stored as blue, green, red.
        gray: Whether images have one channel.
        keeps_sizes: Whether images may differ in size.
    """

    resize: int | None
    crop: int | None
    mode: Literal["letterbox", "stretch"] | None
    size: tuple[int, int] | None
    pad: int
    centered: bool
    reversed_channels: bool
    gray: bool
    keeps_sizes: bool = False

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return 1 if self.gray else 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """Pixels [height, width, channels] of an image, and where they come from.

    ``width`` and ``height`` are those of the file; a pixel of the result is ``original * scale +
    (left, top)`` if the image was letterboxed.
    """

    values: NDArray[np.uint8]
    width: int
    height: int
    scale: float = 1.0
    left: int = 0
    top: int = 0


def build_decode_settings(
    settings: PreprocessSettings | None, *, gray: bool, size: tuple[int, int] | None, source: str
) -> DecodeSettings:
    """Return how images are decoded.

    Args:
        settings: ``[data.preprocess]``.
        gray: Whether the model takes images of one channel.
        size: Height and width of the model's input; ``None`` = free.
        source: Name of the source, for messages.

    Raises:
        UserError: ``resize_mode`` needs a size, but the model leaves it free, or has another one;
            or images are to keep their sizes, but the model has one size.
    """
    settings = settings or PreprocessSettings()
    mode, given = settings.resize_mode, settings.fixed_size
    if settings.keeps_sizes and size:
        raise UserError(
            'edgekit.toml: data.preprocess.size: "own", but the input of the model has height and '
            f"width {list(size)}",
            hint='set resize_mode = "letterbox" or "stretch" instead',
        )
    if mode and given and size and given != size:
        raise UserError(
            f"edgekit.toml: data.preprocess.size: {list(given)}, but the input of the "
            f"model has height and width {list(size)}"
        )
    wanted = given or size
    if mode and wanted is None:
        raise UserError(
            f"{source}: the model leaves height and width of its input free, so that images cannot "
            f'be resized by resize_mode = "{mode}"',
            hint="set [data.preprocess] size = [height, width]",
        )
    return DecodeSettings(
        resize=settings.resize,
        crop=settings.crop,
        mode=mode,
        size=wanted if mode else None,
        pad=settings.pad,
        centered=settings.pad_position == "center",
        reversed_channels=settings.order == "BGR" and not gray,
        gray=gray,
        keeps_sizes=settings.keeps_sizes,
    )


def compute_own_size(file: Path, look: DecodeSettings) -> tuple[int, int]:
    """Compute the height and width of a decoded image that keeps its size, from the header."""
    width, height = read_image_size(file)
    if look.resize:
        width, height = _scale_short_side(width, height, look.resize)
    return height, width


def _scale_short_side(width: int, height: int, side: int) -> tuple[int, int]:
    ratio = side / min(width, height)
    return round(width * ratio), round(height * ratio)


def read_image_size(file: Path) -> tuple[int, int]:
    """Read width and height of an image from its header."""
    with _open_image(file) as image:
        width, height = image.size
    return width, height


def decode_image(file: Path, look: DecodeSettings) -> Pixels:
    """Decode one image.

    Raises:
        UserError: The image cannot be read, or is smaller than the crop.
    """
    with _open_image(file) as opened:
        image = opened.convert("L" if look.gray else "RGB")
    width, height = image.size
    if look.mode == "letterbox" and look.size:
        return _add_letterbox(image, look, look.size)
    image = _fit(image, look, file)
    return Pixels(values=_to_array(image, look), width=width, height=height)


def decode_mask(file: Path, look: DecodeSettings, like: Pixels) -> NDArray[Any]:
    """Decode the mask of an image: the number of the class of each pixel.

    It is resized, cropped or letterboxed like the image, each pixel being that of the nearest one.

    Args:
        file: The mask.
        look: Settings of the image.
        like: The image.

    Raises:
        UserError: The mask cannot be read, has colors, or another size than the image.
    """
    with _open_image(file) as opened:
        if opened.mode not in _MASK_MODES:
            raise UserError(
                f"{file}: a mask needs a class number for each pixel, but this image has colors "
                f"({opened.mode})",
                hint="save class numbers in a gray PNG, or a palette in an indexed PNG",
            )
        mask = opened.copy() if opened.mode in _BYTE_MODES else opened.convert("I")
    if mask.size != (like.width, like.height):
        raise UserError(
            f"{file}: {mask.width}x{mask.height}, but its image is {like.width}x{like.height}"
        )
    if look.mode != "letterbox" or look.size is None:
        return _to_numbers(_fit(mask, look, file, is_mask=True))
    size = (scale_side(like.width, like.scale), scale_side(like.height, like.scale))
    numbers = _to_numbers(_resize(mask, size, _NEAREST))
    values = np.full(look.size, IGNORED, numbers.dtype)
    values[like.top : like.top + size[1], like.left : like.left + size[0]] = numbers
    return values


def has_byte_pixels(file: Path) -> bool:
    """Return whether the class numbers of a mask fit into 8 bits, from its header."""
    with _open_image(file) as opened:
        return opened.mode in _BYTE_MODES


def _to_numbers(mask: Any) -> NDArray[Any]:  # noqa: ANN401 - Pillow has no types
    numbers = np.asarray(mask)
    return numbers.astype(np.uint8) if numbers.dtype.kind == "b" else numbers


def _fit(image: Any, look: DecodeSettings, file: Path, *, is_mask: bool = False) -> Any:  # noqa: ANN401 - as above
    """Stretch, resize and crop an image; the pixels of a mask are not mixed."""
    if look.mode == "stretch" and look.size:
        size = (look.size[1], look.size[0])
        image = _resize(image, size, _NEAREST if is_mask else _BILINEAR)
    if look.resize:
        size = _scale_short_side(image.width, image.height, look.resize)
        image = image.resize(size, _NEAREST if is_mask else _BICUBIC)
    if crop := look.crop:
        if min(image.size) < crop:
            raise UserError(f"{file}: {image.width}x{image.height} is smaller than crop = {crop}")
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    return image


def _add_letterbox(image: Any, look: DecodeSettings, size: tuple[int, int]) -> Pixels:  # noqa: ANN401 - Pillow has no types
    width, height = image.size
    scale, left, top = compute_letterbox(width, height, size, centered=look.centered)
    image = _resize(image, (scale_side(width, scale), scale_side(height, scale)), _BILINEAR)
    pixels = _to_array(image, look)
    values = np.full((*size, pixels.shape[2]), look.pad, np.uint8)
    values[top : top + image.height, left : left + image.width] = pixels
    return Pixels(values=values, width=width, height=height, scale=scale, left=left, top=top)


def _resize(image: Any, size: tuple[int, int], resampling: int) -> Any:  # noqa: ANN401 - as above
    return image if image.size == size else image.resize(size, resampling)


def _to_array(image: Any, look: DecodeSettings) -> NDArray[np.uint8]:  # noqa: ANN401 - as above
    pixels = np.asarray(image)
    if look.gray:
        return pixels[:, :, np.newaxis]
    return pixels[:, :, ::-1] if look.reversed_channels else pixels


@contextmanager
def _open_image(file: Path) -> Iterator[Any]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise make_missing_extra_error("pillow", "images") from error
    try:
        with Image.open(file) as opened:
            yield opened
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: not an image that can be read: {error}") from error
