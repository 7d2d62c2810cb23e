"""Folders of labeled images, decoded once into arrays on disk."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.project import PreprocessSettings
from edgekit.errors import UserError, make_missing_extra_error
from edgekit.progress import Tick
from edgekit_agent.files import open_atomic, sha256_of

# Pillow's constant of bicubic resampling; Pillow is imported only to read images.
_BICUBIC = 3
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """Folder with ``x.npy`` (uint8 NHWC) and ``label.npy``; ``digest`` covers both."""

    folder: Path
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Settings of image decoding.

    ``settings`` give resize (short side, bicubic) and center crop, in pixels; ``gray`` selects one
    channel instead of three; ``most`` is the largest number of images, spread over the folder.
    """

    settings: PreprocessSettings | None
    gray: bool
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class _DecodeSettings:
    resize: int | None
    crop: int | None
    gray: bool


def decode_folder(
    source: str, path: Path, cache: Path, how: ImageSettings, tick: Tick
) -> DecodedImages:
    """Decode the images of a folder, or reuse an earlier result.

    Args:
        source: The user's name of the folder, for messages.
        path: The folder, with a ``labels.csv`` (``file,label``), a CSV of the folder's name beside
            it, or a subfolder per class, labeled 0, 1, ... in the order of their names.
        cache: Folder for the arrays.
        how: Sizes, channels, and number of images.
        tick: Progress callback.

    Raises:
        UserError: There are no images, one is unreadable, or their sizes differ.
    """
    rows = _select_spread(list(_iter_image_rows(source, path)), how.most)
    if not rows:
        raise UserError(
            f"{source}: contains neither .npy files nor images",
            hint="images need a labels.csv (file,label) or one subfolder per class",
        )
    files, labels = [file for file, _ in rows], [label for _, label in rows]
    settings = how.settings or PreprocessSettings()
    look = _DecodeSettings(resize=settings.resize, crop=settings.crop, gray=how.gray)
    digest = hashlib.sha256(f"{look} {compute_files_digest(files)} {labels}".encode()).hexdigest()
    folder = cache / "columns" / digest
    arrays = [folder / "x.npy", folder / "label.npy"]
    seal = folder / "seal"
    # Decoding is slow, so the arrays are cached; the seal shows whether they are unchanged.
    if not are_files_sealed(seal, arrays):
        seal.unlink(missing_ok=True)
        _decode_images(source, files, arrays[0], look, tick)
        save_array(arrays[1], np.asarray(labels, np.int64))
        seal_files(seal, arrays)
    return DecodedImages(folder=folder, digest=digest)


def read_image_sizes(source: str, path: Path, most: int) -> set[tuple[int, int]]:
    """Read widths and heights of up to ``most`` images from all over a folder, from the headers."""
    rows = _select_spread(list(_iter_image_rows(source, path)), most)
    return {_read_image_size(file) for file, _ in rows}


def _select_spread(rows: list[tuple[Path, int]], most: int | None) -> list[tuple[Path, int]]:
    """Select ``most`` evenly spread rows, as they may be sorted by class."""
    if most is None or len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]


def compute_files_digest(files: list[Path]) -> str:
    """Compute one digest over the names and contents of files."""
    lines = [f"{file.name} {sha256_of(str(file))}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save_array(target: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy``, completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(str(target)) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _iter_image_rows(source: str, path: Path) -> Iterator[tuple[Path, int]]:
    for table in (path / "labels.csv", path.with_name(f"{path.name}.csv")):
        if table.is_file():
            yield from _iter_listed_images(source, path, table)
            return
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    for label, folder in enumerate(classes):
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in _IMAGES:
                yield file, label


def _iter_listed_images(source: str, path: Path, table: Path) -> Iterator[tuple[Path, int]]:
    # Spreadsheets begin the file with a byte order mark.
    with table.open(newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                image, label = path / row["file"], int(row["label"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{table}: line {line}: the columns file and label (an integer) are needed"
                ) from error
            if not image.is_file():
                raise UserError(f"{table}: line {line}: no image {row['file']} in {source}")
            yield image, label


def _decode_images(
    source: str, files: list[Path], target: Path, look: _DecodeSettings, tick: Tick
) -> None:
    """Write the images as uint8 NHWC, one at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shape: tuple[int, ...] | None = None
    with open_atomic(str(target)) as out:
        for number, file in enumerate(files):
            tick(f"decoding {source}", number, len(files))
            image = _decode_image(file, look)
            if shape is None:
                shape = image.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
                np.lib.format.write_array_header_1_0(out, header)
            if image.shape != shape:
                raise UserError(
                    f"{source}: {file.name} is {image.shape[1]}x{image.shape[0]}, the others are "
                    f"{shape[1]}x{shape[0]}",
                    hint="set [data.preprocess] resize and crop",
                )
            out.write(image.tobytes())


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


def _read_image_size(file: Path) -> tuple[int, int]:
    with _open_image(file) as image:
        width, height = image.size
    return width, height


def _decode_image(file: Path, look: _DecodeSettings) -> NDArray[np.uint8]:
    with _open_image(file) as opened:
        image = opened.convert("L" if look.gray else "RGB")
    if look.resize:
        ratio = look.resize / min(image.size)
        size = (round(image.width * ratio), round(image.height * ratio))
        image = image.resize(size, _BICUBIC)
    if crop := look.crop:
        if min(image.size) < crop:
            raise UserError(f"{file}: {image.width}x{image.height} is smaller than crop = {crop}")
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    pixels = np.asarray(image)
    return pixels[:, :, np.newaxis] if look.gray else pixels
