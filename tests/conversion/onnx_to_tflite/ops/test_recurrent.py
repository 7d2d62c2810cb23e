"""Unrolled recurrent layers agree with onnxruntime."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.errors import PassRefused
from tests.builders.both_runtimes import agree, in_litert, in_onnxruntime, noise

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(
    kind, *, direction="forward", steps=4, lengths=None, states=False, scale=1.0, **attributes
):
    """A recurrent layer of 3 units on sequences of 2 samples of 5 numbers."""
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    weights = {
        "w": noise(sides, gates * 3, 5) * np.float32(scale),
        "r": noise(sides, gates * 3, 3, seed=1),
        "b": noise(sides, gates * 6, seed=2) * np.float32(scale),
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
def test_sequence_lengths_are_respected(kind):
    agree(layer(kind, direction="bidirectional", lengths=[4, 2]), x=noise(4, 2, 5))


def test_a_gru_that_resets_after_its_product_is_that_of_onnxruntime():
    agree(layer("GRU", linear_before_reset=1, states=True), x=noise(4, 2, 5))


def test_named_activations_and_clipped_gates_are_those_of_onnxruntime():
    names = ["HardSigmoid", "Softsign", "ScaledTanh"]
    how = {"activation_alpha": [0.3, 0.9], "activation_beta": [0.4, 0.8], "clip": 0.7}
    agree(layer("LSTM", activations=names, **how), x=noise(4, 2, 5))
    agree(layer("RNN", activations=["LeakyRelu"], activation_alpha=[0.2]), x=noise(4, 2, 5))


@pytest.mark.parametrize("clip", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_clip_limits_what_gates_read_and_not_the_cell(kind, clip):
    how = {"direction": "bidirectional", "states": True, "scale": 4.0}
    agree(layer(kind, clip=clip, **how), x=noise(4, 2, 5))


@pytest.mark.parametrize(
    "how",
    [
        {"input_forget": 1},
        {"input_forget": 1, "lengths": [4, 2]},
        {"activations": ["Sigmoid", "Relu", "Tanh"]},
        {"activations": ["HardSigmoid", "Tanh", "Relu"]},
        {"activations": ["Sigmoid", "Elu", "Softplus"]},
        {"activations": ["Sigmoid", "Tanh", "Affine"], "activation_alpha": [2.0]},
    ],
)
def test_clip_holds_with_other_gates_and_activations(how):
    agree(layer("LSTM", clip=0.5, states=True, scale=4.0, **how), x=noise(4, 2, 5))


def test_a_clipped_gru_that_resets_after_its_product_is_that_of_onnxruntime():
    made = layer("GRU", linear_before_reset=1, clip=0.5, states=True, scale=4.0)
    agree(made, x=noise(4, 2, 5))


@pytest.mark.parametrize("name", ["Affine", "ScaledTanh", "ThresholdedRelu", "HardSigmoid", "Elu"])
def test_activations_without_numbers_have_those_of_onnxruntime(name):
    agree(layer("RNN", activations=[name]), x=noise(4, 2, 5))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_batch_in_front_gives_the_same_numbers_in_another_order(kind):
    steps_first = layer(kind, direction="bidirectional", clip=0.5, states=True, scale=4.0)
    batch_first = layer(kind, direction="bidirectional", clip=0.5, states=True, scale=4.0, layout=1)
    for tensor in batch_first.graph.initializer:
        if tensor.name in ("h", "c"):
            turned = numpy_helper.to_array(tensor).transpose(1, 0, 2)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), tensor.name))
    del batch_first.graph.input[:]
    fed = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 5])
    batch_first.graph.input.append(fed)
    x = noise(4, 2, 5)
    y, *states = in_onnxruntime(steps_first, x=x)  # it has no kernel for the other layout
    got, *got_states = in_litert(batch_first, x=x.transpose(1, 0, 2).copy())
    np.testing.assert_allclose(got, y.transpose(2, 0, 1, 3), atol=1e-5)
    for state, got_state in zip(states, got_states, strict=True):
        np.testing.assert_allclose(got_state, state.transpose(1, 0, 2), atol=1e-5)


def test_a_second_run_starts_from_the_first_state_again():
    made = layer("LSTM")
    agree(made, x=noise(4, 2, 5))
    agree(made, x=noise(4, 2, 5))


def test_an_endless_sequence_is_refused():
    with pytest.raises(PassRefused, match="has 5000 steps"):
        convert_to_tflite(layer("RNN", steps=5000), {})
