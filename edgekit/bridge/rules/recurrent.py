"""Conversion rules of LSTM, GRU and RNN, unrolled over a sequence of known length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Tensor
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.gates import Activation, activations_of
from edgekit.bridge.rules.joining import parted
from edgekit.bridge.rules.slicing import sliced

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


def _recurrent(low: Lowering, node: NodeProto, *, gates: int, step: Step) -> None:
    layers = _layers(low, node, gates)
    steps: list[list[Tensor]] = []
    ends: list[State] = []
    for layer in layers:
        outputs, end = _run(low, layer, step)
        steps.append(outputs)
        ends.append(end)
    by_batch = bool(attr(node, "layout", 0))
    if node.output[0]:
        time, side = (1, 2) if by_batch else (0, 1)
        stacked = [_packed(low, outputs, time) for outputs in steps]
        low.bind(node, _packed(low, stacked, side))
    axis = 1 if by_batch else 0
    if len(node.output) > 1 and node.output[1]:
        low.bind(node, _packed(low, [end[0] for end in ends], axis), output=1)
    if len(node.output) > 2 and node.output[2]:
        cells = [end[1] for end in ends if end[1] is not None]
        low.bind(node, _packed(low, cells, axis), output=2)


def _packed(low: Lowering, parts: Sequence[Tensor], axis: int) -> Tensor:
    shape = list(parts[0].shape)
    shape.insert(axis, len(parts))
    if len(parts) == 1:
        return low.reshaped(parts[0], tuple(shape))
    options = {"values_count": len(parts), "axis": axis}
    return low.emit("PACK", parts, tuple(shape), options=options)


def _layers(low: Lowering, node: NodeProto, gates: int) -> list[Layer]:
    data = low.plain(node, 0)
    if attr(node, "layout", 0):
        data = low.transposed(data, (1, 0, 2))
    weights, recurrent = low.plain(node, 1), low.plain(node, 2)
    sides, size = recurrent.shape[0], recurrent.shape[2]
    length, batch = data.shape[:2]
    if length * sides > _MOST_STEPS:
        raise low.refusal(node, f"goes {length} steps; {_MOST_STEPS} is the most")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    masks = _masks(low, node, length, batch)
    bias = low.plain(node, 3) if low.has(node, 3) else None
    kept = node.op_type == "GRU" and bool(attr(node, "linear_before_reset", 0))
    made: list[Layer] = []
    for side, is_backward in enumerate(backward[attr(node, "direction", "forward")]):
        both = _of_side(low, bias, side)
        own, other = (None, None) if both is None else parted(low, both, [gates * size] * 2, 0)
        added = own
        if own is not None and other is not None and not kept:
            added = low.emit("ADD", [own, other], own.shape)
        made.append(
            Layer(
                node=node,
                size=size,
                inputs=_inputs(low, data, _of_side(low, weights, side), added),
                weights=_known(_of_side(low, recurrent, side)),
                state_bias=other if kept else None,
                peepholes=_of_side(low, low.plain(node, 7) if low.has(node, 7) else None, side),
                hidden=_first(low, node, 5, side, (batch, size)),
                cell=_first(low, node, 6, side, (batch, size)) if gates == 4 else None,
                masks=masks,
                activations=activations_of(low, node, side, sides),
                backward=is_backward,
            )
        )
    return made


def _known(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("weights are absent")
    return tensor


def _of_side(low: Lowering, tensor: Tensor | None, side: int) -> Tensor | None:
    if tensor is None:
        return None
    return low.reshaped(sliced(low, tensor, {0: range(side, side + 1)}), tensor.shape[1:])


def _first(low: Lowering, node: NodeProto, place: int, side: int, shape: tuple[int, int]) -> Tensor:
    """Read an initial state; zeros if it is absent."""
    if not low.has(node, place):
        return low.stored(np.zeros(shape, np.float32))
    given = low.plain(node, place)
    if attr(node, "layout", 0):
        given = low.transposed(given, (1, 0, 2))
    return _known(_of_side(low, given, side))


def _inputs(
    low: Lowering, data: Tensor, weights: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """Multiply the inputs of all steps by the weights at once, then split them by step."""
    weights = _known(weights)
    length, batch, features = data.shape
    flat = low.reshaped(data, (length * batch, features))
    made = connected(low, flat, weights, bias)
    whole = low.reshaped(made, (length, batch, weights.shape[0]))
    if length == 1:
        return [low.reshaped(whole, whole.shape[1:])]
    steps = [
        Tensor(name=f"{whole.name}/{at}", dtype="float32", shape=whole.shape[1:])
        for at in range(length)
    ]
    low.emit_many("UNPACK", [whole], steps, options={"num": length, "axis": 0})
    return steps


def connected(low: Lowering, data: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """Emit a fully connected layer.

    Args:
        low: receives the operators.
        data: (batch, inputs).
        weights: (outputs, inputs).
        bias: (outputs,); ``None`` for zeros.
    """
    shape = (data.shape[0], weights.shape[0])
    bias = bias or low.stored(np.zeros(weights.shape[0], np.float32))
    return low.emit("FULLY_CONNECTED", [data, weights, bias], shape)


def _masks(low: Lowering, node: NodeProto, length: int, batch: int) -> list[Tensor] | None:
    if not low.has(node, 4):
        return None
    known = low.constant(node, 4)
    if known is not None:
        if (known >= length).all():
            return None
        return [low.stored(known.reshape(batch, 1) > at) for at in range(length)]
    lengths = low.reshaped(low.plain(node, 4), (batch, 1))
    return [
        low.emit(
            "GREATER",
            [lengths, low.stored(np.asarray(at, lengths.dtype))],
            (batch, 1),
            dtype="bool",
        )
        for at in range(length)
    ]


def _run(low: Lowering, layer: Layer, step: Step) -> tuple[list[Tensor], State]:
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
            outputs[at] = _either(low, mask, hidden, zero)
            hidden = _either(low, mask, hidden, state[0])
            if cell is not None and state[1] is not None:
                cell = _either(low, mask, cell, state[1])
        state = (hidden, cell)
    return [outputs[at] for at in times], state


def _either(low: Lowering, mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return low.emit("SELECT_V2", [mask, one, other], one.shape)


def _pair(low: Lowering, kind: str, one: Tensor, other: Tensor) -> Tensor:
    return low.emit(kind, [one, other], one.shape)


def _rnn_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    product = connected(low, state[0], layer.weights, None)
    return layer.activations[0](low, _pair(low, "ADD", given, product)), None


def _lstm_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    hidden, cell = state
    if cell is None:
        raise ValueError("an LSTM has a cell")
    gate, candidate, out = layer.activations
    whole = _pair(low, "ADD", given, connected(low, hidden, layer.weights, None))
    opening, emitting, keeping, new = parted(low, whole, [layer.size] * 4, 1)
    peeps = None
    if layer.peepholes is not None:
        peeps = parted(low, layer.peepholes, [layer.size] * 3, 0)
        opening = _peeped(low, opening, cell, peeps[0])
        keeping = _peeped(low, keeping, cell, peeps[2])
    opening = gate(low, opening)
    if attr(layer.node, "input_forget", 0):
        keeping = low.emit("SUB", [low.float32(1.0), opening], opening.shape)
    else:
        keeping = gate(low, keeping)
    taken = _pair(low, "MUL", opening, candidate(low, new))
    cell = _pair(low, "ADD", _pair(low, "MUL", keeping, cell), taken)
    if peeps is not None:
        emitting = _peeped(low, emitting, cell, peeps[1])
    return _pair(low, "MUL", gate(low, emitting), out(low, cell)), cell


def _peeped(low: Lowering, tensor: Tensor, cell: Tensor, weights: Tensor) -> Tensor:
    return _pair(low, "ADD", tensor, _pair(low, "MUL", cell, weights))


def _gru_step(low: Lowering, layer: Layer, given: Tensor, state: State) -> State:
    hidden, size = state[0], layer.size
    gate, candidate = layer.activations
    from_input, new_input = parted(low, given, [2 * size, size], 1)
    # Slices of a stored weight are folded, and are the same at each step.
    weights = sliced(low, layer.weights, {0: range(2 * size)})
    new_weights = sliced(low, layer.weights, {0: range(2 * size, 3 * size)})
    bias, new_bias = None, None
    if layer.state_bias is not None:
        bias, new_bias = parted(low, layer.state_bias, [2 * size, size], 0)
    gates = gate(low, _pair(low, "ADD", from_input, connected(low, hidden, weights, bias)))
    keeping, resetting = parted(low, gates, [size, size], 1)
    if attr(layer.node, "linear_before_reset", 0):
        product = connected(low, hidden, new_weights, new_bias)
        product = _pair(low, "MUL", resetting, product)
    else:
        product = connected(low, _pair(low, "MUL", resetting, hidden), new_weights, None)
    new = candidate(low, _pair(low, "ADD", new_input, product))
    # (1 - z) * new + z * hidden
    moved = _pair(low, "MUL", keeping, _pair(low, "SUB", hidden, new))
    return _pair(low, "ADD", new, moved), None


def _rnn(low: Lowering, node: NodeProto) -> None:
    _recurrent(low, node, gates=1, step=_rnn_step)


def _lstm(low: Lowering, node: NodeProto) -> None:
    _recurrent(low, node, gates=4, step=_lstm_step)


def _gru(low: Lowering, node: NodeProto) -> None:
    _recurrent(low, node, gates=3, step=_gru_step)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}
