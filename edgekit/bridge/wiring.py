"""A TFLite graph under rewriting: who makes and who reads each tensor, kept true by every edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgekit.bridge.graph import Array, LiteGraph, Op, Shape, Tensor, constant


class Wiring:
    """The operators of one graph, to be edited while they are walked.

    Operators that nothing reads any more leave at once; ``close`` writes the rest back.
    """

    def __init__(self, graph: LiteGraph) -> None:
        self.graph = graph
        self._outputs = {id(t) for t in graph.outputs.values()}
        self._makers: dict[int, Op] = {}
        self._readers: dict[int, list[Op]] = {}
        self._gone: set[int] = set()
        self._before: dict[int, list[Op]] = {}
        self._after: dict[int, list[Op]] = {}
        for op in graph.ops:
            self._enter(op)

    def ops(self, *kinds: str) -> Iterator[Op]:
        """The operators there were at first, in order, without those that left meanwhile."""
        for op in list(self.graph.ops):
            if id(op) not in self._gone and (not kinds or op.kind in kinds):
                yield op

    def maker(self, tensor: Tensor | None, *kinds: str) -> Op | None:
        """What makes a tensor, if that is of one of the kinds."""
        op = None if tensor is None else self._makers.get(id(tensor))
        return op if op is not None and (not kinds or op.kind in kinds) else None

    def readers(self, tensor: Tensor) -> list[Op]:
        """The operators that read a tensor."""
        return list(dict.fromkeys(self._readers.get(id(tensor), [])))

    def is_output(self, tensor: Tensor) -> bool:
        """Whether the graph yields a tensor."""
        return id(tensor) in self._outputs

    def only_reader(self, tensor: Tensor) -> Op | None:
        """The one operator that reads a tensor, if nothing else does."""
        readers = self._readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def become(
        self,
        op: Op,
        kind: str,
        inputs: Sequence[Tensor | None],
        options: dict[str, Any] | None = None,
    ) -> None:
        """Let an operator make its outputs in another way."""
        op.kind = kind
        op.options = {} if options is None else options
        self.read_instead(op, inputs)

    def read_instead(self, op: Op, inputs: Sequence[Tensor | None]) -> None:
        """Give an operator other inputs; what nothing reads then leaves."""
        before = [t for t in op.inputs if t is not None]
        for tensor in before:
            self._readers[id(tensor)].remove(op)
        op.inputs = list(inputs)
        for tensor in (t for t in op.inputs if t is not None):
            self._readers.setdefault(id(tensor), []).append(op)
        for tensor in before:
            self._release(tensor)

    def absorb(self, op: Op, later: Op) -> None:
        """Let an operator make the output of the only reader of its own; that one leaves."""
        self._makers.pop(id(op.outputs[0]))
        rest = [t for t in later.inputs if t is not None and t is not op.outputs[0]]
        op.outputs = list(later.outputs)
        self._leave(later)
        self._makers[id(op.outputs[0])] = op
        for tensor in rest:
            self._release(tensor)

    def take_output(self, op: Op, place: int, later: Op) -> None:
        """Let an operator make at a place what the only reader of that output made of it."""
        self._makers.pop(id(op.outputs[place]))
        op.outputs[place] = later.outputs[0]
        self._leave(later)
        self._makers[id(op.outputs[place])] = op

    def dequantise_later(self, op: Op, place: int, integers: Tensor) -> None:
        """Let an operator make integers at a place, and a DEQUANTIZE the floats it made."""
        old = op.outputs[place]
        op.outputs[place] = integers
        self._makers[id(integers)] = op
        self.append(op, "DEQUANTIZE", [integers], old)

    def swap(self, old: Tensor, new: Tensor) -> None:
        """Let every reader of a tensor, graph outputs included, read another."""
        for reader in self.readers(old):
            self.read_instead(reader, [new if t is old else t for t in reader.inputs])
        if self.is_output(old):
            self.graph.outputs = {
                name: new if t is old else t for name, t in self.graph.outputs.items()
            }
            self._outputs = {id(t) for t in self.graph.outputs.values()}
        self._release(old)

    def insert(
        self,
        before: Op,
        kind: str,
        inputs: Sequence[Tensor | None],
        output: Tensor,
        options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Put a new operator in front of another; returns what it makes."""
        made = Op(
            kind=kind,
            inputs=list(inputs),
            outputs=[output],
            options=options or {},
            origin=before.origin,
        )
        self._before.setdefault(id(before), []).append(made)
        self._enter(made)
        return output

    def append(
        self,
        after: Op,
        kind: str,
        inputs: Sequence[Tensor | None],
        output: Tensor,
    ) -> Op:
        """Put a new operator behind another; returns it."""
        made = Op(kind=kind, inputs=list(inputs), outputs=[output], origin=after.origin)
        self._after.setdefault(id(after), []).append(made)
        self._enter(made)
        return made

    def close(self) -> None:
        """Write the operators back to the graph, in an order in which they can run."""
        ops = [op for old in self.graph.ops for op in self._around(old)]
        done: set[int] = set()
        ordered: list[Op] = []
        for op in ops:
            self._place(op, done, ordered)
        self.graph.ops = ordered

    def _place(self, op: Op, done: set[int], ordered: list[Op]) -> None:
        if id(op) in done or id(op) in self._gone:
            return
        done.add(id(op))
        for tensor in op.inputs:
            maker = self.maker(tensor)
            if maker is not None:
                self._place(maker, done, ordered)
        ordered.append(op)

    def _around(self, op: Op) -> Iterator[Op]:
        for each in self._before.get(id(op), []):
            yield from self._around(each)
        yield op
        for each in self._after.get(id(op), []):
            yield from self._around(each)

    def _enter(self, op: Op) -> None:
        self._makers.update({id(t): op for t in op.outputs})
        for tensor in (t for t in op.inputs if t is not None):
            self._readers.setdefault(id(tensor), []).append(op)

    def _leave(self, op: Op) -> None:
        self._gone.add(id(op))
        for tensor in (t for t in op.inputs if t is not None):
            self._readers[id(tensor)].remove(op)

    def _release(self, tensor: Tensor) -> None:
        """Let the maker of a tensor leave if nothing reads what it makes, and so on upwards."""
        waiting = [tensor]
        while waiting:
            op = self._makers.get(id(waiting.pop()))
            if op is None or id(op) in self._gone:
                continue
            if not any(self._readers.get(id(t)) or self.is_output(t) for t in op.outputs):
                self._leave(op)
                waiting += [t for t in op.inputs if t is not None]


