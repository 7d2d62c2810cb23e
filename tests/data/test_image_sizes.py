"""Images that keep their own sizes: decoded, padded in the cache, and fed as they are."""

from __future__ import annotations

import json

import numpy as np
import pydantic
import pytest
from PIL import Image

from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.runs.activations import to_agent_tensor
from edgekit_agent.measure.feeds import iter_batches

RNG = np.random.default_rng(1)
SIZES = {"a.png": (12, 20), "b.png": (16, 8), "c.png": (9, 9)}


@pytest.fixture
def pictures(tmp_path):
    made = {}
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        made[name] = RNG.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(made[name]).save(tmp_path / "data" / "images" / name)
    return made


def opened(folder, height="H", width="W", source="data", **settings):
    spec = TensorSpec(name="image", dtype="float32", shape=("N", 3, height, width))
    how = PreprocessSettings(layout="NCHW", **settings)
    return spec, open_dataset(
        source,
        Signature(inputs=(spec,), outputs=()),
        folder=folder,
        cache=folder / "cache",
        settings=how,
        targets="optional",
    )


def feeds(spec, dataset):
    return list(iter_batches(dataset.samples, [to_agent_tensor(spec)], 1))


def test_images_and_their_masks_keep_their_sizes(tmp_path, pictures):
    masks = {}
    (tmp_path / "data" / "masks").mkdir()
    for name, size in SIZES.items():
        masks[name] = RNG.integers(0, 4, size).astype(np.uint8)
        Image.fromarray(masks[name]).save(tmp_path / "data" / "masks" / name)

    spec, found = opened(tmp_path, size="own")

    for batch, name in zip(feeds(spec, found), SIZES, strict=True):
        wanted = pictures[name].transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        np.testing.assert_array_equal(batch.inputs["image"], wanted)
    for targets, name in zip(found.read_targets(), SIZES, strict=True):
        np.testing.assert_array_equal(targets["y"], masks[name])


def test_the_aspect_ratio_is_kept_after_resizing(tmp_path, pictures):
    spec, found = opened(tmp_path, source="data/images", size="own", resize=16)

    for batch, name in zip(feeds(spec, found), SIZES, strict=True):
        with Image.open(tmp_path / "data" / "images" / name) as image:
            ratio = 16 / min(image.size)
            size = (round(image.width * ratio), round(image.height * ratio))
            resized = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(batch.inputs["image"][0], resized.transpose(2, 0, 1))


def test_boxes_are_in_pixels_of_the_resized_image(tmp_path, pictures):
    folder = tmp_path / "data" / "images"
    images = [
        {"id": number, "file_name": name, "height": h, "width": w}
        for number, (name, (h, w)) in enumerate(SIZES.items())
    ]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 4, 4, 8], "area": 32, "iscrowd": 0}
    (folder / "annotations.json").write_text(
        json.dumps(
            {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "it"}]}
        )
    )

    spec, found = opened(tmp_path, source="data/images", size="own", resize=16)

    boxes = [targets["y"] for targets in found.read_targets()]
    assert [len(each) for each in boxes] == [0, 1, 0]
    np.testing.assert_allclose(boxes[1][0, :4], [4, 8, 12, 24])
    assert feeds(spec, found)[1].inputs["image"].shape == (1, 3, 32, 16)


def test_images_of_one_size_are_fed_as_without_the_setting(tmp_path, pictures):
    for name in ("b.png", "c.png"):
        (tmp_path / "data" / "images" / name).unlink()

    _, found = opened(tmp_path, source="data/images", size="own")

    assert not found.samples.lengths
    assert found.samples.columns[0].shape == (1, 12, 20, 3)


def test_a_model_of_one_size_refuses_images_of_their_own(tmp_path, pictures):
    with pytest.raises(UserError, match=r'size: "own", but the input .* \[16, 16\]') as refused:
        opened(tmp_path, 16, 16, source="data/images", size="own")
    assert "letterbox" in refused.value.hint
    with pytest.raises(UserError, match=r"sizes from 9 to 16 where the model input .* takes 16"):
        opened(tmp_path, 16, "W", source="data/images", size="own")


def test_without_the_setting_the_error_names_it(tmp_path, pictures):
    with pytest.raises(UserError, match=r"b\.png is 8x16, the others are 20x12") as refused:
        opened(tmp_path, source="data/images")
    assert 'size = "own"' in refused.value.hint


@pytest.mark.parametrize("more", [{"crop": 8}, {"resize_mode": "stretch"}])
def test_settings_that_contradict_each_other_are_refused(more):
    with pytest.raises(pydantic.ValidationError, match="excludes 'resize_mode' and 'crop'"):
        PreprocessSettings(size="own", **more)
