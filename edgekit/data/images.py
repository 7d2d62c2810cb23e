"""Folders of images with labels or boxes, decoded once into arrays on disk."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.project import PreprocessSettings
from edgekit.data.coco import (
    BOX_NUMBERS,
    check_boxes,
    find_annotations,
    read_annotations,
)
from edgekit.data.pixels import (
    DecodeSettings,
    Pixels,
    build_decode_settings,
    decode_image,
    read_image_size,
)
from edgekit.errors import UserError
from edgekit.progress import Tick
from edgekit_agent.files import open_atomic, sha256_of

Row = TypeVar("Row")

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """Arrays of decoded images, one file for each; ``digest`` covers all.

    There are ``x.npy`` (uint8 NHWC), and ``label.npy`` or the boxes: ``y.npy`` [N, M, 6] padded,
    ``y_length.npy`` [N] and ``y_letterbox.npy`` [N, 5].
    """

    arrays: tuple[Path, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Settings of image decoding.

    Attributes:
        settings: How images are resized, and the order of their channels.
        gray: Whether images have one channel instead of three.
        most: Largest number of images, spread over the folder.
        size: Height and width of the model's input; ``None`` = free.
    """

    settings: PreprocessSettings | None
    gray: bool
    most: int | None = None
    size: tuple[int, int] | None = None


def decode_folder(
    source: str, path: Path, cache: Path, how: ImageSettings, tick: Tick
) -> DecodedImages:
    """Decode the images of a folder, or reuse an earlier result.

    Args:
        source: The user's name of the folder, for messages.
        path: The folder, with a ``labels.csv`` (``file,label``), a CSV of the folder's name beside
            it, COCO annotations (``annotations.json``, or a JSON of the folder's name beside it),
            or a subfolder per class, labeled 0, 1, ... in the order of their names.
        cache: Folder for the arrays.
        how: Sizes, channels, and number of images.
        tick: Progress callback.

    Raises:
        UserError: There are no images, one is unreadable, their sizes differ, or annotations are
            wrong.
    """
    look = build_decode_settings(how.settings, gray=how.gray, size=how.size, source=source)
    if annotations := _find_annotations(path):
        return _decode_annotated_images(source, path, annotations, look, cache, how, tick)
    rows = _select_spread(list(_iter_image_rows(source, path)), how.most)
    if not rows:
        raise UserError(
            f"{source}: contains neither .npy files nor images",
            hint="images need a labels.csv (file,label), COCO annotations (annotations.json), or "
            "one subfolder per class",
        )
    files, labels = [file for file, _ in rows], [label for _, label in rows]
    digest = hashlib.sha256(f"{look} {compute_files_digest(files)} {labels}".encode()).hexdigest()
    folder = cache / "columns" / digest
    arrays = (folder / "x.npy", folder / "label.npy")
    seal = folder / "seal"
    # Decoding is slow, so the arrays are cached; the seal shows whether they are unchanged.
    if not are_files_sealed(seal, arrays):
        seal.unlink(missing_ok=True)
        _decode_images(source, files, arrays[0], look, tick)
        save_array(arrays[1], np.asarray(labels, np.int64))
        seal_files(seal, arrays)
    return DecodedImages(arrays=arrays, digest=digest)


def _decode_annotated_images(
    source: str,
    path: Path,
    annotations: Path,
    look: DecodeSettings,
    cache: Path,
    how: ImageSettings,
    tick: Tick,
) -> DecodedImages:
    """Decode the images that a COCO annotation file lists, and store their boxes beside them."""
    if look.mode is None:
        raise UserError(
            f"{source}: images with boxes need a resize_mode",
            hint='set [data.preprocess] resize_mode = "letterbox" (keeps the aspect ratio), or '
            '"stretch"',
        )
    categories = how.settings.categories if how.settings else "id"
    listed = read_annotations(annotations, path, categories)
    images = _select_spread(listed, how.most)
    files = [image.file for image in images]
    facts = f"{look} {categories} {compute_files_digest([*files, annotations])} {how.most}"
    digest = hashlib.sha256(facts.encode()).hexdigest()
    folder = cache / "columns" / digest
    names = ("x", "y", "y_length", "y_letterbox")
    arrays = tuple(folder / f"{name}.npy" for name in names)
    seal = folder / "seal"
    if not are_files_sealed(seal, arrays):
        seal.unlink(missing_ok=True)
        places: list[tuple[float, ...]] = []
        boxes: list[NDArray[np.float64]] = []

        def add_boxes(number: int, pixels: Pixels) -> None:
            check_boxes(images[number], pixels.width, pixels.height)
            place, moved = _place_boxes(images[number].boxes, pixels, look)
            places.append(place)
            boxes.append(moved)

        _decode_images(source, files, arrays[0], look, tick, add_boxes)
        _save_boxes(arrays[1], boxes)
        save_array(arrays[2], np.array([len(each) for each in boxes], np.int64))
        save_array(arrays[3], np.array(places, np.float64))
        seal_files(seal, arrays)
    return DecodedImages(arrays=arrays, digest=digest)


