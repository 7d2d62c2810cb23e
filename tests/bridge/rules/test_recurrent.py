"""Recurrent layers written out step by step, as onnxruntime runs them."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bridge.emit import emitted
from edgekit.errors import PassRefused
from tests.bridge.twins import agree, noise

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(kind, *, direction="forward", steps=4, lengths=None, states=False, **attributes):
    """A recurrent layer of 3 units on sequences of 2 samples of 5 numbers."""
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    weights = {
        "w": noise(sides, gates * 3, 5),
        "r": noise(sides, gates * 3, 3, seed=1),
        "b": noise(sides, gates * 6, seed=2),
    }
    names = ["x", "w", "r", "b", "", "", "", ""]
    if lengths:
        weights["l"], names[4] = np.array(lengths, np.int32), "l"
    if states:
        weights["h"], names[5] = noise(sides, 2, 3, seed=3), "h"
        if kind == "LSTM":
            weights["c"], names[6] = noise(sides, 2, 3, seed=4), "c"
            weights["p"], names[7] = noise(sides, 9, seed=5), "p"
    outputs = ["y", "yh", "yc"][: 3 if kind == "LSTM" else 2]
    names = names if kind == "LSTM" else names[:6]
    node = helper.make_node(kind, names, outputs, hidden_size=3, direction=direction, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 2, 5])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_directions_and_first_states_are_those_of_onnxruntime(kind, direction):
    agree(layer(kind, direction=direction, states=True), x=noise(4, 2, 5))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_short_sequences_end_where_they_end(kind):
    agree(layer(kind, direction="bidirectional", lengths=[4, 2]), x=noise(4, 2, 5))


def test_a_gru_that_resets_after_its_product_is_that_of_onnxruntime():
    agree(layer("GRU", linear_before_reset=1, states=True), x=noise(4, 2, 5))


def test_named_activations_and_clipped_gates_are_those_of_onnxruntime():
    names = ["HardSigmoid", "Softsign", "ScaledTanh"]
    how = {"activation_alpha": [0.3, 0.9], "activation_beta": [0.4, 0.8], "clip": 0.7}
    agree(layer("LSTM", activations=names, **how), x=noise(4, 2, 5))
    agree(layer("RNN", activations=["LeakyRelu"], activation_alpha=[0.2]), x=noise(4, 2, 5))


def test_a_second_run_starts_from_the_first_state_again():
    made = layer("LSTM")
    agree(made, x=noise(4, 2, 5))
    agree(made, x=noise(4, 2, 5))


def test_an_endless_sequence_is_refused():
    with pytest.raises(PassRefused, match="goes 5000 steps"):
        emitted(layer("RNN", steps=5000), {})
