"""Conversion rules of LSTM, GRU and RNN, unrolled over a sequence of known length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.gates import Activation, read_activations
from edgekit.conversion.onnx_to_tflite.ops.joining import split_tensor
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

# More steps than this make a graph that is too slow to convert and to run.
_MOST_STEPS = 2048


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One direction of a recurrent node, with its inputs in the shapes that the steps need.

    Args:
        node: the ONNX node.
        size: of the hidden state.
        inputs: of every step, times the weights, biases added: (batch, gates * size).
        weights: recurrent weights, (gates * size, size).
        state_bias: recurrent bias (gates * size), unless it is part of ``inputs``.
        peepholes: (3 * size), if any.
        hidden: initial hidden state, (batch, size).
        cell: initial cell state of an LSTM, (batch, size).
        masks: sequences that still go on, for each step: (batch, 1) bool; ``None`` = all.
        activations: of the gates, the candidate, and the cell.
        backward: run from the last step to the first.
    """

    node: NodeProto
    size: int
    inputs: list[Tensor]
    weights: Tensor
    state_bias: Tensor | None
    peepholes: Tensor | None
    hidden: Tensor
    cell: Tensor | None
    masks: list[Tensor] | None
    activations: list[Activation]
    backward: bool


State = tuple[Tensor, Tensor | None]
Step = Callable[[TfliteGraphBuilder, Layer, Tensor, State], State]


def _convert_recurrent(
    builder: TfliteGraphBuilder, node: NodeProto, *, gates: int, step: Step
) -> None:
    layers = _read_layers(builder, node, gates)
    steps: list[list[Tensor]] = []
    ends: list[State] = []
    for layer in layers:
        outputs, end = _emit_steps(builder, layer, step)
        steps.append(outputs)
        ends.append(end)
    by_batch = bool(get_attribute(node, "layout", 0))
    if node.output[0]:
        time, side = (1, 2) if by_batch else (0, 1)
        stacked = [_pack(builder, outputs, time) for outputs in steps]
        builder.bind(node, _pack(builder, stacked, side))
    axis = 1 if by_batch else 0
    if len(node.output) > 1 and node.output[1]:
        builder.bind(node, _pack(builder, [end[0] for end in ends], axis), output=1)
    if len(node.output) > 2 and node.output[2]:
        cells = [end[1] for end in ends if end[1] is not None]
        builder.bind(node, _pack(builder, cells, axis), output=2)


def _pack(builder: TfliteGraphBuilder, parts: Sequence[Tensor], axis: int) -> Tensor:
    shape = list(parts[0].shape)
    shape.insert(axis, len(parts))
    if len(parts) == 1:
        return builder.reshape(parts[0], tuple(shape))
    options = {"values_count": len(parts), "axis": axis}
    return builder.emit("PACK", parts, tuple(shape), options=options)


def _read_layers(builder: TfliteGraphBuilder, node: NodeProto, gates: int) -> list[Layer]:
    data = builder.plain(node, 0)
    if get_attribute(node, "layout", 0):
        data = builder.transpose(data, (1, 0, 2))
    weights, recurrent = builder.plain(node, 1), builder.plain(node, 2)
    sides, size = recurrent.shape[0], recurrent.shape[2]
    length, batch = data.shape[:2]
    if length * sides > _MOST_STEPS:
        raise builder.refusal(node, f"has {length} steps; at most {_MOST_STEPS} are supported")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    masks = _read_masks(builder, node, length, batch)
    bias = builder.plain(node, 3) if builder.has(node, 3) else None
    reset_after = node.op_type == "GRU" and bool(get_attribute(node, "linear_before_reset", 0))
    layers: list[Layer] = []
    for side, is_backward in enumerate(backward[get_attribute(node, "direction", "forward")]):
        direction_bias = _take_direction(builder, bias, side)
        input_bias, recurrent_bias = (
            (None, None)
            if direction_bias is None
            else split_tensor(builder, direction_bias, [gates * size] * 2, 0)
        )
        added_bias = input_bias
        if input_bias is not None and recurrent_bias is not None and not reset_after:
            added_bias = builder.emit("ADD", [input_bias, recurrent_bias], input_bias.shape)
        layers.append(
            Layer(
                node=node,
                size=size,
                inputs=_multiply_inputs(
                    builder, data, _take_direction(builder, weights, side), added_bias
                ),
                weights=_require(_take_direction(builder, recurrent, side)),
                state_bias=recurrent_bias if reset_after else None,
                peepholes=_take_direction(
                    builder, builder.plain(node, 7) if builder.has(node, 7) else None, side
                ),
                hidden=_read_initial_state(builder, node, 5, side, (batch, size)),
                cell=_read_initial_state(builder, node, 6, side, (batch, size))
                if gates == 4
                else None,
                masks=masks,
                activations=read_activations(builder, node, side, sides),
                backward=is_backward,
            )
        )
    return layers


