"""Conversion rules of LSTM, GRU and RNN, unrolled over a sequence of known length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.gates import Activation, read_activations
from edgekit.conversion.onnx_to_tflite.ops.joining import split_tensor
from edgekit.conversion.onnx_to_tflite.ops.slicing import slice_tensor
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
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
Step = Callable[[Lowering, Layer, Tensor, State], State]


def _lower_recurrent(low: Lowering, node: NodeProto, *, gates: int, step: Step) -> None:
    layers = _read_layers(low, node, gates)
    steps: list[list[Tensor]] = []
    ends: list[State] = []
    for layer in layers:
        outputs, end = _emit_steps(low, layer, step)
        steps.append(outputs)
        ends.append(end)
    by_batch = bool(get_attribute(node, "layout", 0))
    if node.output[0]:
        time, side = (1, 2) if by_batch else (0, 1)
        stacked = [_pack(low, outputs, time) for outputs in steps]
        low.bind(node, _pack(low, stacked, side))
    axis = 1 if by_batch else 0
    if len(node.output) > 1 and node.output[1]:
        low.bind(node, _pack(low, [end[0] for end in ends], axis), output=1)
    if len(node.output) > 2 and node.output[2]:
        cells = [end[1] for end in ends if end[1] is not None]
        low.bind(node, _pack(low, cells, axis), output=2)


def _pack(low: Lowering, parts: Sequence[Tensor], axis: int) -> Tensor:
    shape = list(parts[0].shape)
    shape.insert(axis, len(parts))
    if len(parts) == 1:
        return low.reshape(parts[0], tuple(shape))
    options = {"values_count": len(parts), "axis": axis}
    return low.emit("PACK", parts, tuple(shape), options=options)


def _read_layers(low: Lowering, node: NodeProto, gates: int) -> list[Layer]:
    data = low.plain(node, 0)
    if get_attribute(node, "layout", 0):
        data = low.transpose(data, (1, 0, 2))
    weights, recurrent = low.plain(node, 1), low.plain(node, 2)
    sides, size = recurrent.shape[0], recurrent.shape[2]
    length, batch = data.shape[:2]
    if length * sides > _MOST_STEPS:
        raise low.refusal(node, f"has {length} steps; at most {_MOST_STEPS} are supported")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    masks = _read_masks(low, node, length, batch)
    bias = low.plain(node, 3) if low.has(node, 3) else None
    kept = node.op_type == "GRU" and bool(get_attribute(node, "linear_before_reset", 0))
    made: list[Layer] = []
    for side, is_backward in enumerate(backward[get_attribute(node, "direction", "forward")]):
        both = _take_direction(low, bias, side)
        own, other = (
            (None, None) if both is None else split_tensor(low, both, [gates * size] * 2, 0)
        )
        added = own
        if own is not None and other is not None and not kept:
            added = low.emit("ADD", [own, other], own.shape)
        made.append(
            Layer(
                node=node,
                size=size,
                inputs=_multiply_inputs(low, data, _take_direction(low, weights, side), added),
                weights=_require(_take_direction(low, recurrent, side)),
                state_bias=other if kept else None,
                peepholes=_take_direction(
                    low, low.plain(node, 7) if low.has(node, 7) else None, side
                ),
                hidden=_read_initial_state(low, node, 5, side, (batch, size)),
                cell=_read_initial_state(low, node, 6, side, (batch, size)) if gates == 4 else None,
                masks=masks,
                activations=read_activations(low, node, side, sides),
                backward=is_backward,
            )
        )
    return made


def _require(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("weights are absent")
    return tensor


def _take_direction(low: Lowering, tensor: Tensor | None, side: int) -> Tensor | None:
    if tensor is None:
        return None
    return low.reshape(slice_tensor(low, tensor, {0: range(side, side + 1)}), tensor.shape[1:])


def _read_initial_state(
    low: Lowering, node: NodeProto, place: int, side: int, shape: tuple[int, int]
) -> Tensor:
    """Read an initial state; zeros if it is absent."""
    if not low.has(node, place):
        return low.store(np.zeros(shape, np.float32))
    given = low.plain(node, place)
    if get_attribute(node, "layout", 0):
        given = low.transpose(given, (1, 0, 2))
    return _require(_take_direction(low, given, side))


def _multiply_inputs(
    low: Lowering, data: Tensor, weights: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """Multiply the inputs of all steps by the weights at once, then split them by step."""
    weights = _require(weights)
    length, batch, features = data.shape
    flat = low.reshape(data, (length * batch, features))
    made = emit_fully_connected(low, flat, weights, bias)
    whole = low.reshape(made, (length, batch, weights.shape[0]))
    if length == 1:
        return [low.reshape(whole, whole.shape[1:])]
    steps = [
        Tensor(name=f"{whole.name}/{at}", dtype="float32", shape=whole.shape[1:])
        for at in range(length)
    ]
    low.emit_many("UNPACK", [whole], steps, options={"num": length, "axis": 0})
    return steps


def emit_fully_connected(
    low: Lowering, data: Tensor, weights: Tensor, bias: Tensor | None
) -> Tensor:
    """Emit a fully connected layer.

    Args:
        low: receives the operators.
        data: (batch, inputs).
        weights: (outputs, inputs).
        bias: (outputs,); ``None`` for zeros.
    """
    shape = (data.shape[0], weights.shape[0])
    bias = bias or low.store(np.zeros(weights.shape[0], np.float32))
    return low.emit("FULLY_CONNECTED", [data, weights, bias], shape)


def _read_masks(low: Lowering, node: NodeProto, length: int, batch: int) -> list[Tensor] | None:
    if not low.has(node, 4):
        return None
    known = low.constant(node, 4)
    if known is not None:
        if (known >= length).all():
            return None
        return [low.store(known.reshape(batch, 1) > at) for at in range(length)]
    lengths = low.reshape(low.plain(node, 4), (batch, 1))
    return [
        low.emit(
            "GREATER",
            [lengths, low.store(np.asarray(at, lengths.dtype))],
            (batch, 1),
            dtype="bool",
        )
        for at in range(length)
    ]


def _emit_steps(low: Lowering, layer: Layer, step: Step) -> tuple[list[Tensor], State]:
    """Emit all steps of a layer; return their outputs in order of time, and the last state."""
    state: State = (layer.hidden, layer.cell)
    outputs: dict[int, Tensor] = {}
    zero = low.float32(0.0)
    times = range(len(layer.inputs))
    for at in reversed(times) if layer.backward else times:
        hidden, cell = step(low, layer, layer.inputs[at], state)
        outputs[at] = hidden
        if layer.masks is not None:
            mask = layer.masks[at]
            outputs[at] = _select(low, mask, hidden, zero)
            hidden = _select(low, mask, hidden, state[0])
            if cell is not None and state[1] is not None:
                cell = _select(low, mask, cell, state[1])
        state = (hidden, cell)
    return [outputs[at] for at in times], state


def _select(low: Lowering, mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return low.emit("SELECT_V2", [mask, one, other], one.shape)


def _emit_binary(low: Lowering, kind: str, one: Tensor, other: Tensor) -> Tensor:
    return low.emit(kind, [one, other], one.shape)


def _rnn_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    product = emit_fully_connected(low, state[0], layer.weights, None)
    return layer.activations[0](low, _emit_binary(low, "ADD", given, product)), None


def _lstm_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    hidden, cell = state
    if cell is None:
        raise ValueError("an LSTM has a cell")
    gate, candidate, out = layer.activations
    whole = _emit_binary(low, "ADD", given, emit_fully_connected(low, hidden, layer.weights, None))
    opening, emitting, keeping, new = split_tensor(low, whole, [layer.size] * 4, 1)
    peeps = None
    if layer.peepholes is not None:
        peeps = split_tensor(low, layer.peepholes, [layer.size] * 3, 0)
        opening = _add_peephole(low, opening, cell, peeps[0])
        keeping = _add_peephole(low, keeping, cell, peeps[2])
    opening = gate(low, opening)
    if get_attribute(layer.node, "input_forget", 0):
        keeping = low.emit("SUB", [low.float32(1.0), opening], opening.shape)
    else:
        keeping = gate(low, keeping)
    taken = _emit_binary(low, "MUL", opening, candidate(low, new))
    cell = _emit_binary(low, "ADD", _emit_binary(low, "MUL", keeping, cell), taken)
    if peeps is not None:
        emitting = _add_peephole(low, emitting, cell, peeps[1])
    return _emit_binary(low, "MUL", gate(low, emitting), out(low, cell)), cell


def _add_peephole(low: Lowering, tensor: Tensor, cell: Tensor, weights: Tensor) -> Tensor:
    return _emit_binary(low, "ADD", tensor, _emit_binary(low, "MUL", cell, weights))


def _gru_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    hidden, size = state[0], layer.size
    gate, candidate = layer.activations
    from_input, new_input = split_tensor(low, given, [2 * size, size], 1)
    # Slices of a stored weight are folded, and are the same at each step.
    weights = slice_tensor(low, layer.weights, {0: range(2 * size)})
    new_weights = slice_tensor(low, layer.weights, {0: range(2 * size, 3 * size)})
    bias, new_bias = None, None
    if layer.state_bias is not None:
        bias, new_bias = split_tensor(low, layer.state_bias, [2 * size, size], 0)
    gates = gate(
        low, _emit_binary(low, "ADD", from_input, emit_fully_connected(low, hidden, weights, bias))
    )
    keeping, resetting = split_tensor(low, gates, [size, size], 1)
    if get_attribute(layer.node, "linear_before_reset", 0):
        product = emit_fully_connected(low, hidden, new_weights, new_bias)
        product = _emit_binary(low, "MUL", resetting, product)
    else:
        product = emit_fully_connected(
            low, _emit_binary(low, "MUL", resetting, hidden), new_weights, None
        )
    new = candidate(low, _emit_binary(low, "ADD", new_input, product))
    # (1 - z) * new + z * hidden
    moved = _emit_binary(low, "MUL", keeping, _emit_binary(low, "SUB", hidden, new))
    return _emit_binary(low, "ADD", new, moved), None


def _rnn(low: Lowering, node: NodeProto) -> None:
    _lower_recurrent(low, node, gates=1, step=_rnn_step)


def _lstm(low: Lowering, node: NodeProto) -> None:
    _lower_recurrent(low, node, gates=4, step=_lstm_step)


def _gru(low: Lowering, node: NodeProto) -> None:
    _lower_recurrent(low, node, gates=3, step=_gru_step)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
