"""Image folders with COCO annotations: boxes and letterboxes of samples, and clear errors."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import open_dataset
from edgekit.data.images import read_image_sizes
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes import Tensor

LETTERBOX = PreprocessSettings(resize_mode="letterbox", layout="NCHW")
DOCUMENT = {
    "images": [
        {"id": 7, "file_name": "wide.png", "width": 40, "height": 20},
        {"id": 3, "file_name": "tall.png", "width": 10, "height": 30},
        {"id": 5, "file_name": "empty.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 4, "bbox": [1, 2, 3.5, 4], "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 9, "bbox": [20, 10, 10, 10]},
        {"id": 3, "image_id": 3, "category_id": 9, "bbox": [0, 0, 10, 30]},
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
}


def save_images(folder, document=DOCUMENT, name="annotations.json"):
    images = folder / "photos"
    images.mkdir(exist_ok=True)
    for file, size, color in (
        ("wide.png", (40, 20), (250, 100, 10)),
        ("tall.png", (10, 30), (20, 30, 40)),
        ("empty.png", (20, 20), (0, 0, 0)),
    ):
        Image.new("RGB", size, color).save(images / file)
    (images / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return "photos"


@pytest.fixture
def opened(tmp_path):
    def read(source="photos", settings=LETTERBOX, shape=("N", 3, 20, 20), **how):
        spec = TensorSpec(name="image", dtype="float32", shape=shape)
        return open_dataset(
            source,
            Signature(inputs=(spec,), outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            settings=settings,
            **{"targets": "required"} | how,
        )

    return read


def read_inputs(dataset, shape=("N", 3, 20, 20)):
    batches = iter_batches(dataset.samples, [Tensor("image", "float32", shape)], 1)
    return np.concatenate([batch.inputs["image"] for batch in batches])


@pytest.mark.parametrize(
    "name", ["annotations.json", "_annotations.coco.json", "instances.json", "../photos.json"]
)
def test_boxes_and_letterbox_of_each_image_are_read(tmp_path, opened, name):
    save_images(tmp_path, name=name)
    dataset = opened()
    wide, tall, empty = dataset.read_targets()
    assert wide["y"].tolist() == [[20, 10, 30, 20, 9, 0]]
    assert tall["y"].tolist() == [[1, 2, 4.5, 6, 4, 1], [0, 0, 10, 30, 9, 0]]
    assert empty["y"].shape == (0, 6)
    assert wide["letterbox"].tolist() == [0.5, 0, 5, 40, 20]
    assert tall["letterbox"].tolist() == pytest.approx([20 / 30, 6, 0, 10, 30])
    assert empty["letterbox"].tolist() == [1, 0, 0, 20, 20]
    inputs = read_inputs(dataset)
    assert inputs[0, :, 10, 10].tolist() == [250, 100, 10]
    assert inputs[0, :, 4, 10].tolist() == inputs[0, :, 15, 10].tolist() == [114] * 3
    assert inputs[0, :, 5, 0].tolist() == inputs[0, :, 14, 19].tolist() == [250, 100, 10]
    assert read_image_sizes("photos", tmp_path / "photos", 9) == {(40, 20), (10, 30), (20, 20)}


def test_images_in_the_corner_with_blue_first(tmp_path, opened):
    save_images(tmp_path)
    settings = LETTERBOX.model_copy(
        update={"pad": 7, "pad_position": "corner", "order": "BGR", "layout": "NHWC"}
    )
    dataset = opened(settings=settings, shape=("N", 16, 24, 3))
    wide, tall, _ = dataset.read_targets()
    assert wide["letterbox"].tolist() == [0.6, 0, 0, 40, 20]
    assert tall["letterbox"].tolist() == pytest.approx([16 / 30, 0, 0, 10, 30])
    inputs = read_inputs(dataset, ("N", 16, 24, 3))
    assert inputs[0, 0, 0].tolist() == inputs[0, 11, 23].tolist() == [10, 100, 250]
    assert inputs[0, 12, 0].tolist() == [7] * 3


def test_stretched_images_have_boxes_in_pixels_of_the_input(tmp_path, opened):
    save_images(tmp_path)
    dataset = opened(settings=PreprocessSettings(resize_mode="stretch", layout="NCHW"))
    wide, _, _ = dataset.read_targets()
    assert wide["y"].tolist() == [[10, 10, 15, 20, 9, 0]]
    assert wide["letterbox"].tolist() == [1, 0, 0, 20, 20]
    assert read_inputs(dataset)[0, 0].min() == 250


def test_categories_can_be_numbered_by_position(tmp_path, opened):
    save_images(tmp_path)
    dataset = opened(settings=LETTERBOX.model_copy(update={"categories": "position"}))
    assert [targets["y"][:, 4].tolist() for targets in dataset.read_targets()] == [[1], [0, 1], []]


def test_a_model_with_free_sizes_needs_the_size(tmp_path, opened):
    save_images(tmp_path)
    with pytest.raises(UserError, match=r"size = \[height, width\]"):
        opened(shape=("N", 3, None, None))
    sized = LETTERBOX.model_copy(update={"size": (8, 16)})
    assert opened(settings=sized, shape=("N", 3, None, None)).samples.columns[0].shape == (
        *(3, 8, 16),
        3,
    )
    with pytest.raises(UserError, match=r"size: \[8, 16\], but the input"):
        opened(settings=sized)


def test_changed_annotations_are_read_again(tmp_path, opened):
    save_images(tmp_path)
    first = opened()
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][1]["bbox"] = [0, 0, 5, 5]
    save_images(tmp_path, document)
    assert next(opened().read_targets())["y"][0, :4].tolist() == [0, 0, 5, 5]
    assert opened().digest != first.digest
    assert opened(targets="none").samples.label is None


def test_a_json_beside_folders_of_classes_is_something_else(tmp_path, opened):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "cat" / "1.png")
    (tmp_path / "photos.json").write_text("{}")
    assert opened(settings=PreprocessSettings(layout="NCHW")).count == 1


def test_boxes_need_a_mode_of_resizing(tmp_path, opened):
    save_images(tmp_path)
    with pytest.raises(UserError, match='resize_mode = "letterbox"'):
        opened(settings=None, shape=("N", 20, 20, 3))


def change(**changes):
    """The document with other lists, or with other entries of the first image or annotation."""
    document = copy.deepcopy(DOCUMENT)
    for key, value in changes.items():
        if key in document or value is None:
            document[key] = value
        elif key in ("file_name", "width", "id"):
            document["images"][0][key] = value
        else:
            document["annotations"][0][key] = value
    return document


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "not a JSON file"),
        ('{"images": [], "images": []}', "is repeated"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not in COCO format: there is no list of objects 'images'"),
        (change(annotations=None), "no list of objects 'annotations'"),
        (change(images=[1]), "no list of objects 'images'"),
        (change(images=[], annotations=[]), "lists no images"),
        (change(categories={}), "no list of objects 'categories'"),
        (change(categories=[{"id": 1}, {"id": 1}]), "two categories have the same id"),
        (change(categories=[{"id": 9}]), "annotations[0]: there is no category with the id 4"),
        (change(id=3), "images[1]: the id 3 occurs twice"),
        (change(id="seven"), "images[0]: id must be an integer"),
        (change(id=-1), "images[0]: id must be an integer from 0 on"),
        (change(image_id=99), "annotations[0]: there is no image with the id 99"),
        (change(category_id=True), "annotations[0]: category_id must be an integer"),
        (change(bbox=[1, 2, 3]), "bbox must be x, y, width, height"),
        (change(bbox=[1, 2, -3, 4]), "bbox must be x, y, width, height"),
        (change(bbox=[1, 2, 3, "4"]), "bbox must be x, y, width, height"),
        (change(bbox=[1, 2, 3, 1e999]), "not a JSON file that can be read"),
        (change(bbox=[100, 2, 3, 4]), "10x30, but a box lies outside: 100, 2, 103, 6"),
        (change(iscrowd=2), "iscrowd must be 0 or 1"),
        (change(file_name="none.png"), "no image none.png in"),
        (change(file_name="../photos/wide.png"), "must be a path inside"),
        (change(file_name="/etc/hostname"), "must be a path inside"),
        (change(file_name=5), "file_name must be the path"),
        (change(width=20), "wide.png: 40x20, but its annotations are for 20x20"),
        (
            change(annotations=[DOCUMENT["annotations"][0]] * 5001),
            "annotations[5000]: image 3 has more than 5000 boxes",
        ),
    ],
)
def test_wrong_annotations_say_where_they_are_wrong(tmp_path, opened, document, told):
    save_images(tmp_path, document)
    with pytest.raises(UserError) as caught:
        opened()
    assert told in caught.value.message
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_pipe_in_place_of_annotations_is_refused(tmp_path, opened):
    import os

    save_images(tmp_path)
    (tmp_path / "photos" / "annotations.json").unlink()
    os.mkfifo(tmp_path / "photos" / "annotations.json")
    with pytest.raises(UserError, match="not a regular file"):
        opened()


def test_classes_have_the_names_of_their_categories(tmp_path, opened):
    save_images(tmp_path)
    assert opened(settings=LETTERBOX).class_names == {9: "dog", 4: "cat"}
    by_position = LETTERBOX.model_copy(update={"categories": "position"})
    assert opened(settings=by_position).class_names == {1: "dog", 0: "cat"}