def _place_boxes(
    boxes: NDArray[np.float64], pixels: Pixels, look: DecodeSettings
) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    """Return the letterbox of an image, and its boxes in pixels of the image to which it leads.

    Boxes of a stretched image are in pixels of the input, as IoU does not depend on the aspect
    ratio.
    """
    if look.mode == "letterbox":
        return (pixels.scale, pixels.left, pixels.top, pixels.width, pixels.height), boxes
    height, width = pixels.values.shape[:2]
    moved = boxes.copy()
    moved[:, 0:4:2] *= width / pixels.width
    moved[:, 1:4:2] *= height / pixels.height
    return (1.0, 0.0, 0.0, width, height), moved


def _save_boxes(target: Path, boxes: Sequence[NDArray[np.float64]]) -> None:
    """Write the boxes of all images, padded to the largest number of boxes.

    The padding is -1, which is not a class, so that it is never scored as boxes.
    """
    most = max(1, *(len(each) for each in boxes)) if boxes else 1
    with open_atomic(str(target)) as out:
        header = {"descr": "<f8", "fortran_order": False, "shape": (len(boxes), most, BOX_NUMBERS)}
        np.lib.format.write_array_header_1_0(out, header)
        for each in boxes:
            padded = np.full((most, BOX_NUMBERS), -1.0)
            padded[: len(each)] = each
            out.write(padded.astype("<f8").tobytes())


def read_image_sizes(source: str, path: Path, most: int) -> set[tuple[int, int]]:
    """Read widths and heights of up to ``most`` images from all over a folder, from the headers."""
    if annotations := _find_annotations(path):
        files = [image.file for image in read_annotations(annotations, path, "id")]
    else:
        files = [file for file, _ in _iter_image_rows(source, path)]
    return {read_image_size(file) for file in _select_spread(files, most)}


def _select_spread(rows: list[Row], most: int | None) -> list[Row]:
    """Select ``most`` evenly spread rows, as they may be sorted by class."""
    if most is None or len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)]


def _find_annotations(path: Path) -> Path | None:
    """Return the COCO annotations of a folder; labels in a CSV come first."""
    if any(table.is_file() for table in _list_label_files(path)):
        return None
    has_images = any(file.suffix.lower() in _IMAGES for file in path.iterdir())
    return find_annotations(path, has_images=has_images)


def _list_label_files(path: Path) -> tuple[Path, ...]:
    return path / "labels.csv", path.with_name(f"{path.name}.csv")


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
    for table in _list_label_files(path):
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
    source: str,
    files: Sequence[Path],
    target: Path,
    look: DecodeSettings,
    tick: Tick,
    use: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Write the images as uint8 NHWC, one at a time, and pass each one to ``use``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shape: tuple[int, ...] | None = None
    with open_atomic(str(target)) as out:
        for number, file in enumerate(files):
            tick(f"decoding {source}", number, len(files))
            pixels = decode_image(file, look)
            image = pixels.values
            if shape is None:
                shape = image.shape
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
                np.lib.format.write_array_header_1_0(out, header)
            if image.shape != shape:
                raise UserError(
                    f"{source}: {file.name} is {image.shape[1]}x{image.shape[0]}, the others are "
                    f"{shape[1]}x{shape[0]}",
                    hint='set [data.preprocess] resize and crop, or resize_mode = "letterbox"',
                )
            if use:
                use(number, pixels)
            out.write(image.tobytes())
