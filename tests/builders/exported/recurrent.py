"""Recurrent networks, and weights inside If, Loop and Scan, as exporters write them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.builders.exported.attention import activation, project

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recur(d, x, kind, hidden, *, states=()):
    """Add a recurrent operator over [length, batch, width], and return its outputs."""
    direction = d.one_of(["forward", "forward", "reverse", "bidirectional"])
    if states:
        direction = "forward"
    ways, gates, wide = 1 + (direction == "bidirectional"), _GATES[kind], d.width(x)
    how = {"hidden_size": hidden, "direction": direction}
    if d.chance(0.15):
        how["clip"] = 1.5
    if kind == "GRU" and d.chance(0.5):
        how["linear_before_reset"] = 1
    ends = [d.constant(d.noise(ways, 2 * gates * hidden, scale=0.2))] if d.chance(0.8) else []
    more = [*(ends or [""]), "", *states] if states else ends
    if kind == "LSTM" and d.chance(0.1):
        filled = [*more, *[""] * (5 - len(more))]
        more = [*filled[:5], d.constant(d.noise(ways, 3 * hidden, scale=0.2))]
    w = d.weight(ways, gates * hidden, wide, fan_in=wide, tie=0.1)
    r = d.weight(ways, gates * hidden, hidden, fan_in=hidden)
    return d.add(kind, x, w, r, *more, count=3 if kind == "LSTM" else 2, **how)


def _merge(d, y):
    """Reshape [length, ways, batch, hidden] to [length, batch, ways * hidden]."""
    ways, batch, hidden = d.shape(y)[1:]
    if ways == 1:
        return d.add("Squeeze", y, d.integers(1))
    turned = d.add("Transpose", y, perm=[0, 2, 1, 3])
    return d.add("Reshape", turned, d.integers(0, 0 if d.chance(0.5) else batch, ways * hidden))


def recurrent(d):
    """Add one or two recurrent layers, sometimes with states as inputs, and a layer on top."""
    kind, length = d.one_of(["LSTM", "LSTM", "GRU", "GRU", "RNN"]), 2 + d.below(6)
    hidden = d.one_of([8, 16, 32])
    wide = d.one_of([8, 20, 32])
    outer, kept = d.chance(0.7), []
    x = d.take(1, length, wide, axes=("batch", "length"))
    if d.chance(0.3):
        x = activation(d, project(d, x, wide))
    x = d.add("Transpose", x, perm=[1, 0, 2]) if outer else d.add(
        "Reshape", x, d.integers(length, 1, wide)
    )  # fmt: skip
    for _ in range(1 + d.below(2)):
        states = []
        if d.chance(0.25):
            states = [d.take(1, 1, hidden) for _ in range(2 if kind == "LSTM" else 1)]
        made = _recur(d, x, kind, hidden, states=states)
        kept += made[1:] if states or d.chance(0.15) else []
        last, x = made[1], _merge(d, made[0])
    if d.chance(0.3):
        one = d.add("Gather", last, d.constant(np.int64(-1)), axis=0)
        return [project(d, one, 5), *kept]
    x = d.add("Transpose", x, perm=[1, 0, 2])
    return [project(d, x, 6), *kept]


def branches(d):
    """Add a choice between two small networks, by an input or by the data."""
    wide, made = d.one_of([12, 24, 48]), d.one_of([8, 24])
    x = d.take(1, wide, axes=("batch",)) if d.chance(0.5) else d.take(1, 4, wide, axes=("batch",))
    if d.chance(0.6):
        x = activation(d, project(d, x, wide))
    shared = d.weight(wide, made, fan_in=wide) if d.chance(0.4) else None
    if d.chance(0.5):
        which = d.take(1, dtype=np.bool_)
        condition = d.add("Squeeze", which)
    else:
        mean = d.add("ReduceMean", x, keepdims=0)
        condition = d.add("Greater", mean, d.scalar(0))

    def written(depth):
        def write(inner):
            w = shared if shared and inner.chance(0.6) else inner.weight(wide, made, fan_in=wide)
            y = inner.add("MatMul", x, w)
            if inner.chance(0.5):
                y = inner.add("Add", y, inner.constant(inner.noise(made, scale=0.1)))
            if depth and inner.chance(0.3):
                return [_choice(inner, condition, written(0), written(0))]
            return [inner.add(inner.one_of(["Relu", "Tanh", "Sigmoid"]), y)]

        return write

    y = _choice(d, condition, written(1), written(1))
    return [project(d, y, 6) if d.chance(0.6) else y]


def _choice(d, condition, one, other):
    yes, read = d.branch(one, f"then{len(d.nodes)}")
    no, also = d.branch(other, f"else{len(d.nodes)}")
    captures = [n for n in {*read, *also} if n in d.arrays or n in d.weights]
    return d.add("If", condition, captures=captures, then_branch=yes, else_branch=no)


def loops(d):
    """Add a Loop or Scan whose body of one layer updates a state."""
    wide = d.one_of([12, 24, 48])
    x = d.take(1, wide)
    w = d.weight(wide, wide, fan_in=wide)
    own = d.chance(0.5)
    if d.chance(0.5):
        return [_add_loop(d, x, w, wide, own=own)]
    steps = d.take(1, 4, wide)
    return _add_scan(d, x, d.add("Squeeze", steps, d.integers(0)), w, wide)


def _set_type(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def _add_loop(d, x, w, wide, *, own):
    weights = []
    if own:
        weights = [onnx.numpy_helper.from_array(d.weights[w], "inner.w")]
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("MatMul", ["a", "inner.w" if own else w], ["m"]),
        helper.make_node("Tanh", ["m"], ["t"]),
        helper.make_node("Add", ["t", "a"], ["o"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [
            _set_type("i", TensorProto.INT64, []),
            _set_type("go", TensorProto.BOOL, []),
            _set_type("a", TensorProto.FLOAT, [1, wide]),
        ],
        [_set_type("on", TensorProto.BOOL, []), _set_type("o", TensorProto.FLOAT, [1, wide])],
        weights,
    )
    count = d.constant(np.int64(2 + d.below(3)))
    y = d.add("Loop", count, "", x, captures=() if own else (w,), body=body)
    return project(d, y, 6)


def _add_scan(d, x, steps, w, wide):
    nodes = [
        helper.make_node("MatMul", ["a", w], ["m"]),
        helper.make_node("Add", ["m", "row"], ["s"]),
        helper.make_node("Tanh", ["s"], ["o"]),
        helper.make_node("Identity", ["o"], ["p"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [_set_type("a", TensorProto.FLOAT, [1, wide]), _set_type("row", TensorProto.FLOAT, [wide])],
        [
            _set_type("o", TensorProto.FLOAT, [1, wide]),
            _set_type("p", TensorProto.FLOAT, [1, wide]),
        ],
    )
    last, rows = d.add("Scan", x, steps, captures=(w,), count=2, body=body, num_scan_inputs=1)
    return [project(d, last, 6), rows]
