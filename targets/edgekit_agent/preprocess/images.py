"""Pixels of one image: decoded, resized, cropped or letterboxed, in the model's channel order.

Needs numpy, and Pillow (imported when an image is read).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, Optional, Tuple, Union

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess.letterbox import compute_letterbox, scale_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.preprocess.settings import DecodeSettings

    # A path, or an open file.
    Source = Union[str, BinaryIO]

# Pillow's constants of resampling.
_NEAREST, _BILINEAR, _BICUBIC = 0, 2, 3
# Class of mask pixels that a letterbox adds, which metrics do not score with ignore = 255.
IGNORED = 255
# Modes of Pillow whose pixels are integers: bits, gray, palette, and up to 32 bits.
_MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_BYTE_MODES = _MASK_MODES[:3]
# Formats that are read. Pillow knows more, and hands EPS to Ghostscript, which is a program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# A long thin image grows when its short side is resized; Pillow holds 4 bytes for each pixel.
_MOST_RESIZED = 1 << 26
# EXIF: tag of the orientation, and Pillow's transposition that turns each one upright.
_ORIENTATION = 0x0112
_UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels [height, width, channels] of an image, and where they come from.

    ``width`` and ``height`` are those of the file; a pixel of the result is ``original * (scale_x,
    scale_y) + (left, top)``. ``scale`` is that of a letterbox, 1 without one.
    """

    values: NDArray[np.uint8]
    width: int
    height: int
    scale: float = 1.0
    left: int = 0
    top: int = 0
    scale_x: float = 1.0
    scale_y: float = 1.0


def compute_own_size(file: Source, look: DecodeSettings, name: str) -> Tuple[int, int]:
    """Compute the height and width of a decoded image that keeps its size, from the header."""
    width, height = read_image_size(file, name)
    if look.resize:
        width, height = _scale_short_side(width, height, look.resize)
    return height, width


def _scale_short_side(width: int, height: int, side: int) -> Tuple[int, int]:
    ratio = side / min(width, height)
    return round(width * ratio), round(height * ratio)


def read_image_size(file: Source, name: str) -> Tuple[int, int]:
    """Read width and height of an image from its header."""
    with open_image(file, name) as image:
        width, height = image.size
    return width, height


def decode_image(
    file: Source,
    look: DecodeSettings,
    name: str,
    *,
    most_pixels: Optional[int] = None,
    upright: bool = False,
) -> Pixels:
    """Decode one image.

    Args:
        file: the image.
        look: sizes and channels.
        name: name of the image, for messages.
        most_pixels: largest number of pixels of the file; ``None`` = that of Pillow.
        upright: whether to turn a photo as its EXIF data say, as viewers do.

    Raises:
        AgentError: ``bad_sample``: the image cannot be read, is too large, or is smaller than the
            crop; ``missing_package``: there is no Pillow.
    """
    with open_image(file, name) as opened:
        _check_pixels(opened.size, most_pixels, name)
        turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1)) if upright else None
        image = _to_bytes(opened, name).convert("L" if look.gray else "RGB")
        if turn is not None:
            image = image.transpose(turn)
    return arrange_image(image, look, name)


def arrange_image(image: Any, look: DecodeSettings, name: str) -> Pixels:  # noqa: ANN401 - Pillow has no types
    """Resize, crop or letterbox an image of Pillow that has the channels of the model."""
    width, height = image.size
    if look.mode == "letterbox" and look.size:
        return _add_letterbox(image, look, look.size)
    sizes, image = (width, height), _scale(image, look, name)
    scaled = image.size
    image, left, top = _crop(image, look, name)
    return Pixels(
        values=_to_array(image, look),
        width=width,
        height=height,
        left=-left,
        top=-top,
        scale_x=scaled[0] / sizes[0],
        scale_y=scaled[1] / sizes[1],
    )


def decode_mask(file: Source, look: DecodeSettings, like: Pixels, name: str) -> NDArray[Any]:
    """Decode the mask of an image: the number of the class of each pixel.

    It is resized, cropped or letterboxed like the image, each pixel being that of the nearest one.

    Args:
        file: the mask.
        look: settings of the image.
        like: the image.
        name: name of the mask, for messages.

    Raises:
        AgentError: ``bad_sample``: the mask cannot be read, has colors, or another size than the
            image.
    """
    with open_image(file, name) as opened:
        if opened.mode not in _MASK_MODES:
            raise AgentError(
                "bad_sample",
                f"{name}: a mask needs a class number for each pixel, but this image has colors "
                f"({opened.mode})",
                hint="save class numbers in a gray PNG, or a palette in an indexed PNG",
            )
        mask = opened.copy() if opened.mode in _BYTE_MODES else opened.convert("I")
    if mask.size != (like.width, like.height):
        raise AgentError(
            "bad_sample",
            f"{name}: {mask.width}x{mask.height}, but its image is {like.width}x{like.height}",
        )
    if look.mode != "letterbox" or look.size is None:
        mask, _, _ = _crop(_scale(mask, look, name, is_mask=True), look, name)
        return _to_numbers(mask)
    size = (scale_side(like.width, like.scale), scale_side(like.height, like.scale))
    numbers = _to_numbers(_resize(mask, size, _NEAREST))
    values = np.full(look.size, IGNORED, numbers.dtype)
    values[like.top : like.top + size[1], like.left : like.left + size[0]] = numbers
    return values