def number(tensor: Tensor | None) -> float | None:
    """The value of a float constant of one entry."""
    if tensor is None or tensor.data is None or tensor.data.size != 1:
        return None
    return float(tensor.data.item()) if tensor.data.dtype == np.float32 else None


def float_constant(tensor: Tensor | None) -> Array | None:
    """The value of a constant that is stored as floats."""
    if tensor is None or tensor.data is None or tensor.dtype != "float32":
        return None
    return tensor.data


def with_constant(op: Op) -> tuple[Tensor, Tensor] | None:
    """The computed and the stored operand of an operator on two, whichever comes first."""
    left, right = op.inputs[0], op.inputs[1]
    if left is None or right is None or left.is_constant == right.is_constant:
        return None
    return (right, left) if left.is_constant else (left, right)


def int32(numbers: Sequence[int]) -> Tensor:
    """A constant of 32-bit integers."""
    return constant("integers", np.asarray(numbers, np.int32))


def like(tensor: Tensor, shape: Shape | None = None) -> Tensor:
    """A computed tensor of another one's name, type and scale."""
    return Tensor(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape if shape is None else shape,
        quantization=tensor.quantization,
    )


def sweep(graph: LiteGraph, rewrite: Callable[[Wiring, Op], None], *kinds: str) -> None:
    """Offer every operator of the kinds, of a graph and of those inside it, to a rewriting."""
    for one in (graph, *graph.inner):
        wiring = Wiring(one)
        for op in wiring.ops(*kinds):
            rewrite(wiring, op)
        wiring.close()
