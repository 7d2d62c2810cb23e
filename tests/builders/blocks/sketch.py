"""A graph under construction, node by node, as exporters write it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Sketch:
    """Nodes and weights of a model; every method returns the name of its output."""

    def __init__(self, seed=0, opset=17):
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes, self.weights, self.inputs, self.outputs = [], {}, [], []
        self.domains = {}

    def below(self, limit):
        return int(self.rng.integers(limit))

    def one_of(self, things):
        return things[self.below(len(things))]

    def name(self, stem="v"):
        return f"{stem}{len(self.nodes)}_{len(self.weights)}"

    def feed(self, name, shape, kind=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, array):
        name = self.name("k")
        self.weights[name] = np.asarray(array)
        return name

    def integers(self, *numbers):
        return self.constant(np.array(numbers, np.int64))

    def number(self, value):
        return self.constant(np.array(value, np.float32))

    def weight(self, *shape):
        scale = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        return self.constant((self.rng.normal(size=shape) * scale).astype(np.float32))

    def vector(self, *shape):
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def add(self, kind, *inputs, outputs=1, domain="", **attributes):
        made = [f"{self.name()}_{n}" if outputs > 1 else self.name() for n in range(outputs)]
        node = helper.make_node(kind, list(inputs), made, made[0], domain=domain, **attributes)
        self.nodes.append(node)
        if domain:
            self.domains[domain] = 1
        return made if outputs > 1 else made[0]

    def reshape(self, value, *shape):
        return self.add("Reshape", value, self.integers(*shape))

    def mean(self, value, *axes, kind="ReduceMean", keepdims=1):
        if self.opset >= 18 or kind == "ReduceSum":
            return self.add(kind, value, self.integers(*axes), keepdims=keepdims)
        return self.add(kind, value, axes=list(axes), keepdims=keepdims)

    def slice(self, value, start, end, axis, step=1):
        bounds = [self.integers(n) for n in (start, end, axis, step)]
        return self.add("Slice", value, *bounds)

    def split(self, value, sizes, axis):
        form = self.below(3 if self.opset >= 18 else 2)
        if form == 2 and len(set(sizes)) == 1:
            n = len(sizes)
            return self.add("Split", value, outputs=n, axis=axis, num_outputs=n)
        if form == 1 and len(set(sizes)) == 1 and self.opset < 18:
            return self.add("Split", value, outputs=len(sizes), axis=axis)
        return self.add("Split", value, self.integers(*sizes), outputs=len(sizes), axis=axis)

    def dimension(self, value, axis):
        """Return a size that the graph computes, of shape [1]."""
        return self.add("Gather", self.add("Shape", value), self.integers(axis), axis=0)

    def output(self, value, rank):
        kind = helper.make_tensor_value_info(value, TensorProto.FLOAT, [None] * rank)
        self.outputs.append(kind)

    def proto(self):
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        weights = [numpy_helper.from_array(a, n) for n, a in self.weights.items()]
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, self.outputs, weights)
        version = 10 if self.opset >= 21 else 8
        return helper.make_model(graph, opset_imports=opsets, ir_version=version)
