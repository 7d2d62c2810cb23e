"""An ONNX graph with an index: who makes and who reads each value."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.graphs.onnx_file import all_graphs, inner_graphs


class GraphIndex:
    """The main graph of a model, to be edited in place.

    Values that an inner graph (If, Loop, Scan) reads count as having a reader, so that nothing
    under it is cut away. ``folder`` holds the weights where they are offloaded.
    """

    def __init__(self, proto: ModelProto, folder: Path | None = None) -> None:
        self.proto = proto
        self.folder = folder
        self.graph: GraphProto = proto.graph
        self.initializers: dict[str, TensorProto] = {t.name: t for t in self.graph.initializer}
        self.producer: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self.inner_reads: set[str] = set()
        for node in self.graph.node:
            for name in node.output:
                self.producer[name] = node
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers[name].append(node)
            for inner in inner_graphs(node):
                self.inner_reads |= _reads(inner) | {v.name for v in inner.output}
        self.outputs = {v.name for v in self.graph.output}
        self._names = _all_names(self.graph)

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value of an initialiser, or ``None`` where ``name`` is computed or fed."""
        tensor = self.initializers.get(name)
        return None if tensor is None else self._array(tensor)

    def _array(self, tensor: TensorProto) -> NDArray[np.generic]:
        array: NDArray[np.generic] = numpy_helper.to_array(tensor, str(self.folder or ""))
        return array

    def float_constant(self, name: str) -> NDArray[np.float32]:
        """The value of an initialiser as float32.

        Raises:
            KeyError: nothing is stored under that name.
        """
        return self._array(self.initializers[name]).astype(np.float32, copy=False)

    def is_finite(self, name: str) -> bool:
        """Whether a stored tensor holds neither NaN nor infinity."""
        return bool(np.isfinite(self.float_constant(name)).all())

    def only_reader(self, name: str) -> NodeProto | None:
        """The one node that reads a value, if nothing else does, graph outputs included."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs or name in self.inner_reads:
            return None
        return readers[0]

    def fresh(self, stem: str) -> str:
        """A name that nothing in the model has."""
        name, n = stem, 1
        while name in self._names:
            n += 1
            name = f"{stem}_{n}"
        self._names.add(name)
        return name

    def add_constant(self, stem: str, value: NDArray[np.generic]) -> str:
        """Store an array as an initialiser; returns its name."""
        name = self.fresh(stem)
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.graph.initializer.append(tensor)
        self.initializers[name] = tensor
        return name

    def drop_unread_constants(self) -> None:
        """Remove the initialisers that nothing reads any more."""
        read = _reads(self.graph) | self.outputs
        kept = [t for t in self.graph.initializer if t.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        inputs = [v for v in self.graph.input if v.name in read or v.name not in self.initializers]
        del self.graph.input[:]
        self.graph.input.extend(inputs)


def attribute(node: NodeProto, name: str, default: object) -> object:
    """An attribute of a node as a Python value, or the default where it is absent."""
    for each in node.attribute:
        if each.name == name:
            return helper.get_attribute_value(each)
    return default


def _reads(graph: GraphProto) -> set[str]:
    return {name for g in all_graphs(graph) for node in g.node for name in node.input} | {
        v.name for g in all_graphs(graph) if g is not graph for v in g.output
    }


def _all_names(graph: GraphProto) -> set[str]:
    names: set[str] = set()
    for g in all_graphs(graph):
        names.update(t.name for t in g.initializer)
        names.update(v.name for v in g.input)
        for node in g.node:
            names.update(node.output)
            names.add(node.name)
    return names
