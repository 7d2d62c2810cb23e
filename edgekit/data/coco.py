"""COCO annotations: the boxes of the images in a folder.

Format: https://cocodataset.org/#format-data. A file has ``images`` (``id``, ``file_name``),
``annotations`` (``image_id``, ``category_id``, ``bbox`` as x, y, width, height in pixels of the
image, ``iscrowd``) and ``categories``. Other keys, such as segmentations, are not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.bounded_reading import read_regular
from edgekit.data.table import clean_class_name
from edgekit.errors import UserError
from edgekit_agent import strictjson

# Columns of a box: x1, y1, x2, y2, class, crowd.
BOX_NUMBERS = 6
_NAMES = ("annotations.json", "_annotations.coco.json", "instances.json")
_MOST_BYTES = 1 << 29
# All images are padded to the largest number of boxes: most boxes of one image, and of all.
_MOST_BOXES = 5000
_MOST_PADDED = 1 << 25
_MOST_ID = 1 << 53


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedImage:
    """An image file with its boxes [M, 6] in pixels of the file.

    ``size`` is its width and height as the annotations say; ``None`` if they do not.
    """

    file: Path
    boxes: NDArray[np.float64]
    size: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Images of an annotation file in the order of its list, and the names of their classes."""

    images: Sequence[AnnotatedImage]
    class_names: Mapping[int, str]


def find_annotations(folder: Path, *, has_images: bool) -> Path | None:
    """Find the annotation file of an image folder; ``None`` if there is none.

    Args:
        folder: The folder.
        has_images: Whether images lie directly in the folder. If not, they are in a folder for each
            class, and ``FOLDER.json`` beside it is something else.
    """
    beside = [folder.with_name(f"{folder.name}.json")] if has_images else []
    places = [*beside, *(folder / name for name in _NAMES)]
    return next((place for place in places if place.exists()), None)


def read_annotations(
    path: Path, folder: Path, categories: Literal["id", "position"]
) -> Annotations:
    """Read the images that an annotation file lists, with their boxes.

    Args:
        path: The annotation file.
        folder: Folder of the images.
        categories: Whether the class of a box is the ``id`` of its category, or the position of
            this id among all.

    Raises:
        UserError: The file is not in COCO format, an image is missing, or a box is wrong.
    """
    document = _read_document(path)
    numbers = _number_categories(document, path, by_position=categories == "position")
    images: dict[int, dict[str, Any]] = {}
    for place, image in enumerate(document["images"]):
        where = f"{path}: images[{place}]"
        number = _read_integer(image, "id", where)
        if number in images:
            raise UserError(f"{where}: the id {number} occurs twice")
        images[number] = image
    if not images:
        raise UserError(f"{path}: lists no images")
    boxes: dict[int, list[tuple[float, ...]]] = {number: [] for number in images}
    for place, annotation in enumerate(document["annotations"]):
        where = f"{path}: annotations[{place}]"
        number = _read_integer(annotation, "image_id", where)
        if number not in images:
            raise UserError(f"{where}: there is no image with the id {number}")
        boxes[number].append(_read_box(annotation, numbers, where))
        if len(boxes[number]) > _MOST_BOXES:
            raise UserError(f"{where}: image {number} has more than {_MOST_BOXES} boxes")
    most = max(map(len, boxes.values()))
    if most * len(images) > _MOST_PADDED:
        raise UserError(
            f"{path}: {len(images)} images, padded to {most} boxes each, are too many",
            hint="split the images with the most boxes from the others",
        )
    found = [
        AnnotatedImage(
            file=_find_image(image, folder, f"{path}: images[{place}]"),
            boxes=np.array(boxes[number], np.float64).reshape(-1, BOX_NUMBERS),
            size=_read_size(image, f"{path}: images[{place}]"),
        )
        for place, (number, image) in enumerate(images.items())
    ]
    return Annotations(images=found, class_names=_read_class_names(document, numbers))


def check_boxes(image: AnnotatedImage, width: int, height: int) -> None:
    """Check that the boxes of an image belong to a file of this size.

    Raises:
        UserError: The annotations give another size, or a box begins outside the image.
    """
    if image.size and image.size != (width, height):
        raise UserError(
            f"{image.file}: {width}x{height}, but its annotations are for "
            f"{image.size[0]}x{image.size[1]}",
            hint="boxes must be in pixels of the file; was the image resized or rotated?",
        )
    outside = (image.boxes[:, 0] > width) | (image.boxes[:, 1] > height)
    outside |= (image.boxes[:, 2] < 0) | (image.boxes[:, 3] < 0)
    if outside.any():
        box = image.boxes[int(np.argmax(outside)), :4].tolist()
        raise UserError(
            f"{image.file}: {width}x{height}, but a box lies outside: "
            f"{', '.join(f'{number:g}' for number in box)} (x1, y1, x2, y2)",
            hint="boxes must be in pixels of the file: x, y, width, height",
        )


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = strictjson.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: not a JSON file that can be read: {error}") from error
    for key in ("images", "annotations"):
        listed = document.get(key) if isinstance(document, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise UserError(
                f"{path}: not in COCO format: there is no list of objects {key!r}",
                hint="if it belongs to something else, move it to another folder",
            )
    found: dict[str, Any] = document
    return found


def _number_categories(
    document: dict[str, Any], path: Path, *, by_position: bool
) -> dict[int, int] | None:
    """Return the class of each category id; ``None`` if the file lists no categories."""
    listed = document.get("categories")
    if listed is None and not by_position:
        return None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise UserError(f"{path}: not in COCO format: there is no list of objects 'categories'")
    ids = sorted(
        _read_integer(each, "id", f"{path}: categories[{place}]")
        for place, each in enumerate(listed)
    )
    if len(set(ids)) < len(ids):
        raise UserError(f"{path}: two categories have the same id")
    return {number: place if by_position else number for place, number in enumerate(ids)}


def _read_class_names(
    document: dict[str, Any], numbers: Mapping[int, int] | None
) -> dict[int, str]:
    """Return the names of the classes that have one."""
    return {
        number: clean_class_name(each["name"])
        for each in document.get("categories") or ()
        if isinstance(each.get("name"), str)
        and (number := (numbers or {}).get(each.get("id"))) is not None
    }


def _read_integer(entry: dict[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{where}: {key} must be an integer")
    if not 0 <= value < _MOST_ID:
        raise UserError(f"{where}: {key} must be an integer from 0 on")
    return value


def _read_box(
    annotation: dict[str, Any], numbers: dict[int, int] | None, where: str
) -> tuple[float, ...]:
    category = _read_integer(annotation, "category_id", where)
    if numbers is not None and category not in numbers:
        raise UserError(f"{where}: there is no category with the id {category}")
    box: Any = annotation.get("bbox")
    numeric = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
    if not numeric or min(box[2:]) < 0:
        raise UserError(f"{where}: bbox must be x, y, width, height in pixels")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UserError(f"{where}: iscrowd must be 0 or 1")
    x, y, width, height = map(float, box)
    label = category if numbers is None else numbers[category]
    return (x, y, x + width, y + height, float(label), float(crowd))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _find_image(image: dict[str, Any], folder: Path, where: str) -> Path:
    name = image.get("file_name")
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{where}: file_name must be the path of an image")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{where}: file_name {name!r} must be a path inside {folder}")
    # Some tools write the name of the folder into the path.
    for place in (folder / relative, folder / relative.name):
        if place.is_file():
            return place
    raise UserError(f"{where}: no image {name} in {folder}")


def _read_size(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    if image.get("width") is None or image.get("height") is None:
        return None
    return _read_integer(image, "width", where), _read_integer(image, "height", where)
