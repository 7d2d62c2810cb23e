"""Rewrite of TFLite variables as states: an input before each run and an output after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_quantization
from edgekit.errors import PassRefused
from edgekit.tflite.evaluate import evaluate_op
from edgekit.tflite.ir import Array, LiteGraph, Op, Tensor, constant
from edgekit.tflite.quantization_math import dequantize_constant

_HINT = "export the model with its state as inputs and outputs"


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable as a recurrent state: the names of its input and output, and its initial value."""

    input: str
    output: str
    initial: Array


def replace_variables(graph: LiteGraph) -> tuple[LiteGraph, tuple[Variable, ...]]:
    """Return a graph without variables, and the states that replace them.

    Each variable is read from an input of its name, and the value assigned last becomes an output.
    A variable that is never assigned becomes a constant.

    Args:
        graph: Not changed; returned as it is where it has no variables.

    Raises:
        PassRefused: A variable is used in a branch or loop, or its initial value is not known.
    """
    handles = {op.outputs[0].name for op in graph.ops if op.op_type == "VAR_HANDLE"}
    if not handles:
        return graph, ()
    variables = _Variables(graph=graph)
    return variables.rewrite(), tuple(variables.states())


@dataclass(kw_only=True)
class _Variables:
    graph: LiteGraph
    names: dict[int, str] = field(default_factory=dict)
    initial: dict[str, Array] = field(default_factory=dict)
    read: dict[str, Tensor] = field(default_factory=dict)
    value: dict[str, Tensor] = field(default_factory=dict)
    replaced: dict[int, Tensor] = field(default_factory=dict)

    def rewrite(self) -> LiteGraph:
        """Build the graph without variables."""
        ops: list[Op] = []
        for op in self.graph.ops:
            if not self._replace_op(op):
                ops.append(op)
        self._check_handles(ops)
        self._keep_constants()
        inputs = self.graph.inputs | {name: self.read[name] for name in self._list_changed()}
        outputs = dict(self.graph.outputs)
        outputs |= {self._name_output(name): self.value[name] for name in self._list_changed()}
        rewritten = LiteGraph(
            ops=_copy_ops(ops), inputs=inputs, outputs=outputs, inner=self.graph.inner
        )
        rewritten.substitute(self.replaced)
        return rewritten

    def states(self) -> Iterator[Variable]:
        """Yield the variables whose values last from run to run."""
        for name in self._list_changed():
            initial, quantization = self._find_initial_value(name), self.read[name].quantization
            if quantization is not None and get_quantization(self.read[name]) is not None:
                stored = constant(name, initial, quantization=quantization)
                initial = dequantize_constant(stored).astype(np.float32)
            yield Variable(input=name, output=self._name_output(name), initial=initial)

    def _replace_op(self, op: Op) -> bool:
        """Record an operator on variables; return whether it is one and leaves the graph."""
        if op.op_type == "CALL_ONCE":
            self.initial |= _read_initial_values(self.graph, op)
            return True
        if op.op_type == "VAR_HANDLE":
            self.names[id(op.outputs[0])] = self._name_variable(op)
            return True
        if op.op_type == "READ_VARIABLE":
            name = self._find_name(op)
            if name not in self.value:
                self.read[name] = self.value[name] = op.outputs[0]
            elif self.value[name] is not op.outputs[0]:
                self.replaced[id(op.outputs[0])] = self.value[name]
            return True
        if op.op_type == "ASSIGN_VARIABLE":
            assigned = op.inputs[1]
            if assigned is None:
                raise PassRefused(f"{op.op_type} has no value to assign", hint=_HINT)
            self.value[self._find_name(op)] = assigned
            return True
        return False

    def _find_name(self, op: Op) -> str:
        handle = op.inputs[0]
        if handle is None or id(handle) not in self.names:
            raise PassRefused(
                f"{op.op_type} of a variable whose handle passes through other operators",
                hint=_HINT,
            )
        return self.names[id(handle)]

    def _name_variable(self, op: Op) -> str:
        """Return the name of the variable behind a handle; handles of one variable share it."""
        shared = _read_shared_name(op)
        reserved_names = {*self.graph.inputs, *self.graph.outputs}
        return f"{shared}_state" if shared in reserved_names else shared

    def _name_output(self, name: str) -> str:
        return f"{name}_next"

    def _list_changed(self) -> list[str]:
        """List the variables that are read and then assigned another value."""
        return [name for name, tensor in self.read.items() if self.value[name] is not tensor]

    def _find_initial_value(self, name: str) -> Array:
        tensor = self.read[name]
        array = self.initial.get(name.removesuffix("_state"), self.initial.get(name))
        if array is not None:
            return array.reshape(tensor.shape) if -1 not in tensor.shape else array
        if -1 in tensor.shape:
            raise PassRefused(
                f"variable {name} has a size that is only known at run time", hint=_HINT
            )
        return np.zeros(tensor.shape, tensor.dtype)

    def _keep_constants(self) -> None:
        for name, tensor in self.read.items():
            if self.value[name] is tensor:
                first = self._find_initial_value(name)
                self.replaced[id(tensor)] = constant(name, first, quantization=tensor.quantization)

    def _check_handles(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if any(id(t) in self.names for t in op.inputs if t is not None):
                raise PassRefused(f"{op.op_type} passes a variable into a subgraph", hint=_HINT)


def _read_shared_name(op: Op) -> str:
    name = op.options.get("shared_name") or op.outputs[0].name
    return str(name)


def _read_initial_values(graph: LiteGraph, call: Op) -> dict[str, Array]:
    """Read the initial values of variables from the initialization subgraph (CALL_ONCE).

    Raises:
        PassRefused: A value is only known at run time.
    """
    once = graph.inner[int(call.options["init_subgraph_index"]) - 1]
    computed: dict[int, Array] = {}
    names: dict[int, str] = {}
    initial_values: dict[str, Array] = {}
    for op in once.ops:
        if op.op_type == "VAR_HANDLE":
            names[id(op.outputs[0])] = _read_shared_name(op)
            continue
        values = [None if t is None else computed.get(id(t), t.data) for t in op.inputs]
        if op.op_type == "ASSIGN_VARIABLE":
            handle, value = op.inputs[0], values[1]
            if handle is None or id(handle) not in names or value is None:
                raise PassRefused(
                    "the initial value of a variable is computed at run time", hint=_HINT
                )
            initial_values[names[id(handle)]] = value
            continue
        result = (
            evaluate_op(op, [v for v in values if v is not None]) if None not in values else None
        )
        if result is not None:
            computed[id(op.outputs[0])] = result
    return initial_values


def _copy_ops(ops: Iterable[Op]) -> list[Op]:
    """Copy operators, so that edits of their inputs leave the original graph unchanged."""
    return [
        Op(
            op_type=o.op_type,
            inputs=list(o.inputs),
            outputs=o.outputs,
            options=o.options,
            origin=o.origin,
        )
        for o in ops
    ]
