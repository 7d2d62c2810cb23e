"""Editing of a TFLite graph with an up-to-date index of producers and readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.tflite.ir import Array, LiteGraph, Op, Shape, Tensor, constant


class GraphRewriter:
    """Operators of one graph, to be edited during iteration.

    An operator is removed at once when nothing reads its outputs any more; ``close`` writes the
    operators back to the graph.
    """

    def __init__(self, graph: LiteGraph) -> None:
        self.graph = graph
        self._outputs = {id(t) for t in graph.outputs.values()}
        self._producers: dict[int, Op] = {}
        self._readers: dict[int, list[Op]] = {}
        self._removed: set[int] = set()
        self._before: dict[int, list[Op]] = {}
        self._after: dict[int, list[Op]] = {}
        for op in graph.ops:
            self._register(op)

    def ops(self, *op_types: str) -> Iterator[Op]:
        """Yield the operators of the original graph in order, except those removed meanwhile."""
        for op in list(self.graph.ops):
            if id(op) not in self._removed and (not op_types or op.op_type in op_types):
                yield op

    def producer(self, tensor: Tensor | None, *op_types: str) -> Op | None:
        """Return the operator that computes a tensor, if it is of one of the types."""
        op = None if tensor is None else self._producers.get(id(tensor))
        return op if op is not None and (not op_types or op.op_type in op_types) else None

    def readers(self, tensor: Tensor) -> list[Op]:
        """Return the operators that read a tensor."""
        return list(dict.fromkeys(self._readers.get(id(tensor), [])))

    def is_output(self, tensor: Tensor) -> bool:
        """Return whether a tensor is an output of the graph."""
        return id(tensor) in self._outputs

    def only_reader(self, tensor: Tensor) -> Op | None:
        """Return the operator that is the only reader of a tensor; ``None`` for graph outputs."""
        readers = self._readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def change_op(
        self,
        op: Op,
        op_type: str,
        inputs: Sequence[Tensor | None],
        options: dict[str, Any] | None = None,
    ) -> None:
        """Change the type, inputs and options of an operator, and keep its outputs."""
        op.op_type = op_type
        op.options = {} if options is None else options
        self.set_inputs(op, inputs)

    def set_inputs(self, op: Op, inputs: Sequence[Tensor | None]) -> None:
        """Set the inputs of an operator, and remove operators that nothing reads any more."""
        before = [t for t in op.inputs if t is not None]
        for tensor in before:
            self._readers[id(tensor)].remove(op)
        op.inputs = list(inputs)
        for tensor in (t for t in op.inputs if t is not None):
            self._readers.setdefault(id(tensor), []).append(op)
        for tensor in before:
            self._release(tensor)

    def absorb(self, op: Op, reader: Op) -> None:
        """Merge an operator with the only reader of its output and take over that one's outputs."""
        self._producers.pop(id(op.outputs[0]))
        other_inputs = [t for t in reader.inputs if t is not None and t is not op.outputs[0]]
        op.outputs = list(reader.outputs)
        self._unregister(reader)
        self._producers[id(op.outputs[0])] = op
        for tensor in other_inputs:
            self._release(tensor)

    def take_output(self, op: Op, position: int, reader: Op) -> None:
        """Merge one output of an operator with its only reader, whose output it takes over."""
        self._producers.pop(id(op.outputs[position]))
        op.outputs[position] = reader.outputs[0]
        self._unregister(reader)
        self._producers[id(op.outputs[position])] = op

    def append_dequantize(self, op: Op, position: int, integers: Tensor) -> None:
        """Make an output integer, and add a DEQUANTIZE that computes the former float output."""
        old = op.outputs[position]
        op.outputs[position] = integers
        self._producers[id(integers)] = op
        self.append(op, "DEQUANTIZE", [integers], old)

    def swap(self, old: Tensor, new: Tensor) -> None:
        """Replace a tensor by another in all its readers and in the graph outputs."""
        for reader in self.readers(old):
            self.set_inputs(reader, [new if t is old else t for t in reader.inputs])
        if self.is_output(old):
            self.graph.outputs = {
                name: new if t is old else t for name, t in self.graph.outputs.items()
            }
            self._outputs = {id(t) for t in self.graph.outputs.values()}
        self._release(old)

    def insert(
        self,
        before: Op,
        op_type: str,
        inputs: Sequence[Tensor | None],
        output: Tensor,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Insert a new operator before another and return its output."""
        op = Op(
            op_type=op_type,
            inputs=list(inputs),
            outputs=[output],
            options=options or {},
            origin=before.origin,
        )
        self._before.setdefault(id(before), []).append(op)
        self._register(op)
        return output

    def append(
        self,
        after: Op,
        op_type: str,
        inputs: Sequence[Tensor | None],
        output: Tensor,
    ) -> Op:
        """Insert a new operator after another and return it."""
        op = Op(op_type=op_type, inputs=list(inputs), outputs=[output], origin=after.origin)
        self._after.setdefault(id(after), []).append(op)
        self._register(op)
        return op

    def close(self) -> None:
        """Write the operators back to the graph in topological order."""
        ops = [op for old in self.graph.ops for op in self._iter_around(old)]
        visited: set[int] = set()
        ordered: list[Op] = []
        for op in ops:
            self._append_sorted(op, visited, ordered)
        self.graph.ops = ordered

    def _append_sorted(self, op: Op, visited: set[int], ordered: list[Op]) -> None:
        if id(op) in visited or id(op) in self._removed:
            return
        visited.add(id(op))
        for tensor in op.inputs:
            producer = self.producer(tensor)
            if producer is not None:
                self._append_sorted(producer, visited, ordered)
        ordered.append(op)

    def _iter_around(self, op: Op) -> Iterator[Op]:
        for neighbor in self._before.get(id(op), []):
            yield from self._iter_around(neighbor)
        yield op
        for neighbor in self._after.get(id(op), []):
            yield from self._iter_around(neighbor)

    def _register(self, op: Op) -> None:
        self._producers.update({id(t): op for t in op.outputs})
        for tensor in (t for t in op.inputs if t is not None):
            self._readers.setdefault(id(tensor), []).append(op)

    def _unregister(self, op: Op) -> None:
        self._removed.add(id(op))
        for tensor in (t for t in op.inputs if t is not None):
            self._readers[id(tensor)].remove(op)

    def _release(self, tensor: Tensor) -> None:
        """Remove the operator of a tensor if nothing reads its outputs, and so on upstream."""
        waiting = [tensor]
        while waiting:
            op = self._producers.get(id(waiting.pop()))
            if op is None or id(op) in self._removed:
                continue
            if not any(self._readers.get(id(t)) or self.is_output(t) for t in op.outputs):
                self._unregister(op)
                waiting += [t for t in op.inputs if t is not None]


def read_number(tensor: Tensor | None) -> float | None:
    """Return the value of a float constant with one entry; ``None`` for other tensors."""
    if tensor is None or tensor.data is None or tensor.data.size != 1:
        return None
    return float(tensor.data.item()) if tensor.data.dtype == np.float32 else None


def read_float_constant(tensor: Tensor | None) -> Array | None:
    """Return the value of a float32 constant; ``None`` for other tensors."""
    if tensor is None or tensor.data is None or tensor.dtype != "float32":
        return None
    return tensor.data


def split_operands(op: Op) -> tuple[Tensor, Tensor] | None:
    """Return the computed and the constant operand of a binary operator, in either order."""
    left, right = op.inputs[0], op.inputs[1]
    if left is None or right is None or left.is_constant == right.is_constant:
        return None
    return (right, left) if left.is_constant else (left, right)


def int32(numbers: Sequence[int]) -> Tensor:
    """Build a constant of 32-bit integers."""
    return constant("integers", np.asarray(numbers, np.int32))


def build_like(tensor: Tensor, shape: Shape | None = None) -> Tensor:
    """Build a computed tensor with the name, type and quantization of another one."""
    return Tensor(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape if shape is None else shape,
        quantization=tensor.quantization,
    )


def sweep(graph: LiteGraph, rewrite: Callable[[GraphRewriter, Op], None], *op_types: str) -> None:
    """Apply a rewrite to every operator of the given types, in a graph and its subgraphs."""
    for one in (graph, *graph.inner):
        rewriter = GraphRewriter(one)
        for op in rewriter.ops(*op_types):
            rewrite(rewriter, op)
        rewriter.close()
