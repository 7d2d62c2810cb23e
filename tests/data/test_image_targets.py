"""Targets of images other than classes: masks, texts and values."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekit.config.project import PreprocessSettings
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec

RNG = np.random.default_rng(1)


def picture(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels), mode).save(path)


def classes(height, width, count=4):
    return RNG.integers(0, count, (height, width)).astype(np.uint8)


def colors(mask):
    """An image whose color says the class, so that both can be compared after resizing."""
    return np.stack([mask * 60] * 3, axis=2).astype(np.uint8)


@pytest.fixture
def opened(tmp_path):
    def read(height="H", width="W", *, targets="required", most=None, **settings):
        spec = TensorSpec(name="image", dtype="uint8", shape=("N", height, width, 3))
        return open_dataset(
            "data",
            Signature(inputs=(spec,), outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            settings=PreprocessSettings(**settings),
            targets=targets,
            most=most,
        )

    return read


def arrays(dataset):
    return read_column(dataset.samples.columns[0]), read_column(dataset.samples.label)


# ---------------------------------------------------------------- masks


def indexed(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    assert image.mode == "P"
    image.save(path)


def two_values(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask > 0).save(path)


def wide(path, mask):
    picture(path, mask.astype(np.uint16))


@pytest.mark.parametrize(
    ("save", "convert", "dtype"),
    [
        (picture, lambda mask: mask, "uint8"),
        (indexed, lambda mask: mask, "uint8"),
        (two_values, lambda mask: mask > 0, "uint8"),
        (wide, lambda mask: mask, "int32"),
    ],
)
def test_masks_hold_the_class_of_each_pixel(tmp_path, opened, save, convert, dtype):
    masks = [classes(6, 8) for _ in range(3)]
    for name, mask in zip("cab", masks, strict=True):
        picture(tmp_path / "data" / "images" / f"{name}.png", colors(mask))
        save(tmp_path / "data" / "masks" / f"{name}.png", mask)
    (tmp_path / "data" / "masks" / "notes.txt").write_text("from the second annotator")

    images, found = arrays(opened())

    assert found.dtype == dtype
    for image, mask, place in zip(images, found, (1, 2, 0), strict=True):
        np.testing.assert_array_equal(image, colors(masks[place]))
        np.testing.assert_array_equal(mask, convert(masks[place]))


def test_numbers_above_255_are_kept(tmp_path, opened):
    mask = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
    picture(tmp_path / "data" / "images" / "a.jpg", np.zeros((6, 8, 3), np.uint8))
    picture(tmp_path / "data" / "masks" / "a.png", mask)

    np.testing.assert_array_equal(arrays(opened())[1][0], mask)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"resize": 20, "crop": 16}, (16, 16)),
        ({"resize_mode": "stretch"}, (16, 24)),
        ({"resize_mode": "letterbox", "pad": 7}, (32, 32)),
        ({"resize_mode": "letterbox", "pad": 7, "pad_position": "corner"}, (32, 32)),
    ],
)
def test_masks_are_resized_like_their_images_without_mixing_classes(
    tmp_path, opened, settings, size
):
    # Large areas: away from their borders, the color of the image is that of the class.
    mask = np.kron(np.array([[0, 1, 2], [3, 2, 1]]), np.ones((40, 40))).astype(np.uint8)
    picture(tmp_path / "data" / "images" / "a.png", colors(mask))
    picture(tmp_path / "data" / "masks" / "a.png", mask)

    (image,), (found,) = arrays(opened(*size, **settings))

    assert found.shape == size
    assert set(np.unique(found)) <= {0, 1, 2, 3, 255}
    padded = found == 255
    assert padded.any() == (settings.get("resize_mode") == "letterbox")
    assert (image[padded] == 7).all()
    right = np.abs(image[~padded, 0] - found[~padded].astype(int) * 60) < 30
    assert right.mean() > 0.85


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda masks: (masks / "b.png").unlink(),
            "data: images/b.png needs one mask of its name in masks, found none",
        ),
        (
            lambda masks: picture(masks / "b.bmp", classes(6, 8)),
            "images/b.png needs one mask of its name in masks, found b.bmp and b.png",
        ),
        (
            lambda masks: picture(masks / "b.png", colors(classes(6, 8))),
            "a mask needs a class number for each pixel, but this image has colors (RGB)",
        ),
        (lambda masks: picture(masks / "b.png", classes(6, 9)), "b.png: 9x6, but its image is 8x6"),
        (lambda masks: (masks / "b.png").write_bytes(b"\x89PNG"), "b.png: not an image"),
        (
            lambda masks: (masks / "b.png").write_bytes((masks / "b.png").read_bytes()[:60]),
            "b.png: not an image",
        ),
    ],
)
def test_a_mask_that_does_not_belong_to_its_image_is_named(tmp_path, opened, spoil, complaint):
    for name in "ab":
        picture(tmp_path / "data" / "images" / f"{name}.png", colors(classes(6, 8)))
        picture(tmp_path / "data" / "masks" / f"{name}.png", classes(6, 8))
    spoil(tmp_path / "data" / "masks")

    with pytest.raises(UserError) as refused:
        opened()

    assert complaint in refused.value.message
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_masked_images_are_read_again_when_a_mask_changes(tmp_path, opened):
    picture(tmp_path / "data" / "images" / "a.png", colors(classes(6, 8)))
    picture(tmp_path / "data" / "masks" / "a.png", np.zeros((6, 8), np.uint8))
    first = opened()
    picture(tmp_path / "data" / "masks" / "a.png", np.ones((6, 8), np.uint8))
    second = opened()

    assert first.digest != second.digest
    assert arrays(second)[1].all()


def test_the_first_images_are_spread_over_the_folder(tmp_path, opened):
    for number in range(10):
        mask = np.full((6, 8), number, np.uint8)
        picture(tmp_path / "data" / "images" / f"{number}.png", colors(mask))
        picture(tmp_path / "data" / "masks" / f"{number}.png", mask)

    assert arrays(opened(most=3))[1][:, 0, 0].tolist() == [0, 3, 6]


# ---------------------------------------------------------------- texts and values


def test_a_table_of_texts_gives_code_points(tmp_path, opened):
    for name in "abc":
        picture(tmp_path / "data" / f"{name}.png", colors(classes(6, 8)))
    (tmp_path / "data.csv").write_text(
        'file,text,slice_font\nc.png,"1,5 l",serif\na.png,日本,sans\nb.png,,sans\n',
        encoding="utf-8",
    )

    found = opened()

    texts = ["".join(map(chr, each["y"])) for each in found.read_targets()]
    assert texts == ["1,5 l", "日本", ""]
    assert found.slices["font"].tolist() == ["serif", "sans", "sans"]


def test_a_table_of_values_gives_numbers(tmp_path, opened):
    for name in "ab":
        picture(tmp_path / "data" / f"{name}.png", colors(classes(6, 8)))
    (tmp_path / "data" / "labels.csv").write_text("file,y,camera\na.png,-0.5,left\nb.png,3,right\n")

    assert arrays(opened())[1].tolist() == [-0.5, 3]


def test_images_without_labels_do_for_calibration(tmp_path, opened):
    for name in "ab":
        picture(tmp_path / "data" / f"{name}.png", colors(classes(6, 8)))

    assert opened(targets="none").count == 2
    with pytest.raises(UserError, match="data: no labels"):
        opened()


def test_names_of_columns_are_no_paths(tmp_path, opened):
    picture(tmp_path / "data" / "a.png", colors(classes(6, 8)))
    (tmp_path / "data" / "labels.csv").write_text("file,label,slice_/../../../x\na.png,0,one\n")

    found = opened()

    assert found.slices["/../../../x"].tolist() == ["one"]
    assert not list(tmp_path.glob("*.npy"))


# ---------------------------------------------------------------- names of classes


def test_classes_have_the_names_of_their_folders_as_printable_text(tmp_path, opened):
    for name in ("cat", "dog\x1b[2J", "x" * 100):
        picture(tmp_path / "data" / name / "a.png", colors(classes(4, 4)))

    names = opened().class_names

    assert names == {0: "cat", 1: r"dog\x1b[2J", 2: "x" * 60 + "…"}
