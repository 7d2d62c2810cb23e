"""Folders of images with labels, texts, masks or boxes, decoded once into arrays on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import PreprocessSettings
from edgekit.data.cached_arrays import (
    Locate,
    build_cached_table,
    check_padded_size,
    compute_files_digest,
    open_padded_rows,
    save_array,
)
from edgekit.data.coco import (
    BOX_NUMBERS,
    check_boxes,
    find_annotations,
    read_annotations,
)
from edgekit.data.listed_files import list_files, list_label_files, select_spread
from edgekit.data.masks import MaskedImage, MaskWriter, list_masked_images
from edgekit.data.pixels import (
    build_decode_settings,
    compute_own_size,
    decode_image,
    read_image_size,
)
from edgekit.data.table import Table
from edgekit.errors import UserError
from edgekit.progress import Tick
from edgekit_agent.files import open_atomic
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.preprocess.images import Pixels
from edgekit_agent.preprocess.settings import DecodeSettings

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_VERSION = 1
_LENGTH, _MASK_LENGTH = get_length_name("x"), get_length_name("y")


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


def read_images(source: str, path: Path, cache: Path, how: ImageSettings, tick: Tick) -> Table:
    """Decode the images of a folder, or reuse an earlier result.

    Args:
        source: The user's name of the folder, for messages.
        path: The folder, with a ``labels.csv`` (``file`` and ``label`` or ``text``), a CSV of the
            folder's name beside it, COCO annotations (``annotations.json``, or a JSON of the
            folder's name beside it), the subfolders ``images`` and ``masks``, or a subfolder per
            class, labeled 0, 1, ... in the order of their names.
        cache: Folder for the arrays.
        how: Sizes, channels, and number of images.
        tick: Progress callback.

    Returns:
        The images ``x`` (uint8 NHWC), and their targets: ``label``, texts or masks ``y``; or the
        boxes ``y`` [N, M, 6] padded, ``y_length`` [N] and ``y_letterbox`` [N, 5]. Images that keep
        their sizes are padded, with their sizes ``x_length``, and so are their masks.

    Raises:
        UserError: There are no images, one is unreadable, their sizes differ, or targets are wrong.
    """
    look = build_decode_settings(how.settings, gray=how.gray, size=how.size, source=source)
    if annotations := _find_annotations(path):
        return _read_annotated_images(source, path, annotations, look, cache, how, tick)
    if masked := list_masked_images(source, path, IMAGES):
        return _read_masked_images(source, select_spread(masked, how.most), look, cache, tick)
    listing = list_files(source, path, IMAGES).select_spread(how.most)
    if not listing.files:
        raise UserError(
            f"{source}: contains neither .npy files nor images",
            hint="images need a labels.csv (file,label), COCO annotations (annotations.json), "
            "subfolders images and masks, or one subfolder per class",
        )

    def fill(locate: Locate) -> None:
        _decode_images(source, listing.files, locate, look, tick)
        for name, values in listing.arrays.items():
            save_array(locate(name), values)

    facts = f"images {_VERSION} {look} {listing.describe()}"
    names = [*_list_image_arrays(look), *listing.arrays]
    table = build_cached_table(source, facts, names, fill, cache)
    return replace(table, class_names=listing.class_names)


def _list_image_arrays(look: DecodeSettings) -> list[str]:
    return ["x", _LENGTH] if look.keeps_sizes else ["x"]


def _read_masked_images(
    source: str, pairs: Sequence[MaskedImage], look: DecodeSettings, cache: Path, tick: Tick
) -> Table:
    """Decode images and the masks that are their targets."""
    images, masks = [pair.image for pair in pairs], [pair.mask for pair in pairs]

    def fill(locate: Locate) -> None:
        own = (locate(_MASK_LENGTH), _find_largest(images, look)) if look.keeps_sizes else ()
        with MaskWriter(locate("y"), masks, look, *own) as writer:
            _decode_images(source, images, locate, look, tick, writer.add)

    facts = f"masks {_VERSION} {look} {compute_files_digest([*images, *masks])}"
    names = [*_list_image_arrays(look), "y", *([_MASK_LENGTH] if look.keeps_sizes else [])]
    return build_cached_table(source, facts, names, fill, cache)


def _read_annotated_images(
    source: str,
    path: Path,
    annotations: Path,
    look: DecodeSettings,
    cache: Path,
    how: ImageSettings,
    tick: Tick,
) -> Table:
    """Decode the images that a COCO annotation file lists, and store their boxes beside them."""
    if look.mode is None and not look.keeps_sizes:
        raise UserError(
            f"{source}: images with boxes need a resize_mode",
            hint='set [data.preprocess] resize_mode = "letterbox" (keeps the aspect ratio) or '
            '"stretch", or size = "own"',
        )
    categories = how.settings.categories if how.settings else "id"
    found = read_annotations(annotations, path, categories)
    images = select_spread(found.images, how.most)
    files = [image.file for image in images]
    places: list[tuple[float, ...]] = []
    boxes: list[NDArray[np.float64]] = []

    def add_boxes(number: int, pixels: Pixels) -> None:
        check_boxes(images[number], pixels.width, pixels.height)
        place, moved = _place_boxes(images[number].boxes, pixels, look)
        places.append(place)
        boxes.append(moved)

    def fill(locate: Locate) -> None:
        _decode_images(source, files, locate, look, tick, add_boxes)
        _save_boxes(locate("y"), boxes)
        save_array(locate("y_length"), np.array([len(each) for each in boxes], np.int64))
        save_array(locate("y_letterbox"), np.array(places, np.float64))

    digest = compute_files_digest([*files, annotations])
    facts = f"boxes {_VERSION} {look} {categories} {digest} {how.most}"
    names = [*_list_image_arrays(look), "y", "y_length", "y_letterbox"]
    table = build_cached_table(source, facts, names, fill, cache)
    return replace(table, class_names=found.class_names)


def _place_boxes(
    boxes: NDArray[np.float64], pixels: Pixels, look: DecodeSettings
) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    """Return the letterbox of an image, and its boxes in pixels of the image to which it leads.

    Boxes of a stretched image, or of one that keeps its size, are in pixels of the input; IoU does
    not depend on the aspect ratio.
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
        files = [image.file for image in read_annotations(annotations, path, "id").images]
    elif masked := list_masked_images(source, path, IMAGES):
        files = [pair.image for pair in masked]
    else:
        files = list(list_files(source, path, IMAGES).files)
    return {read_image_size(file) for file in select_spread(files, most)}


