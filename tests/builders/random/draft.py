"""A random graph under construction: values with shapes, weights, and a run by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

_OPSET = 17
_LARGEST = 60.0
_ODD_NAMES = ["{}", "/layer.{}/Out:0", "a b {}", "élan{}", "w;{}", "{}/x", "::{}"]
_FLOAT = np.dtype(np.float32)


class Impossible(Exception):
    """A step that does not fit the existing values."""


class Draft:
    """A graph under construction; every value is known for one feed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.arrays, self.inputs = [], {}, {}, []
        self.names = _ODD_NAMES[self.below(len(_ODD_NAMES))] if self.chance(0.3) else "v{}"

    def below(self, limit):
        return int(self.rng.integers(limit))

    def chance(self, share):
        return self.rng.random() < share

    def one_of(self, things):
        if not len(things):
            raise Impossible
        return things[self.below(len(things))]

    def name(self):
        return self.names.format(len(self.arrays) + len(self.weights))

    def noise(self, *shape, scale=1.0):
        return (self.rng.normal(size=shape) * scale).astype(np.float32)

    def feed(self, *shape):
        name = self.name()
        self.arrays[name] = self.noise(*shape)
        self.inputs.append(name)
        return name

    def constant(self, array):
        name = self.name()
        self.weights[name] = np.asarray(array)
        return name

    def integers(self, *numbers):
        return self.constant(np.asarray(numbers, np.int64))

    def shape(self, name):
        return (self.arrays[name] if name in self.arrays else self.weights[name]).shape

    def add(self, kind, *inputs, count=1, **attributes):
        """Add an operator; return the name of its output, or of each of several."""
        made = [f"{self.name()}.{n}" if count > 1 else self.name() for n in range(count)]
        node = helper.make_node(kind, list(inputs), made, name=f"n{len(self.nodes)}", **attributes)
        known = {n: self.arrays[n] for n in inputs if n in self.arrays}
        weights = {n: self.weights[n] for n in inputs if n in self.weights}
        found = _run(_model([node], known, dict.fromkeys(made), weights), known)
        for array in found:
            if array.size == 0 or array.size > 6000:
                raise Impossible
            if array.dtype == _FLOAT and not np.abs(array).max() < _LARGEST:
                raise Impossible
        self.nodes.append(node)
        self.arrays.update(zip(made, found, strict=True))
        return made if count > 1 else made[0]

    def pick(self, rank=None, *, least=0):
        """Choose a float value; later ones are more likely."""
        fit = [
            n for n, a in self.arrays.items()
            if a.dtype == _FLOAT and (a.ndim == rank if rank is not None else a.ndim >= least)
        ]  # fmt: skip
        if not fit:
            raise Impossible
        return fit[-1 - min(int(self.rng.exponential(1.5)), len(fit) - 1)]

    def finished(self, *, output_share=0.15):
        read = {n for node in self.nodes for n in node.input}
        made = [n for node in self.nodes for n in node.output]
        outputs = [n for n in made if n not in read or self.chance(output_share)]
        known = {n: self.arrays[n] for n in self.inputs}
        return _model(self.nodes, known, {n: self.arrays[n] for n in outputs}, self.weights)


def _info(name, array):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def _model(nodes, inputs, outputs, weights):
    read = {n for node in nodes for n in node.input} | set(outputs)
    graph = helper.make_graph(
        nodes,
        "random",
        [_info(n, a) for n, a in inputs.items()],
        [
            helper.make_empty_tensor_value_info(n) if a is None
            else _info(n, a) for n, a in outputs.items()
        ],
        [numpy_helper.from_array(a, n) for n, a in weights.items() if n in read],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _run(model, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
        return session.run(None, feeds)
    except Exception as error:
        raise Impossible(str(error)) from error


# ------------------------------------------------------------ steps


def _pads(d, count):
    return [d.below(3) for _ in range(2 * count)]