def _require(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("weights are absent")
    return tensor


def _take_direction(builder: TfliteGraphBuilder, tensor: Tensor | None, side: int) -> Tensor | None:
    if tensor is None:
        return None
    return builder.reshape(
        slice_tensor(builder, tensor, {0: range(side, side + 1)}), tensor.shape[1:]
    )


def _read_initial_state(
    builder: TfliteGraphBuilder, node: NodeProto, position: int, side: int, shape: tuple[int, int]
) -> Tensor:
    """Read an initial state; zeros if it is absent."""
    if not builder.has(node, position):
        return builder.store(np.zeros(shape, np.float32))
    states = builder.plain(node, position)
    if get_attribute(node, "layout", 0):
        states = builder.transpose(states, (1, 0, 2))
    return _require(_take_direction(builder, states, side))


def _multiply_inputs(
    builder: TfliteGraphBuilder, data: Tensor, weights: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """Multiply the inputs of all steps by the weights at once, then split them by step."""
    weights = _require(weights)
    length, batch, features = data.shape
    flat = builder.reshape(data, (length * batch, features))
    product = emit_fully_connected(builder, flat, weights, bias)
    products = builder.reshape(product, (length, batch, weights.shape[0]))
    if length == 1:
        return [builder.reshape(products, products.shape[1:])]
    steps = [
        Tensor(name=f"{products.name}/{step}", dtype="float32", shape=products.shape[1:])
        for step in range(length)
    ]
    builder.emit_many("UNPACK", [products], steps, options={"num": length, "axis": 0})
    return steps


def emit_fully_connected(
    builder: TfliteGraphBuilder, data: Tensor, weights: Tensor, bias: Tensor | None
) -> Tensor:
    """Emit a fully connected layer.

    Args:
        builder: receives the operators.
        data: (batch, inputs).
        weights: (outputs, inputs).
        bias: (outputs,); ``None`` for zeros.
    """
    shape = (data.shape[0], weights.shape[0])
    bias = bias or builder.store(np.zeros(weights.shape[0], np.float32))
    return builder.emit("FULLY_CONNECTED", [data, weights, bias], shape)


def _read_masks(
    builder: TfliteGraphBuilder, node: NodeProto, length: int, batch: int
) -> list[Tensor] | None:
    if not builder.has(node, 4):
        return None
    constant_lengths = builder.constant(node, 4)
    if constant_lengths is not None:
        if (constant_lengths >= length).all():
            return None
        return [builder.store(constant_lengths.reshape(batch, 1) > step) for step in range(length)]
    lengths = builder.reshape(builder.plain(node, 4), (batch, 1))
    return [
        builder.emit(
            "GREATER",
            [lengths, builder.store(np.asarray(step, lengths.dtype))],
            (batch, 1),
            dtype="bool",
        )
        for step in range(length)
    ]


def _emit_steps(
    builder: TfliteGraphBuilder, layer: Layer, step: Step
) -> tuple[list[Tensor], State]:
    """Emit all steps of a layer; return their outputs in order of time, and the last state."""
    state: State = (layer.hidden, layer.cell)
    outputs: dict[int, Tensor] = {}
    zero = builder.float32(0.0)
    times = range(len(layer.inputs))
    for time in reversed(times) if layer.backward else times:
        hidden, cell = step(builder, layer, layer.inputs[time], state)
        outputs[time] = hidden
        if layer.masks is not None:
            mask = layer.masks[time]
            outputs[time] = _select(builder, mask, hidden, zero)
            hidden = _select(builder, mask, hidden, state[0])
            if cell is not None and state[1] is not None:
                cell = _select(builder, mask, cell, state[1])
        state = (hidden, cell)
    return [outputs[time] for time in times], state


def _select(builder: TfliteGraphBuilder, mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return builder.emit("SELECT_V2", [mask, one, other], one.shape)


def _emit_binary(builder: TfliteGraphBuilder, op_type: str, left: Tensor, right: Tensor) -> Tensor:
    return builder.emit(op_type, [left, right], left.shape)


def _rnn_step(builder: TfliteGraphBuilder, layer: Layer, inputs: Tensor, state: State) -> State:
    product = emit_fully_connected(builder, state[0], layer.weights, None)
    return layer.activations[0](builder, _emit_binary(builder, "ADD", inputs, product)), None


def _lstm_step(builder: TfliteGraphBuilder, layer: Layer, inputs: Tensor, state: State) -> State:
    hidden, cell = state
    if cell is None:
        raise ValueError("an LSTM has a cell")
    gate, candidate, out = layer.activations
    gates = _emit_binary(
        builder, "ADD", inputs, emit_fully_connected(builder, hidden, layer.weights, None)
    )
    opening, emitting, keeping, new = split_tensor(builder, gates, [layer.size] * 4, 1)
    peeps = None
    if layer.peepholes is not None:
        peeps = split_tensor(builder, layer.peepholes, [layer.size] * 3, 0)
        opening = _add_peephole(builder, opening, cell, peeps[0])
        keeping = _add_peephole(builder, keeping, cell, peeps[2])
    opening = gate(builder, opening)
    if get_attribute(layer.node, "input_forget", 0):
        keeping = builder.emit("SUB", [builder.float32(1.0), opening], opening.shape)
    else:
        keeping = gate(builder, keeping)
    update = _emit_binary(builder, "MUL", opening, candidate(builder, new))
    cell = _emit_binary(builder, "ADD", _emit_binary(builder, "MUL", keeping, cell), update)
    if peeps is not None:
        emitting = _add_peephole(builder, emitting, cell, peeps[1])
    return _emit_binary(builder, "MUL", gate(builder, emitting), out(builder, cell)), cell


def _add_peephole(
    builder: TfliteGraphBuilder, tensor: Tensor, cell: Tensor, weights: Tensor
) -> Tensor:
    return _emit_binary(builder, "ADD", tensor, _emit_binary(builder, "MUL", cell, weights))


def _gru_step(builder: TfliteGraphBuilder, layer: Layer, inputs: Tensor, state: State) -> State:
    hidden, size = state[0], layer.size
    gate, candidate = layer.activations
    from_input, new_input = split_tensor(builder, inputs, [2 * size, size], 1)
    # Slices of a stored weight are folded, and are the same at each step.
    weights = slice_tensor(builder, layer.weights, {0: range(2 * size)})
    new_weights = slice_tensor(builder, layer.weights, {0: range(2 * size, 3 * size)})
    bias, new_bias = None, None
    if layer.state_bias is not None:
        bias, new_bias = split_tensor(builder, layer.state_bias, [2 * size, size], 0)
    gates = gate(
        builder,
        _emit_binary(
            builder, "ADD", from_input, emit_fully_connected(builder, hidden, weights, bias)
        ),
    )
    keeping, resetting = split_tensor(builder, gates, [size, size], 1)
    if get_attribute(layer.node, "linear_before_reset", 0):
        product = emit_fully_connected(builder, hidden, new_weights, new_bias)
        product = _emit_binary(builder, "MUL", resetting, product)
    else:
        product = emit_fully_connected(
            builder, _emit_binary(builder, "MUL", resetting, hidden), new_weights, None
        )
    new = candidate(builder, _emit_binary(builder, "ADD", new_input, product))
    # (1 - z) * new + z * hidden
    weighted = _emit_binary(builder, "MUL", keeping, _emit_binary(builder, "SUB", hidden, new))
    return _emit_binary(builder, "ADD", new, weighted), None


def _rnn(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    _convert_recurrent(builder, node, gates=1, step=_rnn_step)


def _lstm(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    _convert_recurrent(builder, node, gates=4, step=_lstm_step)


def _gru(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    _convert_recurrent(builder, node, gates=3, step=_gru_step)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN": _rnn,
}
