"""Targets of every shape, padded ones cut to their lengths, and groups and slices of samples."""

from __future__ import annotations

import tracemalloc
import zipfile

import numpy as np
import pytest

from edgekit.config.project import load_project
from edgekit.data.dataset import open_dataset
from edgekit.data.streaming_states import add_states
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.io import read_onnx
from edgekit.pipeline.model_settings import read_feeding
from edgekit.progress import ignore_progress
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.metrics.ragged import cut_ragged
from edgekit_agent.runtimes import Tensor
from tests.builders.stateful import growing_by_hand, growing_model
from tests.builders.tiny import normal

X = np.arange(20, dtype=np.float32).reshape(5, 4)


@pytest.fixture
def opened(tmp_path):
    def read(use="required", name="x", save=np.savez, **arrays):
        save(tmp_path / "data.npz", **({"x": X} | arrays))
        spec = TensorSpec(name=name, dtype="float32", shape=("N", 4))
        return open_dataset(
            "data.npz",
            Signature(inputs=(spec,), outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            targets=use,
        )

    return read


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_targets_have_any_shape_and_type(opened, save):
    mask = np.arange(60).reshape(5, 3, 4).astype(np.uint8)
    box = np.linspace(0, 1, 40).reshape(5, 2, 4)

    found = list(opened(y=mask, y_box=box, save=save).read_targets())

    assert [sorted(each) for each in found] == [["box", "y"]] * 5
    np.testing.assert_array_equal([each["y"] for each in found], mask)
    np.testing.assert_array_equal([each["box"] for each in found], box)
    assert found[0]["y"].dtype == np.uint8


def test_padded_targets_are_cut_to_the_lengths_of_their_samples(opened):
    y = np.arange(30.0).reshape(5, 3, 2)
    box = np.arange(20).reshape(5, 4)
    lengths, boxes = np.array([0, 1, 2, 3, 1]), np.array([4, 3, 2, 1, 0])

    found = list(
        opened(y=y, y_length=lengths, y_box=box, y_box_length=boxes, y_free=X).read_targets()
    )

    for i, each in enumerate(found):
        assert sorted(each) == ["box", "free", "y"]
        np.testing.assert_array_equal(each["y"], y[i, : lengths[i]])
        np.testing.assert_array_equal(each["box"], box[i, : boxes[i]])


def test_padding_may_hold_nan_but_values_may_not(opened):
    y = np.arange(15.0).reshape(5, 3)
    y[2, 1:] = np.nan

    assert opened(y=y, y_length=np.array([3, 3, 1, 3, 3])).count == 5
    with pytest.raises(UserError, match="y: sample 2 has NaN"):
        opened(y=y, y_length=np.array([3, 3, 2, 3, 3]))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_texts_become_code_points(opened, save):
    texts = ["two words", "", "日本", "a\0b", "end\0"]

    found = list(opened(y=np.array(texts), y_second=np.array(texts), save=save).read_targets())

    assert found[0]["y"].dtype == np.int32
    read = ["".join(map(chr, each["y"])) for each in found]
    assert read == ["two words", "", "日本", "a\0b", "end"]  # numpy drops zeros at the end
    assert ["".join(map(chr, each["second"])) for each in found] == read


def test_bytes_that_are_no_text_are_refused(tmp_path, opened):
    opened(y=np.array(["ab"] * 5))
    code = "ab".encode("utf-32-le")
    for wrong in (b"\xff\xff\xff\xff", b"\x00\xd8\x00\x00", b"\x00\x00\x11\x00"):
        with zipfile.ZipFile(tmp_path / "data.npz") as archive:
            arrays = {name: archive.read(name) for name in archive.namelist()}
        arrays["y.npy"] = arrays["y.npy"].replace(code, wrong + code[4:])
        with zipfile.ZipFile(tmp_path / "wrong.npz", "w") as archive:
            for name, content in arrays.items():
                archive.writestr(name, content)
        spec = TensorSpec(name="x", dtype="float32", shape=("N", 4))
        with pytest.raises(UserError, match="y: sample 0 is not text"):
            open_dataset(
                "wrong.npz",
                Signature(inputs=(spec,), outputs=()),
                folder=tmp_path,
                cache=tmp_path / "cache",
                targets="required",
            )


def test_targets_are_optional_or_left_out_as_asked(opened):
    assert list(opened("optional").read_targets()) == []
    assert opened("optional", y=X).samples.label is not None
    unused = opened("none", y=X, y_box=X, group=np.zeros(5))
    assert unused.samples.get_targets() == {}
    assert unused.groups is None
    assert unused.notes == ()


def test_an_input_with_the_name_of_a_target_is_an_input(opened):
    found = opened(name="y_previous", y_previous=X, y=np.ones(5))

    assert sorted(found.samples.get_targets()) == ["y"]


def test_a_second_array_of_labels_is_noted(opened):
    found = opened(label=np.arange(5), y=np.ones(5))

    assert found.notes == ("data.npz: the array y is not used, as label is the target",)
    assert [int(each["y"]) for each in found.read_targets()] == [0, 1, 2, 3, 4]


def test_batches_hold_the_targets_of_their_rows(opened):
    box = np.arange(20).reshape(5, 4)
    found = opened(y=np.arange(5), y_x=box, y_x_length=np.full(5, 2))

    batches = list(iter_batches(found.samples, [Tensor("x", "float32", ("N", 4))], 2))

    assert [sorted(b.targets) for b in batches] == [["x", "x_length", "y"]] * 3
    np.testing.assert_array_equal(np.concatenate([b.targets["x"] for b in batches]), box)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), np.arange(5))
    cut = cut_ragged({name: rows[1] for name, rows in batches[1].targets.items()})
    np.testing.assert_array_equal(cut["x"], box[3, :2])


