"""Conversion of a TFLite graph to an ONNX graph, with one rule for each operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import GraphProto, NodeProto, helper

from edgekit.conversion.onnx_to_tflite.layout import Order, permutation, plain_order
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import (
    OnnxModelBuilder,
    declare_value,
    drop_implied_limits,
    get_activation_type,
    get_quantization,
    name_outputs,
    to_activation_type,
)
from edgekit.errors import PassRefused
from edgekit.tflite.ir import Array, LiteGraph, Op, Quantization, Shape, Tensor

# Lower and upper limit of each fused activation; None = no limit.
_LIMITS: dict[str, tuple[float | None, float | None]] = {
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class OnnxValue:
    """A TFLite tensor in the ONNX graph: value axis ``i`` is tensor axis ``order[i]``."""

    name: str
    order: Order


Rule: TypeAlias = "Callable[[OnnxGraphBuilder, Op], None]"


class OnnxGraphBuilder:
    """An ONNX graph under construction, with the helpers that rules use to extend it.

    A rule reads an operator's inputs in an order of axes with ``read`` (or ``plain``, ``weights``,
    ``bias``), adds nodes with ``node``, and sets the operator's outputs with ``bind``, which adds
    the fused activation and, for quantized outputs, the rounding to integers (QDQ).

    Args:
        graph: The TFLite graph.
        model_builder: The model to which constants and names are added.
        rules: The rule of each operator type.
        free: Keep the batch axis free.
    """

    def __init__(
        self,
        graph: LiteGraph,
        model_builder: OnnxModelBuilder,
        rules: Mapping[str, Rule],
        *,
        free: bool,
    ) -> None:
        self.graph = graph
        self.rules = rules
        self.model_builder = model_builder
        self.free = free
        self.inner = graph.inner
        self.built_nodes: list[NodeProto] = []
        self._values: dict[int, OnnxValue] = {}
        self._aliases: dict[int, Tensor] = {}
        # The entry holds the tensor as well, so that no new tensor can get the same id.
        self._cached_names: dict[tuple[int, Order, bool], tuple[Tensor, str]] = {}
        self._origin = ""

    # ------------------------------------------------------------ from graph to graph

    def build_child(self, graph: LiteGraph) -> OnnxGraphBuilder:
        """Create the conversion of a subgraph, which shares the constants of this graph."""
        child = OnnxGraphBuilder(graph, self.model_builder, self.rules, free=self.free)
        child.inner = self.inner
        return child

    def feed_inputs(self) -> None:
        """Bind the model inputs to the graph's input tensors; quantized ones are floats."""
        for name, tensor in self.graph.inputs.items():
            self._origin = name
            value = self.cast(name, "float32") if tensor.dtype == "float16" else name
            self.record_value(tensor, self._round_as_stored(value, tensor))

    def record_value(self, tensor: Tensor, name: str) -> None:
        """Record the ONNX value of a tensor, with axes in TFLite's order."""
        self._values[id(tensor)] = OnnxValue(name=name, order=plain_order(len(tensor.shape)))

    def run(self) -> None:
        """Convert all operators.

        Raises:
            PassRefused: As for ``convert_to_onnx``.
        """
        for op in self.graph.ops:
            self._origin = op.outputs[0].name if op.outputs else op.op_type
            rule = self.rules.get(op.op_type)
            if rule is None:
                raise self.refusal(op, "has no ONNX counterpart")
            rule(self, op)

    def build_graph(self) -> GraphProto:
        """Build the graph, with inputs and outputs named as in the signature."""
        names = [self._read_output(name, t) for name, t in self.graph.outputs.items()]
        name_outputs(self.built_nodes, dict(zip(self.graph.outputs, names, strict=True)))
        return helper.make_graph(
            self.built_nodes,
            "main",
            [declare_value(n, t, free=self.free) for n, t in self.graph.inputs.items()],
            [declare_value(n, t, free=self.free) for n, t in self.graph.outputs.items()],
            initializer=self.model_builder.initializers,
        )

    def _read_output(self, name: str, tensor: Tensor) -> str:
        self._origin = name
        value = self.read(tensor)
        return self.cast(value, "float16") if tensor.dtype == "float16" else value

    # ------------------------------------------------------------ reading an operator

    def has(self, op: Op, position: int) -> bool:
        """Return whether an operator has an input at a position."""
        return len(op.inputs) > position and op.inputs[position] is not None

    def tensor(self, op: Op, position: int) -> Tensor:
        """Return an input tensor.

        Raises:
            PassRefused: The operator has no such input.
        """
        tensor = op.inputs[position] if len(op.inputs) > position else None
        if tensor is None:
            raise self.refusal(op, f"has no input {position}")
        return self._aliases.get(id(tensor), tensor)

    def order(self, op: Op, position: int) -> Order:
        """Return the order of axes in which an input is held; constants are in TFLite's order."""
        tensor = self.tensor(op, position)
        value = self._values.get(id(tensor))
        return value.order if value else plain_order(len(tensor.shape))

    def read(self, tensor: Tensor, order: Order | None = None, *, weights: bool = False) -> str:
        """Return the ONNX value of a tensor; a quantized tensor is dequantized.

        Args:
            tensor: A tensor computed before, or a constant.
            order: Value axis ``i`` is tensor axis ``order[i]``; ``None`` for TFLite's order.
            weights: Keep a constant's integer type, instead of the type of activations.

        Raises:
            PassRefused: No operator computes the tensor: it is a state that lasts from run to run.
        """
        tensor = self._aliases.get(id(tensor), tensor)
        order = plain_order(len(tensor.shape)) if order is None else order
        key = (id(tensor), order, weights)
        if key not in self._cached_names:
            read_value = self._read_constant if tensor.is_constant else self._read_computed
            self._cached_names[key] = (tensor, read_value(tensor, order, weights))
        return self._cached_names[key][1]

    def plain(self, op: Op, position: int) -> str:
        """Return an input with its axes in TFLite's order."""
        return self.read(self.tensor(op, position))

    def weights(self, op: Op, position: int, order: Order | None = None) -> str:
        """Return weights with their axes in an order and their integers in the stored type."""
        return self.read(self.tensor(op, position), order, weights=True)

    def array(self, op: Op, position: int) -> Array | None:
        """Return the stored value of an input in TFLite's layout; ``None`` if it is computed."""
        return self.tensor(op, position).data

    def integers(self, op: Op, position: int) -> list[int]:
        """Return the value of an input that must be constant: axes, pads, sizes.

        Raises:
            PassRefused: The input is computed at run time.
        """
        array = self.array(op, position)
        if array is None:
            raise self.refusal(op, f"needs a constant as input {position}, but it is computed")
        return [int(n) for n in array.ravel()]

    def int64(self, op: Op, position: int) -> str:
        """Return an integer input, stored or computed, as int64."""
        array = self.array(op, position)
        if array is not None:
            return self.numbers(array.astype(np.int64))
        return self.cast(self.plain(op, position), "int64")

    def shape(self, tensor: Tensor) -> Shape:
        """Return a shape in TFLite's order; a free batch is 1, other unknown sizes are -1."""
        return tuple(1 if i == 0 and n < 0 else n for i, n in enumerate(tensor.shape))

    def require_shape(self, op: Op, position: int) -> Shape:
        """Return the shape of an input whose sizes must be fixed, the batch excepted.

        Raises:
            PassRefused: A size is not fixed.
        """
        shape = self.shape(self.tensor(op, position))
        if min(shape, default=0) < 0:
            raise self.refusal(
                op,
                "has sizes that are known only at run time",
                hint="export the model with fixed shapes",
            )
        return shape

    def refusal(self, op: Op, reason: str, *, hint: str = "") -> PassRefused:
        """Return the error for an operator that cannot be converted."""
        output = f" with output {op.outputs[0].name}" if op.outputs else ""
        hint = hint or "run this model with litert, or convert it from its original format"
        return PassRefused(f"{op.op_type}{output} {reason}", hint=hint)

    # ------------------------------------------------------------ adding to the graph

    def node(
        self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> str:
        """Add a node with one output and return its name; ``""`` is an absent optional input."""
        return self.nodes(op_type, inputs, 1, attributes)[0]

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[str],
        count: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [self.model_builder.unique(f"{self._origin}/{op_type}") for _ in range(count)]
        self.built_nodes.append(helper.make_node(op_type, inputs, names, **(attributes or {})))
        return names

    def numbers(self, array: Array) -> str:
        """Store a new constant and return its name; equal constants are stored once."""
        return self.model_builder.store(array)

    def ints(self, *numbers: int) -> str:
        """Store a vector of 64-bit integers, such as sizes and axes, and return its name."""
        return self.numbers(np.asarray(numbers, np.int64))

    def scalar(self, number: float) -> str:
        """Store a float scalar and return its name."""
        return self.numbers(np.asarray(number, np.float32))

    def cast(self, name: str, dtype: str) -> str:
        """Cast a value to another type, given by numpy's name."""
        return self.node("Cast", [name], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(dtype))})

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        """Transpose a value; the value itself is returned where no axis moves."""
        if list(perm) == sorted(perm):
            return name
        return self.node("Transpose", [name], {"perm": list(perm)})

    def reshape(self, name: str, shape: Sequence[int], *, quantized_like: Tensor) -> str:
        """Reshape a value and repeat a tensor's QDQ rounding, which integer kernels expect."""
        return self._round_as_stored(
            self.node("Reshape", [name, self.ints(*shape)]), quantized_like
        )

    def bind(self, op: Op, name: str, order: Order | None = None, *, output: int = 0) -> None:
        """Set an operator's output to a value with axes in an order; ``None`` is TFLite's."""
        tensor = op.outputs[output]
        order = plain_order(len(tensor.shape)) if order is None else order
        name = self._apply_activation(op, name, tensor) if output == 0 else name
        self._values[id(tensor)] = OnnxValue(name=self._round_as_stored(name, tensor), order=order)

    def bind_same(self, op: Op, tensor: Tensor) -> None:
        """Set an operator's output to an existing tensor."""
        self._aliases[id(op.outputs[0])] = self._aliases.get(id(tensor), tensor)

    # ------------------------------------------------------------ inside

    def _read_computed(self, tensor: Tensor, order: Order, _: bool) -> str:
        value = self._values.get(id(tensor))
        if value is None:
            raise PassRefused(
                f"{tensor.name}: a state that is kept between runs has no ONNX counterpart",
                hint="export the model with its state as inputs and outputs",
            )
        name = self.transpose(value.name, permutation(value.order, order))
        # Integer kernels expect the rounding directly before them; repeating it changes nothing.
        return name if name == value.name else self._round_as_stored(name, tensor)

    def _read_constant(self, tensor: Tensor, order: Order, weights: bool) -> str:
        data, q = np.asarray(tensor.data), get_quantization(tensor)
        if data.dtype.name == "float16":
            return self.numbers(data.astype(np.float32).transpose(order))
        if q is None:
            return self.numbers(data.transpose(order))
        if not weights and len(q.scales) == 1:
            data, q = to_activation_type(data, q)
        return self._dequantize(self.numbers(data.transpose(order)), q, data.dtype.name, order)

    def _dequantize(self, stored: str, q: Quantization, dtype: str, order: Order) -> str:
        """Dequantize stored integers."""
        zeros = q.zero_points.astype(dtype)
        if len(q.scales) == 1:
            inputs = [stored, self.scalar(q.scales[0]), self.numbers(zeros.reshape(()))]
            return self.node("DequantizeLinear", inputs)
        inputs = [stored, self.numbers(q.scales.astype(np.float32)), self.numbers(zeros)]
        return self.node("DequantizeLinear", inputs, {"axis": order.index(q.axis)})

    def bias(self, op: Op, position: int, scales: Sequence[Tensor]) -> str:
        """Return a bias as floats; ``""`` where there is none.

        Args:
            op: The operator.
            position: Position of the input.
            scales: Factors of the products; they give the scale of an integer bias for which the
                file has none.
        """
        if not self.has(op, position):
            return ""
        tensor = self.tensor(op, position)
        data = tensor.data
        if data is None or data.dtype.kind != "i":
            return self.read(tensor)
        q = tensor.quantization
        factors = [t.quantization.scales for t in scales if t.quantization is not None]
        scale = q.scales if q is not None else np.prod(np.broadcast_arrays(*factors), axis=0)
        if data.dtype.name == "int64":
            return self.numbers((data * scale.astype(np.float64)).astype(np.float32))
        inputs = [self.numbers(data), self.numbers(np.squeeze(scale).astype(np.float32))]
        return self.node("DequantizeLinear", inputs, {"axis": 0} if scale.size > 1 else None)

    def gather(self, op: Op, position: int, indices: str, axis: int) -> str:
        """Gather rows of an input; stored integers are dequantized after the Gather."""
        tensor, attributes = self.tensor(op, position), {"axis": axis}
        q = get_quantization(tensor)
        if tensor.data is None or q is None or len(q.scales) > 1:
            return self.node("Gather", [self.read(tensor), indices], attributes)
        data, q = to_activation_type(tensor.data, q)
        gathered = self.node("Gather", [self.numbers(data), indices], attributes)
        return self._dequantize(gathered, q, data.dtype.name, ())

    def _round_as_stored(self, name: str, tensor: Tensor) -> str:
        """Add the QDQ rounding of a quantized tensor to a value; otherwise return the value."""
        q = get_quantization(tensor)
        if q is None:
            return name
        dtype, shift = get_activation_type(tensor.dtype)
        zero = np.asarray(q.zero_points[0] + shift, dtype)
        parameters = [self.scalar(q.scales[0]), self.numbers(zero)]
        stored = self.node("QuantizeLinear", [name, *parameters])
        return self.node("DequantizeLinear", [stored, *parameters])

    def _apply_activation(self, op: Op, name: str, tensor: Tensor) -> str:
        activation = op.options.get("fused_activation_function", "NONE")
        if activation in ("NONE", "TANH"):
            return name if activation == "NONE" else self.node("Tanh", [name])
        if activation not in _LIMITS:
            raise self.refusal(op, f"has the fused activation {activation}, which is not supported")
        limits, q = _LIMITS[activation], get_quantization(tensor)
        if q is not None:
            limits = drop_implied_limits(tensor, q, limits)
            if limits != (None, None):
                name = self._round_as_stored(name, tensor)
        return self.clip(name, *limits)

    def clip(self, name: str, low: float | None, high: float | None) -> str:
        """Clip a value to limits; the value itself is returned where there are none."""
        if low is None and high is None:
            return name
        if low == 0.0 and high is None:
            return self.node("Relu", [name])
        limits = ["" if limit is None else self.scalar(limit) for limit in (low, high)]
        return self.node("Clip", [name, *limits])
