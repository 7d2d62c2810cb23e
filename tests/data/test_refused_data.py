"""Unusable data: one line names the column and the remedy."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec

GOOD = {"x": np.zeros((4, 3), np.float32), "label": np.zeros(4, np.int64)}


def spec(*shape, dtype="float32", name="features"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


@pytest.fixture
def refusal(tmp_path):
    def read(source, wanted=None, **how):
        with pytest.raises(UserError) as refused:
            open_dataset(
                source,
                Signature(inputs=(wanted or spec("N", 3),), outputs=()),
                folder=tmp_path,
                cache=tmp_path / "cache",
                **{"targets": "required"} | how,
            )
        assert "\n" not in refused.value.message
        return str(refused.value)

    return read


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": GOOD["x"]}, "no labels"),
        ({"label": GOOD["label"]}, "no array for the model input 'features'; arrays found: none"),
        ({"pixels": GOOD["x"], "label": GOOD["label"]}, "arrays found: pixels"),
        (GOOD | {"x": np.zeros((4, 5), np.float32)}, "samples of shape [5] do not fit"),
        (GOOD | {"x": np.zeros((3, 3), np.float32)}, "number of samples: features 3, label 4"),
        (GOOD | {"x": np.zeros((4, 3), np.int64)}, "int64 cannot be fed to a float32"),
        (
            GOOD | {"x": np.array([[0, 0, 0]] * 2 + [[0, np.nan, 0]] * 2, "f4")},
            "sample 2 has NaN",
        ),
        (GOOD | {"label": np.array([1, 2, np.nan, 4])}, "label: sample 2 has NaN"),
        (GOOD | {"y_box": np.array([1, 2, 3, np.inf])}, "y_box: sample 3 has NaN or infinite"),
        (GOOD | {"y_box": np.zeros(3)}, "number of samples: features 4, label 4, y_box 3"),
        (GOOD | {"group": np.zeros(3, int)}, "number of samples: features 4, label 4, group 3"),
        (GOOD | {"group": np.zeros(4)}, "group: must be one text or integer per sample"),
        (GOOD | {"group": np.zeros((4, 2), int)}, "group: must be one text or integer per sample"),
        (GOOD | {"slice_a": np.zeros(4)}, "slice_a: must be one text or integer per sample"),
        ({"x": GOOD["x"], "y_length": np.ones(4, int)}, "y_length: there is no array y"),
        (GOOD | {"y_length": np.ones(4, int)}, "label has one value per sample and no length"),
        (GOOD | {"y_y": np.ones(4)}, "y_y: a further target needs another name"),
        (
            {"x": GOOD["x"], "y": np.ones((4, 3)), "y_length": np.array([1, 2, 4, 3])},
            "y_length: 4 of sample 2 must be from 0 to 3, the size of y",
        ),
        (
            {"x": GOOD["x"], "y": np.ones((4, 3)), "y_length": np.array([1, 2, -1, 3])},
            "y_length: -1 of sample 2 must be from 0 to 3",
        ),
        (
            {"x": GOOD["x"], "y": np.ones((4, 3)), "y_length": np.ones(4)},
            "y_length: must be one integer per sample of y",
        ),
        (
            {"x": GOOD["x"], "y": np.array(["a", "b"] * 2), "y_length": np.ones(4, int)},
            "y: is text, which has a length of its own",
        ),
        ({"x": GOOD["x"], "y": np.full((4, 2), "a")}, "y: must be one text per sample"),
        (GOOD | {"x": np.float32(3)}, "a single value"),
        (GOOD | {"x": np.array(["a", "b", "c", "d"])}, "not numbers"),
        (GOOD | {"x": GOOD["x"].astype(">f4")}, "big-endian"),
        (GOOD | {"x": np.asfortranarray(np.ones((4, 3), "f4"))}, "Fortran"),
        ({"x": np.zeros((0, 3), np.float32), "label": np.zeros(0, np.int64)}, "has no samples"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, refusal, arrays, complaint):
    np.savez(tmp_path / "data.npz", **arrays)

    assert complaint in refusal("data.npz")


def test_an_array_of_objects_is_refused_without_being_unpickled(tmp_path, refusal):
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}] * 4), label=GOOD["label"])

    assert "not numbers" in refusal("data.npz")


def test_channels_in_the_wrong_place_come_with_the_setting_that_turns_them(tmp_path, refusal):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 3), np.float32), label=GOOD["label"])

    assert 'layout = "NCHW"' in refusal("data.npz", spec("N", 3, 8, 8))


def test_integer_pixels_are_not_turned_and_do_not_fit(tmp_path, refusal):
    # Preprocessing is for float inputs; one that takes bytes gets them as they are.
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 3), np.uint8), label=GOOD["label"])
    settings = PreprocessSettings(layout="NCHW")

    said = refusal("data.npz", spec("N", 3, 8, 8, dtype="uint8"), settings=settings)

    assert "samples of shape [8, 8, 3] do not fit" in said


def test_means_for_another_number_of_channels_are_refused(tmp_path, refusal):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 8, 8, 1), np.float32), label=GOOD["label"])
    settings = PreprocessSettings(mean=(0.4, 0.4, 0.5))

    said = refusal("data.npz", spec("N", 8, 8, 1), settings=settings)

    assert "mean has 3 values for 1 channels" in said


def test_an_input_without_an_axis_for_samples_is_refused(tmp_path, refusal):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 3), np.float32), label=GOOD["label"])

    assert "no sample axis" in refusal("data.npz", spec())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, refusal, save, share):
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    save(tmp_path / "data.npz", x=x, label=np.zeros(400, np.int64))
    data = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(data[: int(len(data) * share)])

    assert "data.npz" in refusal("data.npz")


def test_a_file_with_flipped_bytes_is_refused(tmp_path, refusal):
    x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    np.savez_compressed(tmp_path / "data.npz", x=x, label=np.zeros(400, np.int64))
    data = bytearray((tmp_path / "data.npz").read_bytes())
    data[1000:1040] = b"\xff" * 40
    (tmp_path / "data.npz").write_bytes(bytes(data))

    assert "data.npz: cannot be read" in refusal("data.npz")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("missing.npz", "no such file or folder"),
        ("text.npz", "not an .npz file"),
        ("boxes.json", "name that folder instead"),
        ("empty", "contains neither .npy files nor images"),
        ("no_such_module_here:load", "No module named"),
        ("wrong_data:absent", "no attribute"),
        ("wrong_data:fails", "ZeroDivisionError"),
        ("wrong_data:a_list", "must return a dict of arrays"),
        ("wrong_data:ragged", "wrong_data:ragged: x: not an array"),
        ("wrong_data:texts", "wrong_data:texts: x: contains <U1, not numbers"),
        ("wrong_data:single", "wrong_data:single: x: a single value"),
    ],
)
def test_an_invalid_source_is_refused(tmp_path, refusal, source, complaint):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "boxes.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong_data.py").write_text(
        "def fails(): return 1 / 0\n"
        "def a_list(): return [1]\n"
        "def ragged(): return {'x': [[1], [1, 2]]}\n"
        "def texts(): return {'x': ['a', 'b']}\n"
        "def single(): return {'x': 1.0}\n"
    )

    assert complaint in refusal(source)