def _find_annotations(path: Path) -> Path | None:
    """Return the COCO annotations of a folder; labels in a CSV come first."""
    if any(table.is_file() for table in list_label_files(path)):
        return None
    has_images = any(file.suffix.lower() in IMAGES for file in path.iterdir())
    return find_annotations(path, has_images=has_images)


def _find_largest(files: Sequence[Path], look: DecodeSettings) -> tuple[int, int]:
    """Find the largest height and the largest width of images that keep their sizes."""
    sizes = [compute_own_size(file, look) for file in files]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _decode_images(
    source: str,
    files: Sequence[Path],
    locate: Locate,
    look: DecodeSettings,
    tick: Tick,
    use: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Write the images as uint8 NHWC, one at a time, and pass each one to ``use``."""
    shape: tuple[int, ...] | None = None
    lengths: Path | None = None
    if look.keeps_sizes:
        lengths, shape = locate(_LENGTH), (*_find_largest(files, look), look.channels)
        check_padded_size(source, len(files), "uint8", shape)
    with ExitStack() as stack:
        append: Callable[[NDArray[np.uint8]], None] | None = None
        for number, file in enumerate(files):
            tick(f"decoding {source}", number, len(files))
            pixels = decode_image(file, look)
            image = pixels.values
            shape = shape or image.shape
            if append is None:
                rows = open_padded_rows(locate("x"), lengths, "uint8", shape)
                append = stack.enter_context(rows)
            if image.shape != shape and not look.keeps_sizes:
                raise UserError(
                    f"{source}: {file.name} is {image.shape[1]}x{image.shape[0]}, the others are "
                    f"{shape[1]}x{shape[0]}",
                    hint='set [data.preprocess] resize and crop, or resize_mode = "letterbox"; '
                    'size = "own" if the model takes images of any size',
                )
            if use:
                use(number, pixels)
            append(image)
