"""Pixels of the images of a folder, with the settings of edgekit.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekit.config.project import PreprocessSettings
from edgekit.data.sample_errors import raise_user_errors
from edgekit.errors import UserError
from edgekit_agent.preprocess import images
from edgekit_agent.preprocess.images import Pixels
from edgekit_agent.preprocess.settings import DecodeSettings


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
    with raise_user_errors():
        return images.compute_own_size(str(file), look, str(file))


def read_image_size(file: Path) -> tuple[int, int]:
    """Read width and height of an image from its header."""
    with raise_user_errors():
        return images.read_image_size(str(file), str(file))


def decode_image(file: Path, look: DecodeSettings) -> Pixels:
    """Decode one image.

    Raises:
        UserError: The image cannot be read, or is smaller than the crop.
    """
    with raise_user_errors():
        return images.decode_image(str(file), look, str(file))


def decode_mask(file: Path, look: DecodeSettings, like: Pixels) -> NDArray[Any]:
    """Decode the mask of an image: the number of the class of each pixel.

    Args:
        file: The mask.
        look: Settings of the image.
        like: The image.

    Raises:
        UserError: The mask cannot be read, has colors, or another size than the image.
    """
    with raise_user_errors():
        return images.decode_mask(str(file), look, like, str(file))


def has_byte_pixels(file: Path) -> bool:
    """Return whether the class numbers of a mask fit into 8 bits, from its header."""
    with raise_user_errors():
        return images.has_byte_pixels(str(file), str(file))
