"""Conversion rules of recurrent layers that run over whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_quantization
from edgekit.tflite.ir import Op, Quantization, Tensor, constant

# TFLite orders gates as input, forget, cell, output; ONNX as input, output, forget, cell.
_GATES = (0, 3, 1, 2)
_SATURATED = 10.0  # from here on tanh is 1 up to a few units in the last place
_NOT_YET = {16: "a projection", 20: "layer normalization", 21: "layer normalization"}
_ACTIVATIONS = {"NONE": "Affine", "RELU": "Relu", "TANH": "Tanh"}


def sequence_lstm(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert UNIDIRECTIONAL_SEQUENCE_LSTM to LSTM; integer layers are computed in floats.

    TensorFlow's converter gives the cells of every Keras layer a clip of 10, which the Keras layer
    does not have. It is ignored: a cell can reach it after 10 steps at the earliest, and the output
    changes by less than 1e-8 beyond it.

    Raises:
        PassRefused: projection, layer normalization, coupled gates, a cell clip below 10, or an
            activation other than tanh.
    """
    _check_supported(builder, op)
    weights = _stack_gates(builder, [builder.tensor(op, 1 + gate) for gate in _GATES])
    recurrent = _stack_gates(builder, [builder.tensor(op, 5 + gate) for gate in _GATES])
    inputs = [_read_sequence(builder, op), weights, recurrent, _stack_biases(builder, op), ""]
    inputs += [
        _read_initial_state(builder, op, 18),
        _read_initial_state(builder, op, 19),
        _read_peepholes(builder, op),
    ]
    units = builder.tensor(op, 5).shape[-1]
    result = builder.node("LSTM", _trim_inputs(inputs), {"hidden_size": units})
    _bind_sequence(builder, op, result)


def _check_supported(builder: OnnxGraphBuilder, op: Op) -> None:
    if not builder.has(op, 1):
        raise builder.refusal(op, "has coupled gates, which are not supported")
    for position, reason in _NOT_YET.items():
        if builder.has(op, position):
            raise builder.refusal(op, f"has {reason}, which is not supported")
    if 0.0 < op.options.get("cell_clip", 0.0) < _SATURATED:
        raise builder.refusal(op, "has a clipped state, which is not supported")
    if op.options.get("fused_activation_function", "TANH") != "TANH":
        raise builder.refusal(op, "has an activation other than tanh, which is not supported")


def _stack_gates(builder: OnnxGraphBuilder, gates: Sequence[Tensor]) -> str:
    """Stack the matrices of all gates along their rows, with a leading axis of size 1."""
    parameters = [get_quantization(t) for t in gates]
    if all(t.data is not None for t in gates):
        data = np.concatenate([np.asarray(t.data) for t in gates])[None]
        scales = [q.scales for q in parameters if q is not None and len(q.scales) == 1]
        if len(scales) == len(gates):
            rows = [len(np.asarray(t.data)) for t in gates]
            q = Quantization(
                scales=np.repeat(np.concatenate(scales), rows),
                zero_points=np.repeat([int(q.zero_points[0]) for q in parameters if q], rows),
                axis=1,
            )
            return builder.read(constant("gates", data, quantization=q), weights=True)
        if not any(parameters):
            return builder.read(constant("gates", data))
    names = [builder.read(t, weights=True) for t in gates]
    joined = builder.node("Concat", names, {"axis": 0})
    return builder.node("Unsqueeze", [joined, builder.ints(0)])


def _stack_biases(builder: OnnxGraphBuilder, op: Op) -> str:
    names = []
    for gate in _GATES:
        factors = [builder.tensor(op, 0), builder.tensor(op, 1 + gate)]
        units = builder.tensor(op, 1 + gate).shape[0]
        zeros = builder.numbers(np.zeros(units, np.float32))
        names.append(builder.bias(op, 12 + gate, factors) or zeros)
    units = builder.tensor(op, 5).shape[-1]
    names.append(builder.numbers(np.zeros(4 * units, np.float32)))
    joined = builder.node("Concat", names, {"axis": 0})
    return builder.node("Unsqueeze", [joined, builder.ints(0)])


def _read_peepholes(builder: OnnxGraphBuilder, op: Op) -> str:
    if not builder.has(op, 10):
        return ""
    return _stack_gates(builder, [builder.tensor(op, position) for position in (9, 11, 10)])


def _read_sequence(builder: OnnxGraphBuilder, op: Op) -> str:
    order = (0, 1, 2) if op.options.get("time_major", False) else (1, 0, 2)
    return builder.read(builder.tensor(op, 0), order)


def _read_initial_state(builder: OnnxGraphBuilder, op: Op, position: int) -> str:
    """Return an initial state, or "" (zeros) if it is absent or the file keeps it in a variable."""
    if not builder.has(op, position) or builder.tensor(op, position).is_variable:
        return ""
    return builder.node("Unsqueeze", [builder.plain(op, position), builder.ints(0)])


def _bind_sequence(builder: OnnxGraphBuilder, op: Op, result: str) -> None:
    name = builder.node("Squeeze", [result, builder.ints(1)])
    order = (0, 1, 2) if op.options.get("time_major", False) else (1, 0, 2)
    builder.bind(replace(op, options={}), name, order)


def _trim_inputs(inputs: list[str]) -> list[str]:
    while not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def sequence_rnn(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert UNIDIRECTIONAL_SEQUENCE_RNN to RNN."""
    activation = op.options.get("fused_activation_function", "NONE")
    if activation not in _ACTIVATIONS:
        raise builder.refusal(op, f"has the activation {activation}, which is not supported")
    weights = _stack_gates(builder, [builder.tensor(op, 1)])
    recurrent = _stack_gates(builder, [builder.tensor(op, 2)])
    units = builder.tensor(op, 1).shape[0]
    bias = builder.bias(op, 3, [builder.tensor(op, 0), builder.tensor(op, 1)])
    both = [bias, builder.numbers(np.zeros(units, np.float32))]
    biases = builder.node("Concat", both, {"axis": 0})
    bias = builder.node("Unsqueeze", [biases, builder.ints(0)])
    inputs = [
        _read_sequence(builder, op),
        weights,
        recurrent,
        bias,
        "",
        _read_initial_state(builder, op, 4),
    ]
    attributes = {"hidden_size": units, "activations": [_ACTIVATIONS[activation]]}
    if activation == "NONE":
        attributes |= {"activation_alpha": [1.0], "activation_beta": [0.0]}
    _bind_sequence(builder, op, builder.node("RNN", _trim_inputs(inputs), attributes))


RULES: dict[str, Rule] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn,
}
