"""Random quantized ONNX graphs (QDQ): a random float graph with its layers in 8 bits."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.builders.random.draft import _FLOAT, _model


def quantize(d):
    """Quantize a random share of the values of a draft, as a quantizer does.

    Returns:
        The model, and the scale of every output that is quantized, by name.
    """
    share = d.one_of([0.5, 0.9, 1.0, 1.0])
    dtype = d.one_of([np.uint8, np.uint8, np.int8])
    weights, nodes, scales = dict(d.weights), [], {}
    for name in d.inputs:
        nodes += _pair(d, weights, scales, name, name, share, dtype)
    names = {n: (f"{n}_d" if n in scales else n) for n in d.inputs}
    last = {}
    for node in d.nodes:
        new = type(node)()
        new.CopyFrom(node)
        del new.input[:]
        new.input.extend(names.get(n, n) for n in node.input)
        if all(n not in ("", None) for n in node.input):
            _store(d, new, weights, nodes, scales, last, share)
        nodes.append(new)
        like = scales.get(node.input[0]) if node.op_type in _MOVES and d.chance(0.7) else None
        for made in node.output:
            nodes += _pair(d, weights, scales, made, made, share, dtype, like)
            names[made] = f"{made}_d" if made in scales else made
    read = {n for node in d.nodes for n in node.input}
    made = [n for node in d.nodes for n in node.output]
    outputs = [n for n in made if n not in read or d.chance(0.1)]
    known = {n: d.arrays[n] for n in d.inputs}
    ends = {names[n]: d.arrays[n] for n in outputs}
    steps = {names[n]: scales[n][0] for n in outputs if n in scales}
    return _model(nodes, known, ends, weights), steps


_MOVES = {"Reshape", "Transpose", "MaxPool", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather",
          "Identity", "Resize", "DepthToSpace", "Relu", "Split", "GlobalAveragePool"}  # fmt: skip


def _pair(d, weights, scales, value, key, share, dtype, like=None):
    array = d.arrays[value]
    if array.dtype != _FLOAT or not d.chance(share):
        return []
    if like is None:
        low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
        if d.chance(0.1):
            low, high = low / 2, high / 2  # clips
        scale = np.float32(max(high - low, 1e-3) / 255)
        bounds = np.iinfo(dtype)
        zero = dtype(np.clip(np.rint(-low / scale) + bounds.min, bounds.min, bounds.max))
        like = (scale, zero)
    scales[key] = like
    weights[f"{value}_s"], weights[f"{value}_z"] = like
    q = helper.make_node("QuantizeLinear", [value, f"{value}_s", f"{value}_z"], [f"{value}_q"])
    dq = helper.make_node(
        "DequantizeLinear", [f"{value}_q", f"{value}_s", f"{value}_z"], [f"{value}_d"]
    )
    return [q, dq]


_LAYERS = {"Conv": 0, "Gemm": None, "MatMul": None, "ConvTranspose": 1}


def _store(d, node, weights, nodes, scales, last, share):
    """Store weights of layers as int8, biases as int32 and numbers as uint8."""
    if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in weights:
        weight = weights[node.input[1]]
        axis = _LAYERS[node.op_type]
        if axis is None:
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if turned else weight.ndim - 1
        plain = weight.ndim > 1 and (node.op_type != "ConvTranspose" or _group(node) == 1)
        axis = axis if plain and d.chance(0.7) else None
        given = _stored(node, 1, weight, axis, weights, nodes)
        source = node.input[0][:-2] if node.input[0].endswith("_d") else None
        if source in scales and len(node.input) > 2 and node.input[2] in weights:
            bias = weights[node.input[2]]
            if bias.ndim == 1:
                total = np.float32(scales[source][0] * given)
                _stored_bias(node, bias, total, weights, nodes)
    elif node.op_type in ("Add", "Mul", "Sub", "Concat", "Div", "MatMul", "Max"):
        for place, name in enumerate(list(node.input)):
            if name in weights and weights[name].dtype == _FLOAT and d.chance(share):
                _stored(node, place, weights[name], None, weights, nodes, np.int8)


def _group(node):
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _stored(node, place, array, axis, weights, nodes, dtype=np.int8):
    stem = f"{node.name}_w{place}"
    rest = tuple(n for n in range(array.ndim) if n != axis) if axis is not None else None
    most = np.maximum(np.abs(array).max(axis=rest), 1e-3)
    scale = np.float32(most / 127)
    shape = [1] * array.ndim
    if axis is not None:
        shape[axis] = -1
    spread = scale.reshape(shape) if axis is not None else scale
    weights[f"{stem}_q"] = np.rint(array / spread).astype(dtype)
    weights[f"{stem}_s"], weights[f"{stem}_z"] = scale, np.zeros_like(scale, dtype)
    names = [f"{stem}_q", f"{stem}_s", f"{stem}_z"]
    how = {} if axis is None else {"axis": axis}
    nodes.append(helper.make_node("DequantizeLinear", names, [f"{stem}_d"], **how))
    node.input[place] = f"{stem}_d"
    return scale


def _stored_bias(node, bias, scale, weights, nodes):
    stem = f"{node.name}_b"
    weights[f"{stem}_q"] = np.rint(bias / scale).astype(np.int32)
    weights[f"{stem}_s"], weights[f"{stem}_z"] = scale, np.zeros_like(scale, np.int32)
    names = [f"{stem}_q", f"{stem}_s", f"{stem}_z"]
    nodes.append(helper.make_node("DequantizeLinear", names, [f"{stem}_d"], axis=0))
    node.input[2] = f"{stem}_d"
