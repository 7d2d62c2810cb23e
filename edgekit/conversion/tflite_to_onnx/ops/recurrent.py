"""Conversion rules of recurrent layers that run over whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_quantization
from edgekit.tflite.ir import Op, Quantization, Tensor, constant

# TFLite orders gates as input, forget, cell, output; ONNX as input, output, forget, cell.
_GATES = (0, 3, 1, 2)
_SATURATED = 10.0  # from here on tanh is 1 up to a few units in the last place
_NOT_YET = {16: "a projection", 20: "layer normalization", 21: "layer normalization"}
_ACTIVATIONS = {"NONE": "Affine", "RELU": "Relu", "TANH": "Tanh"}


def sequence_lstm(lifting: Lifting, op: Op) -> None:
    """Convert UNIDIRECTIONAL_SEQUENCE_LSTM to LSTM; integer layers are computed in floats.

    TensorFlow's converter gives the cells of every Keras layer a clip of 10, which the Keras layer
    does not have. It is ignored: a cell can reach it after 10 steps at the earliest, and the output
    changes by less than 1e-8 beyond it.

    Raises:
        PassRefused: projection, layer normalization, coupled gates, a cell clip below 10, or an
            activation other than tanh.
    """
    _check_supported(lifting, op)
    weights = _stack_gates(lifting, [lifting.tensor(op, 1 + gate) for gate in _GATES])
    recurrent = _stack_gates(lifting, [lifting.tensor(op, 5 + gate) for gate in _GATES])
    inputs = [_read_sequence(lifting, op), weights, recurrent, _stack_biases(lifting, op), ""]
    inputs += [
        _read_initial_state(lifting, op, 18),
        _read_initial_state(lifting, op, 19),
        _read_peepholes(lifting, op),
    ]
    units = lifting.tensor(op, 5).shape[-1]
    made = lifting.node("LSTM", _trim_inputs(inputs), {"hidden_size": units})
    _bind_sequence(lifting, op, made)


def _check_supported(lifting: Lifting, op: Op) -> None:
    if not lifting.has(op, 1):
        raise lifting.refusal(op, "has coupled gates, which are not supported")
    for position, what in _NOT_YET.items():
        if lifting.has(op, position):
            raise lifting.refusal(op, f"has {what}, which is not supported")
    if 0.0 < op.options.get("cell_clip", 0.0) < _SATURATED:
        raise lifting.refusal(op, "has a clipped state, which is not supported")
    if op.options.get("fused_activation_function", "TANH") != "TANH":
        raise lifting.refusal(op, "has an activation other than tanh, which is not supported")


def _stack_gates(lifting: Lifting, gates: Sequence[Tensor]) -> str:
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
            return lifting.read(constant("gates", data, quantization=q), weights=True)
        if not any(parameters):
            return lifting.read(constant("gates", data))
    names = [lifting.read(t, weights=True) for t in gates]
    whole = lifting.node("Concat", names, {"axis": 0})
    return lifting.node("Unsqueeze", [whole, lifting.ints(0)])


def _stack_biases(lifting: Lifting, op: Op) -> str:
    names = []
    for gate in _GATES:
        factors = [lifting.tensor(op, 0), lifting.tensor(op, 1 + gate)]
        units = lifting.tensor(op, 1 + gate).shape[0]
        zeros = lifting.numbers(np.zeros(units, np.float32))
        names.append(lifting.bias(op, 12 + gate, factors) or zeros)
    units = lifting.tensor(op, 5).shape[-1]
    names.append(lifting.numbers(np.zeros(4 * units, np.float32)))
    whole = lifting.node("Concat", names, {"axis": 0})
    return lifting.node("Unsqueeze", [whole, lifting.ints(0)])


def _read_peepholes(lifting: Lifting, op: Op) -> str:
    if not lifting.has(op, 10):
        return ""
    return _stack_gates(lifting, [lifting.tensor(op, position) for position in (9, 11, 10)])


def _read_sequence(lifting: Lifting, op: Op) -> str:
    order = (0, 1, 2) if op.options.get("time_major", False) else (1, 0, 2)
    return lifting.read(lifting.tensor(op, 0), order)


def _read_initial_state(lifting: Lifting, op: Op, position: int) -> str:
    """Return an initial state, or "" (zeros) if it is absent or the file keeps it in a variable."""
    if not lifting.has(op, position) or lifting.tensor(op, position).is_variable:
        return ""
    return lifting.node("Unsqueeze", [lifting.plain(op, position), lifting.ints(0)])


def _bind_sequence(lifting: Lifting, op: Op, made: str) -> None:
    name = lifting.node("Squeeze", [made, lifting.ints(1)])
    order = (0, 1, 2) if op.options.get("time_major", False) else (1, 0, 2)
    lifting.bind(replace(op, options={}), name, order)


def _trim_inputs(inputs: list[str]) -> list[str]:
    while not inputs[-1]:
        inputs = inputs[:-1]
    return inputs


def sequence_rnn(lifting: Lifting, op: Op) -> None:
    """Convert UNIDIRECTIONAL_SEQUENCE_RNN to RNN."""
    kind = op.options.get("fused_activation_function", "NONE")
    if kind not in _ACTIVATIONS:
        raise lifting.refusal(op, f"has the activation {kind}, which is not supported")
    weights = _stack_gates(lifting, [lifting.tensor(op, 1)])
    recurrent = _stack_gates(lifting, [lifting.tensor(op, 2)])
    units = lifting.tensor(op, 1).shape[0]
    bias = lifting.bias(op, 3, [lifting.tensor(op, 0), lifting.tensor(op, 1)])
    both = [bias, lifting.numbers(np.zeros(units, np.float32))]
    whole = lifting.node("Concat", both, {"axis": 0})
    bias = lifting.node("Unsqueeze", [whole, lifting.ints(0)])
    inputs = [
        _read_sequence(lifting, op),
        weights,
        recurrent,
        bias,
        "",
        _read_initial_state(lifting, op, 4),
    ]
    attributes = {"hidden_size": units, "activations": [_ACTIVATIONS[kind]]}
    if kind == "NONE":
        attributes |= {"activation_alpha": [1.0], "activation_beta": [0.0]}
    _bind_sequence(lifting, op, lifting.node("RNN", _trim_inputs(inputs), attributes))


LIFTS: dict[str, Rule] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn,
}
