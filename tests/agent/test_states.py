"""Columns along other axes, constants and states, as the agent feeds them."""

import dataclasses
import json

import numpy as np
import pytest

from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import find_batch_size, iter_batches, iter_runs
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import Samples, State

X, H, RATE = Tensor("x", "float32", ("n", 3)), Tensor("h", "float32", (2, "n")), Tensor(
    "rate", "int64", ()
)  # fmt: skip


class Adder:
    """A model that adds the sum of each row and the rate to its state, and returns it."""

    inputs = (X, H, RATE)
    outputs = (Tensor("y", "float32", ("n",)), Tensor("hn", "float32", (2, "n")))
    version = "0"

    def run(self, inputs):
        state = inputs["h"] + inputs["x"].sum(axis=1) + inputs["rate"].astype(np.float32)
        return {"y": state[0], "hn": state}


@pytest.fixture
def stepped(samples):
    def make(rows=7, sequence=None, **arrays):
        data = samples(x=np.ones((rows, 3), np.float32), **arrays)
        rate = dataclasses.replace(samples(rate=np.int64([10])).columns[0], shape=())
        first = dataclasses.replace(samples(h=np.float32([[0, 100]])).columns[0], axis=1)
        found = samples(sequence=np.asarray(sequence)).columns[0] if sequence is not None else None
        return dataclasses.replace(
            data, constants=(rate,), states=(State("hn", first),), sequence=found
        )

    return make


def answers(made, *, batch=1, first=0):
    return [outputs["y"][0] for _, outputs in iter_runs(made, Adder(), batch, first)]


def test_a_state_is_fed_back_and_reset_with_each_sequence(stepped):
    assert answers(stepped(sequence=[4, 4, 4, 1, 1, 9, 9])) == [13, 26, 39, 13, 26, 13, 26]
    assert answers(stepped(rows=3)) == [13, 26, 39]


@pytest.mark.parametrize("first", range(7))
def test_a_resumed_run_has_the_states_of_the_previous_steps(stepped, first):
    made = stepped(sequence=[4, 4, 4, 1, 1, 9, 9])

    assert answers(made, first=first) == [13, 26, 39, 13, 26, 13, 26][first:]


def test_recorded_inputs_contain_the_states_of_their_run(stepped):
    fed = [batch.inputs["h"][:, 0].tolist() for batch, _ in iter_runs(stepped(rows=3), Adder(), 1)]

    assert fed == [[0, 100], [13, 113], [26, 126]]


def test_a_model_of_a_fixed_batch_takes_each_step_repeated(stepped):
    made = list(iter_runs(stepped(rows=2), Adder(), 3))

    assert [batch.rows for batch, _ in made] == [1, 1]
    assert made[1][1]["y"].tolist() == [26, 26, 26]


def test_samples_are_stacked_along_the_axis_of_their_column(samples):
    made = samples(x=np.ones((5, 3), np.float32), h=np.arange(10, dtype=np.float32).reshape(5, 2))
    columns = (made.columns[0], dataclasses.replace(made.columns[1], axis=1))
    fed = list(iter_batches(dataclasses.replace(made, columns=columns), [X, H], 2))

    assert [batch.inputs["h"].tolist() for batch in fed] == [
        [[0, 2], [1, 3]],
        [[4, 6], [5, 7]],
        [[8, 8], [9, 9]],
    ]


def test_a_row_that_is_a_whole_input_is_fed_by_itself(samples):
    column = dataclasses.replace(samples(x=np.arange(6.0).reshape(2, 3)).columns[0], axis=-1)
    made, tensor = Samples((column,)), Tensor("x", "float64", (3,))

    assert find_batch_size(made, [tensor]) == 1
    assert [b.inputs["x"].tolist() for b in iter_batches(made, [tensor], 1)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]


def test_samples_with_states_are_encoded_and_decoded(stepped):
    made = stepped(sequence=[1] * 7)

    assert decode(Samples, json.loads(json.dumps(encode(made)))) == made
    assert len(made.files()) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"states": ()}, "the model's inputs are h, rate, x"),
        ({"constants": ()}, "the model's inputs are h, rate, x"),
        ({"axis": 5}, "has no axis 5"),
        ({"output": "none"}, "no output none for h"),
        ({"output": "y"}, "that it is fed to"),
    ],
)
def test_states_that_do_not_belong_to_the_model_are_bad_jobs(stepped, change, says):
    made = stepped()
    (state,) = made.states
    if "axis" in change:
        change = {"states": (State("hn", dataclasses.replace(state.initial, axis=change["axis"])),)}
    elif "output" in change:
        change = {"states": (State(change["output"], state.initial),)}
    with pytest.raises(AgentError) as caught:
        answers(dataclasses.replace(made, **change))
    assert says in caught.value.failure.message
