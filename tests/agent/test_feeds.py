"""Reading, preprocessing and batching of samples on the device."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from edgekit_agent.codec import decode, encode_job
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import iter_batches, open_columns, prepare_rows
from edgekit_agent.protocol import Version
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Preprocess
from edgekit_agent.worker_jobs import ModelRef, ScoreJob


def tensor(dtype, *shape):
    return Tensor("x", dtype, shape)


def test_rows_are_read_from_their_offset_on(samples):
    data = np.arange(30, dtype=np.int16).reshape(10, 3)
    made = samples(x=data)
    with open_columns(made.columns) as columns:
        np.testing.assert_array_equal(columns["x"].read(4, 3), data[4:7])


def test_every_sample_comes_once_and_the_last_batch_is_filled_up(samples):
    data = np.arange(21, dtype=np.float32).reshape(7, 3)
    made = list(iter_batches(samples(x=data, label=np.arange(7)), [tensor("float32", 3, 3)], 3))
    assert [(b.start, b.rows) for b in made] == [(0, 3), (3, 3), (6, 1)]
    np.testing.assert_array_equal(made[2].inputs["x"], np.repeat(data[6:7], 3, axis=0))
    np.testing.assert_array_equal(np.concatenate([b.labels for b in made]), np.arange(7))


def test_images_are_scaled_shifted_and_transposed_for_a_float_input():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    how = Preprocess(0.5, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), channels_first=True)
    made = prepare_rows(image, tensor("float32", "N", 3, 4, 5), how)
    expected = ((image * 0.5 - [1, 2, 3]) / [2, 4, 8]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(made, expected, rtol=1e-6)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous


def test_preprocessing_does_not_change_integer_inputs():
    how = Preprocess(0.5, (1.0,), (2.0,), channels_first=True)
    ids = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert prepare_rows(ids, tensor("int64", "N", 3), how) is ids


def test_a_column_of_another_rank_is_scaled_but_not_transposed():
    how = Preprocess(2.0, channels_first=True)
    made = prepare_rows(np.ones((2, 3), np.float32), tensor("float16", "N", 3), how)
    np.testing.assert_array_equal(made, np.full((2, 3), 2, np.float16))
    assert made.dtype == np.float16


@pytest.mark.parametrize(
    ("have", "wanted"),
    [("uint8", "float32"), ("int32", "int64"), ("float64", "float32"), ("int64", "int32")],
)
def test_a_cast_that_keeps_values_is_done(have, wanted):
    made = prepare_rows(np.array([[1], [100]], have), tensor(wanted, "N", 1), None)
    assert made.dtype == wanted
    assert made.tolist() == [[1], [100]]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[2**40]]), "int32"),
        (np.array([[0.5]], np.float32), "int64"),
        (np.array([[-1]], np.int8), "uint8"),
        (np.array([[2**24 + 1]]), "float32"),
    ],
)
def test_a_cast_that_changes_values_is_refused(values, wanted):
    with pytest.raises(AgentError, match="changes values"):
        prepare_rows(values, tensor(wanted, "N", 1), None)


def test_a_shape_that_does_not_fit_is_refused_with_both_shapes():
    with pytest.raises(AgentError, match=r"has shape \[N, 3, 8, 8\], the data \[2, 8, 8, 3\]"):
        prepare_rows(np.zeros((2, 8, 8, 3), np.float32), tensor("float32", "N", 3, 8, 8), None)


def test_means_for_another_number_of_channels_are_refused():
    with pytest.raises(AgentError, match="2 values of mean or std for 3 channels"):
        prepare_rows(
            np.zeros((1, 3), np.uint8), tensor("float32", "N", 3), Preprocess(mean=(1.0, 2.0))
        )


def test_columns_of_other_names_are_refused_with_both_names(samples):
    with pytest.raises(AgentError, match=r"columns image; the model's inputs are x"):
        list(iter_batches(samples(image=np.zeros((2, 3))), [tensor("float32", "N", 3)], 1))


def test_columns_of_different_lengths_are_refused(samples):
    made = samples(x=np.zeros((2, 3), np.float32), label=np.zeros(3, np.int64))
    with pytest.raises(AgentError, match="x 2, label 3"):
        list(iter_batches(made, [tensor("float32", "N", 3)], 1))


def test_a_file_that_is_too_short_is_refused(samples):
    made = samples(x=np.zeros((2, 3), np.float32))
    os.truncate(made.columns[0].path, 20)
    with pytest.raises(AgentError, match="too short"):
        list(iter_batches(made, [tensor("float32", "N", 3)], 1))


def test_a_job_states_further_targets_and_lengths_only_if_there_are_any(samples):
    plain = samples(x=np.zeros((2, 3), np.float32), label=np.zeros(2, int))
    extra = replace(plain.label, name="box")
    more = replace(plain, targets=(extra,), lengths=(replace(plain.label, name="x"),))
    model = ModelRef("model.onnx", "onnxruntime")
    for peer in (Version(1, 0), Version(1, 1)):
        # Agents of these versions refuse or ignore fields that they do not know.
        sent = encode_job(ScoreJob(model, plain, "top1"), peer=peer)["settings"]["samples"]
        assert not {"targets", "lengths"} & sent.keys()
        assert sent["label"]["path"] == plain.label.path
    sent = json.loads(json.dumps(encode_job(ScoreJob(model, more, "top1"))))["settings"]
    assert decode(ScoreJob, sent).samples == more


@pytest.mark.parametrize(
    ("lengths", "complaint"),
    [
        (np.array([2, 0]), "x_length: must be one integer from 1 to 3"),
        (np.array([4, 1]), "x_length: must be one integer from 1 to 3"),
        (np.array([2.0, 1.0]), "x_length: must be one integer from 1 to 3"),
        (np.array([[2, 1, 1]] * 2), "x_length: must be one integer from 1 to 3"),
        (np.array([2]), "columns of different lengths: x 2, x 1"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(samples, lengths, complaint):
    made = samples(x=np.zeros((2, 3), np.float32))
    made = replace(made, lengths=(replace(samples(n=lengths).columns[0], name="x"),))
    with pytest.raises(AgentError, match=complaint):
        list(iter_batches(made, [tensor("float32", "N", "T")], 1))


def test_lengths_of_another_array_are_refused(samples):
    made = samples(x=np.zeros((2, 3), np.float32))
    made = replace(made, lengths=samples(n=np.array([1, 2])).columns)
    with pytest.raises(AgentError, match="lengths of n but not n itself"):
        list(iter_batches(made, [tensor("float32", "N", "T")], 1))
