"""Index of an ONNX graph: the producer and the readers of each value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.onnx_graph.io import iter_graphs, iter_inner_graphs


class GraphIndex:
    """Index of one graph of a model, by default the main one, for edits in place.

    Values that an inner graph (If, Loop, Scan) reads count as read, so that their producers are
    kept. Constants are those of the main graph, whichever graph is indexed.

    Args:
        proto: the model.
        folder: holds the weights if they are offloaded.
        inner: a graph inside one of its nodes.
        outer: the index of the graph around that node.
    """

    def __init__(
        self,
        proto: ModelProto,
        folder: Path | None = None,
        *,
        inner: GraphProto | None = None,
        outer: GraphIndex | None = None,
    ) -> None:
        self.proto = proto
        self.folder = folder
        self.graph: GraphProto = proto.graph if inner is None else inner
        self.main: GraphIndex = self if outer is None else outer.main
        self.producer: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self.inner_reads: set[str] = set()
        for node in self.graph.node:
            for name in node.output:
                self.producer[name] = node
            for name in dict.fromkeys(node.input):
                if name:
                    self.readers[name].append(node)
            for subgraph in iter_inner_graphs(node):
                self.inner_reads |= _collect_reads(subgraph) | {v.name for v in subgraph.output}
        self.outputs = {v.name for v in self.graph.output}
        self.initializers: dict[str, TensorProto] = self._find_constants(outer)
        self._names: set[str] = _collect_names(proto.graph) if outer is None else outer.main._names

    def _find_constants(self, outer: GraphIndex | None) -> dict[str, TensorProto]:
        """Return the constants that this graph can read under their own name."""
        if outer is None:
            return {t.name: t for t in self.graph.initializer}
        hidden = {v.name for v in self.graph.input} | {t.name for t in self.graph.initializer}
        hidden |= self.producer.keys()
        return {k: v for k, v in outer.initializers.items() if k not in hidden}

    def inner(self) -> Iterator[GraphIndex]:
        """Yield an index of each graph inside the nodes of this one, recursively."""
        for node in self.graph.node:
            for graph in iter_inner_graphs(node):
                index = GraphIndex(self.proto, self.folder, inner=graph, outer=self)
                yield index
                yield from index.inner()

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return the value of an initializer; ``None`` if ``name`` is computed or fed."""
        tensor = self.initializers.get(name)
        return None if tensor is None else self._to_array(tensor)

    def _to_array(self, tensor: TensorProto) -> NDArray[np.generic]:
        array: NDArray[np.generic] = numpy_helper.to_array(tensor, str(self.folder or ""))
        return array

    def float_constant(self, name: str) -> NDArray[np.float32]:
        """Return the value of an initializer as float32.

        Raises:
            KeyError: no initializer has that name.
        """
        return self._to_array(self.initializers[name]).astype(np.float32, copy=False)

    def is_finite(self, name: str) -> bool:
        """Return whether a stored tensor holds neither NaN nor infinity."""
        return bool(np.isfinite(self.float_constant(name)).all())

    def only_reader(self, name: str) -> NodeProto | None:
        """Return the only node that reads a value; ``None`` if anything else uses it."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs or name in self.inner_reads:
            return None
        return readers[0]

    def replace_nodes(self, nodes: Sequence[NodeProto]) -> None:
        """Replace all nodes of the graph by the given ones."""
        new_nodes = list(nodes)
        del self.graph.node[:]
        self.graph.node.extend(new_nodes)

    def fresh(self, stem: str) -> str:
        """Return a new unique name and reserve it.

        Args:
            stem: the name itself if it is free; otherwise a number is appended.
        """
        name, n = stem, 1
        while name in self._names:
            n += 1
            name = f"{stem}_{n}"
        self._names.add(name)
        return name

    def add_constant(self, stem: str, value: NDArray[np.generic]) -> str:
        """Store an array as an initializer of the main graph and return its name.

        Args:
            stem: the name if it is free; otherwise a number is appended.
            value: the array.
        """
        name = self.fresh(stem)
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.proto.graph.initializer.append(tensor)
        self.initializers[name] = self.main.initializers[name] = tensor
        return name

    def add_int4(self, stem: str, value: NDArray[np.int8]) -> str:
        """Store integers from -8 to 7 as an INT4 initializer, two per byte, and return its name."""
        flat = value.ravel()
        nibbles = np.pad(flat, (0, flat.size % 2)).astype(np.uint8) & 0x0F
        name = self.fresh(stem)
        tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=value.shape)
        tensor.raw_data = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        self.graph.initializer.append(tensor)
        self.initializers[name] = tensor
        return name

    def drop_last_constant(self) -> None:
        """Remove the initializer that was added last."""
        del self.initializers[self.graph.initializer[-1].name]
        del self.graph.initializer[-1]

    def drop_unread_constants(self) -> None:
        """Remove the initializers of the main graph that nothing reads, and inputs of that name."""
        graph, stored = self.proto.graph, self.main.initializers
        read_names = _collect_reads(graph) | self.main.outputs
        for position in reversed(range(len(graph.initializer))):  # in place: copies can be large
            if graph.initializer[position].name not in read_names:
                del graph.initializer[position]
        inputs = [v for v in graph.input if v.name in read_names or v.name not in stored]
        del graph.input[:]
        graph.input.extend(inputs)


def read_attribute(node: NodeProto, name: str, default: object) -> object:
    """Return an attribute of a node as a Python value.

    Args:
        node: the node.
        name: of the attribute.
        default: the result if the attribute is absent.
    """
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def rename_reads(proto: ModelProto, renamed: Mapping[str, str]) -> None:
    """Rename the values that nodes and outputs of inner graphs read, in place.

    Args:
        proto: the model.
        renamed: new names by old name.
    """
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)
        if graph is not proto.graph:
            for value in graph.output:
                value.name = renamed.get(value.name, value.name)


def _collect_reads(graph: GraphProto) -> set[str]:
    return {name for g in iter_graphs(graph) for node in g.node for name in node.input} | {
        v.name for g in iter_graphs(graph) if g is not graph for v in g.output
    }


def _collect_names(graph: GraphProto) -> set[str]:
    names: set[str] = set()
    for g in iter_graphs(graph):
        names.update(t.name for t in g.initializer)
        names.update(v.name for v in g.input)
        for node in g.node:
            names.update(node.output)
            names.add(node.name)
    return names
