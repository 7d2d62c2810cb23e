"""Masks as targets: an image of class numbers for each image, of the same name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekit.data.cached_arrays import open_padded_rows
from edgekit.data.pixels import decode_mask, has_byte_pixels
from edgekit.errors import UserError
from edgekit_agent.preprocess.images import Pixels
from edgekit_agent.preprocess.settings import DecodeSettings

_MASKS = (".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class MaskedImage:
    """The files of an image and of its mask."""

    image: Path
    mask: Path


def list_masked_images(source: str, path: Path, suffixes: Collection[str]) -> list[MaskedImage]:
    """List the images in ``images`` with their masks in ``masks``; empty without these folders.

    Args:
        source: Name of the folder, for messages.
        path: The folder.
        suffixes: Endings of images in small letters, such as ``.png``.

    Raises:
        UserError: An image has no mask, or several.
    """
    folders = (path / "images", path / "masks")
    if not all(folder.is_dir() for folder in folders):
        return []
    images, masks = ([file for file in sorted(f.iterdir()) if file.is_file()] for f in folders)
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        if mask.suffix.lower() in _MASKS and not mask.name.startswith("."):
            by_stem.setdefault(mask.stem, []).append(mask)
    found = []
    for image in images:
        if image.suffix.lower() not in suffixes or image.name.startswith("."):
            continue
        own = by_stem.get(image.stem, [])
        if len(own) != 1:
            told = " and ".join(mask.name for mask in own) or "none"
            raise UserError(
                f"{source}: images/{image.name} needs one mask of its name in masks, found {told}",
                hint=f"masks/{image.stem}.png, with the class number of each pixel",
            )
        found.append(MaskedImage(image=image, mask=own[0]))
    return found


class MaskWriter:
    """Writes the masks of images, one after the other, to a ``.npy`` [N, height, width].

    Args:
        target: The file.
        masks: The masks.
        look: Settings of the images.
        lengths: File of the sizes of the masks if these differ.
        size: Largest height and width, if they differ.
    """

    def __init__(
        self,
        target: Path,
        masks: Sequence[Path],
        look: DecodeSettings,
        lengths: Path | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Read the headers of the masks."""
        self._target = target
        self._lengths = lengths
        self._size = size
        self._masks = masks
        self._look = look
        self._stack = ExitStack()
        self._append: Callable[[NDArray[Any]], None] | None = None
        self._dtype = "uint8" if all(map(has_byte_pixels, masks)) else "int32"

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def add(self, number: int, image: Pixels) -> None:
        """Decode and write the mask of an image."""
        mask = decode_mask(self._masks[number], self._look, image)
        if self._append is None:
            size = self._size or mask.shape
            rows = open_padded_rows(self._target, self._lengths, self._dtype, size)
            self._append = self._stack.enter_context(rows)
        self._append(mask)