def has_byte_pixels(file: Source, name: str) -> bool:
    """Return whether the class numbers of a mask fit into 8 bits, from its header."""
    with open_image(file, name) as opened:
        return opened.mode in _BYTE_MODES


@contextlib.contextmanager
def open_image(file: Source, name: str) -> Iterator[Any]:
    """Open an image with Pillow, which reads its pixels inside the block.

    Raises:
        AgentError: ``bad_sample``: it is no image that can be read; ``missing_package``: there is
            no Pillow.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise AgentError(
            "missing_package", "pillow is not installed", hint="install it: pip install pillow"
        ) from error
    try:
        with Image.open(file, formats=_FORMATS) as opened:
            yield opened
    except (AgentError, MemoryError):
        raise
    except Exception as error:  # Pillow raises any error on a damaged file
        # Pillow would tell the address of an object in memory.
        is_unknown = isinstance(error, UnidentifiedImageError) and not isinstance(file, str)
        told = "" if is_unknown else f": {error}"
        raise AgentError("bad_sample", f"{name}: not an image that can be read{told}") from error


def _check_pixels(size: Tuple[int, int], most: Optional[int], name: str) -> None:
    if most is not None and size[0] * size[1] > most:
        raise AgentError(
            "bad_sample",
            f"{name}: {size[0]}x{size[1]} pixels are too many",
            hint=f"send an image of at most {most // 1_000_000} million pixels",
        )


def _to_bytes(image: Any, name: str) -> Any:  # noqa: ANN401 - Pillow has no types
    """Return an image of 8 bits: of gray values of 16 bits, the upper ones, as viewers show them.

    Pillow itself takes the upper bits of colors, but turns gray values above 255 into white.

    Raises:
        AgentError: ``bad_sample``: its pixels are floats, or integers of 32 bits.
    """
    mode = image.mode
    # Older versions of Pillow read a PNG of 16 bits as integers of 32 bits.
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        from PIL import Image

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        raise AgentError(
            "bad_sample",
            f"{name}: pixels of 32 bits are not read",
            hint="save it with 8 or 16 bits a channel",
        )
    return image


def _to_numbers(mask: Any) -> NDArray[Any]:  # noqa: ANN401 - Pillow has no types
    numbers = np.asarray(mask)
    return numbers.astype(np.uint8) if numbers.dtype.kind == "b" else numbers


def _scale(image: Any, look: DecodeSettings, name: str, *, is_mask: bool = False) -> Any:  # noqa: ANN401 - as above
    """Stretch or resize an image; the pixels of a mask are not mixed.

    Raises:
        AgentError: ``bad_sample``: the image is so long and thin that its resized one is too large.
    """
    if look.mode == "stretch" and look.size:
        size = (look.size[1], look.size[0])
        image = _resize(image, size, _NEAREST if is_mask else _BILINEAR)
    if look.resize:
        size = _scale_short_side(image.width, image.height, look.resize)
        if size[0] * size[1] > _MOST_RESIZED:
            raise AgentError(
                "bad_sample",
                f"{name}: {image.width}x{image.height} is too long and thin to be resized",
                hint="cut it first",
            )
        image = image.resize(size, _NEAREST if is_mask else _BICUBIC)
    return image


def _crop(image: Any, look: DecodeSettings, name: str) -> Tuple[Any, int, int]:  # noqa: ANN401 - as above
    """Cut the square from the center; return it with its left and top."""
    crop = look.crop
    if not crop:
        return image, 0, 0
    if min(image.size) < crop:
        raise AgentError(
            "bad_sample", f"{name}: {image.width}x{image.height} is smaller than crop = {crop}"
        )
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    return image.crop((left, top, left + crop, top + crop)), left, top


def _add_letterbox(image: Any, look: DecodeSettings, size: Tuple[int, int]) -> Pixels:  # noqa: ANN401 - as above
    width, height = image.size
    scale, left, top = compute_letterbox(width, height, size, centered=look.centered)
    image = _resize(image, (scale_side(width, scale), scale_side(height, scale)), _BILINEAR)
    pixels = _to_array(image, look)
    values = np.full((*size, pixels.shape[2]), look.pad, np.uint8)
    values[top : top + image.height, left : left + image.width] = pixels
    return Pixels(
        values=values,
        width=width,
        height=height,
        scale=scale,
        left=left,
        top=top,
        scale_x=scale,
        scale_y=scale,
    )


def _resize(image: Any, size: Tuple[int, int], resampling: int) -> Any:  # noqa: ANN401 - as above
    return image if image.size == size else image.resize(size, resampling)


def _to_array(image: Any, look: DecodeSettings) -> NDArray[np.uint8]:  # noqa: ANN401 - as above
    pixels = np.asarray(image)
    if look.gray:
        return pixels[:, :, np.newaxis]
    return pixels[:, :, ::-1] if look.reversed_channels else pixels
