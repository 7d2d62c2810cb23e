"""Samples that each have their own size: arrays padded to one size, with ``NAME_length``."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import open_dataset
from edgekit.data.duplicates import compare_splits
from edgekit.data.targets import iter_targets_and_inputs
from edgekit.errors import ExitCode, UserError
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.runs.activations import to_agent_tensor
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.metrics.ragged import cut_ragged

SIZES = [3, 1, 5, 5]


def signature(*specs):
    return Signature(
        inputs=tuple(TensorSpec(name=n, dtype=d, shape=shape) for n, d, shape in specs), outputs=()
    )


TOKENS = signature(("ids", "int64", ("N", "L")), ("mask", "int64", ("N", "L")))
SOUND = signature(("x", "float32", ("N", "T", 2)))
PHOTO = signature(("x", "float32", ("N", 3, "H", "W")))


def pad(rows, size, filling=0):
    padded = np.full((len(rows), *size), filling, rows[0].dtype)
    for place, row in zip(padded, rows, strict=True):
        place[tuple(map(slice, row.shape))] = row
    return padded


def make_sounds(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 2)).astype(np.float32) for n in SIZES]


@pytest.fixture
def opened(tmp_path):
    def read(wanted, name="data.npz", settings=None, **arrays):
        np.savez(tmp_path / name, **arrays)
        return open_dataset(
            name,
            wanted,
            folder=tmp_path,
            cache=tmp_path / "cache",
            settings=settings,
            targets="optional",
        )

    return read


def feeds(dataset, wanted, batch=1, first=0):
    tensors = [to_agent_tensor(spec) for spec in wanted.inputs]
    return list(iter_batches(dataset.samples, tensors, batch, first))


def test_each_sample_is_fed_at_its_own_size_and_padding_may_hold_anything(opened):
    rows = make_sounds()
    found = opened(SOUND, x=pad(rows, (9, 2), np.nan), x_length=np.array(SIZES))

    fed = feeds(found, SOUND)

    assert [batch.inputs["x"].shape for batch in fed] == [(1, n, 2) for n in SIZES]
    for batch, row in zip(fed, rows, strict=True):
        np.testing.assert_array_equal(batch.inputs["x"][0], row)
        assert batch.inputs["x"].flags.c_contiguous
    assert "data.npz: x: each sample is run at its own size (1 to 5)" in found.notes
    resumed = feeds(found, SOUND, first=2)
    assert [batch.start for batch in resumed] == [2, 3]
    np.testing.assert_array_equal(resumed[0].inputs["x"][0], rows[2])


def test_a_fixed_batch_is_filled_with_the_same_sample(opened):
    wanted = signature(("x", "float32", (3, "T", 2)))
    rows = make_sounds()
    found = opened(wanted, x=pad(rows, (9, 2), np.nan), x_length=np.array(SIZES))

    fed = feeds(found, wanted, batch=3)

    assert [(batch.start, batch.rows) for batch in fed] == [(n, 1) for n in range(4)]
    for batch, row in zip(fed, rows, strict=True):
        np.testing.assert_array_equal(batch.inputs["x"], np.stack([row] * 3))


def test_images_have_a_height_and_a_width_and_are_then_scaled_and_transposed(opened):
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(4, 6), (5, 3), (7, 7)]]
    sizes = np.array([photo.shape[:2] for photo in photos])
    how = PreprocessSettings(scale=0.5, mean=(1.0, 2.0, 3.0), layout="NCHW")
    found = opened(PHOTO, settings=how, x=pad(photos, (8, 8, 3), 255), x_length=sizes)

    for batch, photo in zip(feeds(found, PHOTO), photos, strict=True):
        expected = (photo.astype(np.float32) * np.float32(0.5)) - np.float32([1, 2, 3])
        np.testing.assert_array_equal(batch.inputs["x"], expected.transpose(2, 0, 1)[None])


def test_an_array_that_is_an_input_of_the_model_is_no_length(opened):
    wanted = signature(("x", "float32", ("N", "T", 2)), ("x_length", "int64", ("N",)))
    padded, lengths = pad(make_sounds(), (9, 2)), np.array(SIZES)

    found = opened(wanted, x=padded, x_length=lengths)

    assert not found.samples.lengths
    fed = feeds(found, wanted)
    assert [batch.inputs["x"].shape for batch in fed] == [(1, 9, 2)] * 4
    assert [batch.inputs["x_length"].tolist() for batch in fed] == [[n] for n in SIZES]


def test_samples_of_one_size_are_what_they_are_without_lengths(opened):
    x = np.ones((4, 9, 2), np.float32)
    found = opened(SOUND, x=x, x_length=np.full(4, 9))

    assert not found.samples.lengths
    assert not found.notes
    assert found.digest != opened(SOUND, x=x, x_length=np.array(SIZES)).digest


@pytest.mark.parametrize(
    ("lengths", "says"),
    [
        ([3, 0, 5, 5], "x_length: 0 of sample 1 must be from 1 to 9, the size of x"),
        ([3, 1, 5, 10], "x_length: 10 of sample 3 must be from 1 to 9, the size of x"),
        ([3, -1, 5, 5], "x_length: -1 of sample 1 must be from 1 to 9"),
        ([3.0, 1.0, 5.0, 5.0], "x_length: must be one integer per sample of x.* not float64"),
        ([[[3]], [[1]], [[5]], [[5]]], r"x_length: must be .* not int64 \[4, 1, 1\]"),
        ([3, 1, 5], r"x_length: must be .*: its shape is \[3\], that of x \[4, 9, 2\]"),
        ([[3, 2, 1]] * 4, r"x_length: must be .*: its shape is \[4, 3\]"),
        ([[3, 2], [1, 1], [5, 2], [5, 2]], r"from 1 to 2 where the model input x .* takes 2"),
    ],
)
def test_wrong_lengths_are_refused_in_one_line(opened, lengths, says):
    with pytest.raises(UserError, match=says) as refused:
        opened(SOUND, x=pad(make_sounds(), (9, 2)), x_length=np.array(lengths))

    assert refused.value.exit_code == ExitCode.BAD_REQUEST
    assert "\n" not in refused.value.message


def test_a_model_of_a_fixed_size_refuses_samples_of_their_own_sizes(opened):
    fixed = signature(("x", "float32", ("N", 9, 2)))

    with pytest.raises(UserError, match=r"sizes from 1 to 5 where .* \[N, 9, 2\] takes 9"):
        opened(fixed, x=pad(make_sounds(), (9, 2)), x_length=np.array(SIZES))


def test_a_value_within_its_length_must_be_finite(opened):
    rows = make_sounds()
    rows[2][4, 1] = np.inf

    with pytest.raises(UserError, match="x: sample 2 has NaN or infinite values"):
        opened(SOUND, x=pad(rows, (9, 2), np.nan), x_length=np.array(SIZES))


def test_inputs_that_share_a_dimension_need_the_same_lengths(opened):
    ids = np.arange(20).reshape(4, 5)
    mask, lengths = np.ones_like(ids), np.array(SIZES)
    with pytest.raises(UserError, match="L of sample 0 is 3 in ids and 5 in mask") as refused:
        opened(TOKENS, ids=ids, mask=mask, ids_length=lengths)
    assert "mask_length" in refused.value.hint

    found = opened(TOKENS, ids=ids, mask=mask, ids_length=lengths, mask_length=lengths)

    shapes = [{v.shape for v in batch.inputs.values()} for batch in feeds(found, TOKENS)]
    assert shapes == [{(1, n)} for n in SIZES]


def test_a_sample_in_both_splits_is_found_whatever_its_padding(opened):
    rows = make_sounds()
    one = opened(SOUND, "a.npz", x=pad(rows, (9, 2), 7), x_length=np.array(SIZES))
    other = make_sounds(seed=1)
    # The first step of a sample is another sample; so is a sample with a zero behind it.
    other[0], other[1] = rows[2], rows[0][:1]
    lengths = [len(row) for row in other]
    two = opened(SOUND, "b.npz", x=pad(other, (6, 2), np.nan), x_length=np.array(lengths))

    assert compare_splits(one, two).shared == 1
    same = opened(SOUND, "c.npz", x=np.stack([rows[2], rows[3]]))
    assert compare_splits(one, same).shared == 2


def test_statistics_of_inputs_see_no_padding(opened):
    rows = make_sounds()
    found = opened(SOUND, x=pad(rows, (9, 2), np.nan), x_length=np.array(SIZES), y=np.arange(4))

    both = list(iter_targets_and_inputs(found.samples, "input:"))

    for each, row in zip(both, rows, strict=True):
        np.testing.assert_array_equal(each["input:x"], row)


def test_targets_may_have_a_length_for_each_of_several_axes(opened):
    masks = [np.full((h, w), 7) for h, w in [(2, 3), (4, 1)]]
    found = opened(
        SOUND,
        x=np.ones((2, 9, 2), np.float32),
        y=pad(masks, (4, 3), -1),
        y_length=np.array([[2, 3], [4, 1]]),
    )

    for targets, mask in zip(found.read_targets(), masks, strict=True):
        np.testing.assert_array_equal(targets["y"], mask)
    kept = cut_ragged({"y": np.zeros((4, 3)), "y_length": np.array([2, 3])})
    assert kept["y"].shape == (2, 3)
