"""Graphs under construction as exporters write them: typed inputs, free axes, branches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.builders.random.draft import _OPSET, Draft, Impossible, _info, _run

_LARGEST = 1e4
_MOST = 20000
_SAMPLES = 10


@dataclass(frozen=True)
class Given:
    """An input of the graph: ``axes`` names possible free axes, ``limit`` bounds integers."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...] = ()
    limit: int = 2


@dataclass(frozen=True)
class Exported:
    """A model with samples: one array for each input, samples first."""

    kind: str
    seed: int
    proto: onnx.ModelProto
    samples: dict = field(default_factory=dict)


class ExportDraft(Draft):
    """A graph under construction for one sample; open axes are freed at the end."""

    def __init__(self, seed):
        super().__init__(seed)
        self.names = "v{}"
        self.given: dict[str, Given] = {}

    def take(self, *shape, axes=(), limit=0, dtype=None):
        """Add an input of floats, or of integers below ``limit``."""
        name = f"in{len(self.given)}"
        kind = np.dtype(dtype or (np.int64 if limit else np.float32))
        self.given[name] = Given(name, shape, kind, tuple(axes), limit or 2)
        self.arrays[name] = self._one(self.given[name], shape)
        self.inputs.append(name)
        return name

    def _one(self, given, shape):
        if given.dtype == np.bool_:
            return self.rng.random(shape) < 0.5
        if given.dtype.kind in "iu":
            return self.rng.integers(0, given.limit, shape).astype(given.dtype)
        return self.rng.normal(size=shape).astype(given.dtype)

    def weight(self, *shape, fan_in, tie=0.0):
        """Add a weight of a trained layer's scale, or sometimes reuse one."""
        if self.chance(tie):
            same = [n for n, a in self.weights.items() if a.shape == shape and a.ndim > 1]
            if same:
                return self.one_of(same)
        return self.constant(self.noise(*shape, scale=fan_in**-0.5))

    def scalar(self, value):
        return self.constant(np.float32(value))

    def width(self, name, axis=-1):
        return self.shape(name)[axis]

    def add(self, kind, *inputs, count=1, captures=(), **attributes):
        """Add an operator; ``captures`` are outer values that its branches read."""
        made = [f"{self.name()}.{n}" if count > 1 else self.name() for n in range(count)]
        node = helper.make_node(kind, list(inputs), made, name=f"n{len(self.nodes)}", **attributes)
        read = [n for n in (*inputs, *captures) if n]
        known = {n: self.arrays[n] for n in read if n in self.arrays}
        weights = {n: self.weights[n] for n in read if n in self.weights}
        for array in (found := _run(_one_node(node, known, weights), known)):
            if array.size == 0 or array.size > _MOST:
                raise Impossible
            if array.dtype == np.float32 and not np.abs(array).max() < _LARGEST:
                raise Impossible
        self.nodes.append(node)
        self.arrays.update(zip(made, found, strict=True))
        return made if count > 1 else made[0]

    def branch(self, write, name):
        """Build a subgraph by ``write(draft)``; return it and the outer names that it reads."""
        inner = ExportDraft(0)
        inner.rng, inner.arrays, inner.weights = self.rng, dict(self.arrays), dict(self.weights)
        inner.names = f"{name}.{{}}"
        outputs = write(inner)
        own = {n: a for n, a in inner.weights.items() if n not in self.weights}
        read = {n for node in inner.nodes for n in node.input}
        made = {n for node in inner.nodes for n in node.output}
        graph = helper.make_graph(
            inner.nodes,
            name,
            [],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in own.items()],
        )
        outer = sorted((read | set(outputs)) - made - set(own) - {""})
        return graph, outer

    def exported(self, kind, seed, outputs):
        """Return the model with its axes freed where possible, and samples."""
        known = {n: self.arrays[n] for n in self.inputs}
        shown = {n: self.arrays[n] for n in dict.fromkeys(outputs)}
        proto = _whole(self.nodes, known, shown, self.weights)
        if self.chance(0.6):
            proto = self._freed(proto) or proto
        if self.chance(0.3):
            _store_in_nodes(proto, self.rng)
        rows = {n: self._one(g, (_SAMPLES, *g.shape[1:])) for n, g in self.given.items()}
        return Exported(kind, seed, proto, rows)

    def _freed(self, proto):
        """Return the model with free axes; ``None`` if it fails at other sizes."""
        freed, sizes = onnx.ModelProto(), {"batch": 3, "length": 1 + self.below(9)}
        freed.CopyFrom(proto)
        for value in freed.graph.input:
            axes = self.given[value.name].axes
            for dim, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
                if axis:
                    dim.dim_param = axis
        for value in freed.graph.output:
            for dim in value.type.tensor_type.shape.dim:
                dim.dim_param = f"free{self.below(10**6)}"
        feeds = {}
        for name, given in self.given.items():
            named = [*given.axes, *[""] * len(given.shape)]
            shape = [sizes.get(a, s) for a, s in zip(named, given.shape, strict=False)]
            feeds[name] = self._one(given, tuple(shape))
        try:
            made = _run(freed, feeds)
            one = _run(freed, {n: self._cut(n, a) for n, a in feeds.items()})
        except Impossible:
            return None
        return freed if _by_sample(made, one) else None

    def _cut(self, name, array):
        axes = self.given[name].axes
        return array.take([0], axis=axes.index("batch")) if "batch" in axes else array


def _by_sample(three, one):
    """Whether a sample's outputs are the same alone as in a batch, the batch in front."""
    for many, single in zip(three, one, strict=True):
        if many.shape[:1] != (3,) or single.shape[:1] != (1,) or many.shape[1:] != single.shape[1:]:
            return False
        if not np.allclose(many[:1], single, rtol=1e-3, atol=1e-4):
            return False
    return True


def _one_node(node, known, weights):
    graph = helper.make_graph(
        [node],
        "one",
        [_info(n, a) for n, a in known.items()],
        [helper.make_empty_tensor_value_info(n) for n in node.output],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _whole(nodes, inputs, outputs, weights):
    read = {n for node in nodes for n in _read_by(node)} | set(outputs)
    graph = helper.make_graph(
        nodes,
        "exported",
        [_info(n, a) for n, a in inputs.items()],
        [_info(n, a) for n, a in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in weights.items() if n in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _read_by(node):
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from (v.name for v in attribute.g.output)
            for inner in attribute.g.node:
                yield from _read_by(inner)


def _store_in_nodes(proto, rng):
    """Move some of the weights into Constant nodes, as some exporters do with all."""
    graph, share = proto.graph, rng.choice([0.3, 1.0])
    moved = [w for w in graph.initializer if rng.random() < share]
    kept = [w for w in graph.initializer if all(w.name != m.name for m in moved)]
    nodes = [helper.make_node("Constant", [], [w.name], value=w) for w in moved]
    nodes += list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