def test_the_first_samples_keep_their_targets_groups_and_slices(opened):
    found = opened(y=X, y_box=X + 1, group=np.array([7, 7, 3, 3, 3]), slice_night=X[:, 0] > 5)

    first = found.first(3)

    np.testing.assert_array_equal([t["box"] for t in first.read_targets()], X[:3] + 1)
    assert first.groups.tolist() == [1, 1, 0]
    assert first.slices["night"].tolist() == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (np.array(["ann", "bob", "ann", "", "bob"]), [1, 2, 1, 0, 2]),
        (np.array([[9], [-4], [9], [2], [2]]), [2, 0, 2, 1, 1]),
    ],
)
def test_groups_are_numbered(opened, group, expected):
    assert opened(y=X, group=group, sequence=np.arange(5)).groups.tolist() == expected


def test_the_steps_of_a_sequence_are_a_group_unless_groups_are_given(opened):
    assert opened(y=X, sequence=np.array([4, 4, 8, 8, 8])).groups.tolist() == [0, 0, 1, 1, 1]
    assert opened(y=X).groups is None


def test_slices_are_labels_by_name(opened):
    found = opened(
        y=X, slice_city=np.array(["Ulm", "Bonn", "Ulm", "Ulm", ""]), slice_n=np.arange(5)
    )

    assert found.slices["city"].tolist() == ["Ulm", "Bonn", "Ulm", "Ulm", ""]
    assert found.slices["n"].tolist() == ["0", "1", "2", "3", "4"]


def test_large_targets_are_never_in_memory_as_a_whole(opened):
    y = np.random.default_rng(0).integers(0, 255, (5, 4 << 20), np.uint8)
    size = y.nbytes
    found = opened(y=y)
    del y

    tracemalloc.start()
    assert sum(len(each["y"]) for each in found.read_targets()) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < size * 0.6


@pytest.mark.parametrize("length", [np.int64(-1), np.int64(4), np.float64(1), np.arange(3)])
def test_a_length_that_does_not_fit_is_refused(length):
    with pytest.raises(AgentError, match="y_length: must be one integer from 0 to 3"):
        cut_ragged({"y": np.zeros((3, 2)), "y_length": np.asarray(length)})


def test_a_length_without_its_target_is_a_target():
    kept = cut_ragged({"y": np.zeros(3), "line_length": np.asarray(2)})

    assert sorted(kept) == ["line_length", "y"]


def test_targets_are_kept_with_the_rows_of_their_steps(tmp_path):
    path = growing_model(tmp_path)
    sequence = np.repeat([0, 1, 2], [9, 6, 8])
    x = normal(len(sequence), 1, 4, seed=2)
    states, _ = growing_by_hand(path, x, sequence)
    y, box = np.arange(len(x)), np.arange(2 * len(x)).reshape(-1, 2)
    np.savez(tmp_path / "steps.npz", x=x, sequence=sequence, y=y, y_x=box)
    kept = [number for number, state in enumerate(states) if len(state) == 5]
    model, cache = read_onnx(path), tmp_path / "cache"
    split = open_dataset(
        "steps.npz",
        model.signature,
        folder=tmp_path,
        cache=cache,
        feeding=read_feeding(tmp_path, load_project(tmp_path), model),
        targets="required",
    )

    for _ in range(2):  # the second time from the cache
        found = add_states(split, model, dims={}, cache=cache, tick=ignore_progress)

        assert [int(each["y"]) for each in found.read_targets()] == kept
        assert np.array_equal([each["x"] for each in found.read_targets()], box[kept])
