"""Partial evaluation of an ONNX graph: shape inference and constant folding node by node."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite.constant_nodes import (
    SHAPE_ONLY,
    compute_from_shape,
    evaluate_node,
    read_constant,
)
from edgekit.conversion.onnx_to_tflite.control_flow_unrolling import (
    LoopUnroller,
    inline_branch,
    prepare_unrolling,
)
from edgekit.conversion.onnx_to_tflite.integer_weights import IntegerWeightRewriter
from edgekit.conversion.onnx_to_tflite.sequences import SequenceRewriter
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.onnx_graph.operators import STANDARD_DOMAINS, is_standard
from edgekit.onnx_graph.shape_inference import get_fixed_shape
from edgekit.tflite.ir import Array, Shape

# Never folded: random operators, and QDQ, whose integers are the weights of an int8 model.
_NEVER_FOLDED = {
    "Bernoulli", "DequantizeLinear", "DynamicQuantizeLinear", "Multinomial", "QuantizeLinear",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip
# Smaller float constants are parameters of shapes (the scales of a Resize), not weights.
_MIN_WEIGHT_ENTRIES = 16
# Shape inference makes no use of larger constants.
_MAX_SHAPE_CONSTANT_ENTRIES = 1024
# From this opset on a last window that would start in the padding is left out, and in
# onnxruntime in every opset.
_POOLING_OPS = {"MaxPool", "AveragePool", "LpPool"}
_FIXED_POOLING_OPSET = 22


class PartialEvaluator:
    """An ONNX graph that is rewritten node by node, with the types and constants known so far.

    Args:
        proto: Model with functions inlined; not changed.
        input_types: Types of the model inputs, with fixed sizes.
        fold_weights: As for ``fix_shapes``.
    """

    def __init__(
        self, proto: ModelProto, input_types: Mapping[str, TypeProto], *, fold_weights: bool
    ) -> None:
        self.proto = proto
        self.input_types = input_types
        self.constants: dict[str, TensorProto] = {t.name: t for t in proto.graph.initializer}
        self.types: dict[str, TypeProto] = {**input_types, **_read_stated_types(proto)}
        self.types |= {name: _get_type(t) for name, t in self.constants.items()}
        self.weights: set[str] = set()
        if not fold_weights:
            self.weights = {n for n, t in self.constants.items() if _is_weight(t)}
        self.fold_weights = fold_weights
        self.outputs = {value.name for value in proto.graph.output}
        self.alias: dict[str, str] = {}
        self.sequences = SequenceRewriter()
        self.integer_weights = IntegerWeightRewriter()
        self.kept_nodes: list[NodeProto] = []
        self.queue: deque[NodeProto | LoopUnroller] = deque(proto.graph.node)
        self._opsets = {o.domain: o.version for o in proto.opset_import}
        self._fresh = 0

    def run(self) -> None:
        """Process every node, and the nodes that replace it."""
        while self.queue:
            item = self.queue.popleft()
            if isinstance(item, LoopUnroller):
                self.queue.extendleft(reversed(item.build_next(self)))
            else:
                self._process_node(item)

    def fresh(self, stem: str) -> str:
        """Return an unused name."""
        self._fresh += 1
        return f"{stem}~{self._fresh}"

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a value; ``None`` where a size is unknown."""
        value_type = self.types.get(self.alias.get(name, name))
        return None if value_type is None else get_fixed_shape(value_type)

    def value(self, name: str) -> Array | None:
        """Return the value of a constant; ``None`` for a value computed at run time."""
        tensor = self.constants.get(self.alias.get(name, name))
        return None if tensor is None else numpy_helper.to_array(tensor)

    @property
    def opset(self) -> int:
        """Return the opset version of the standard operators."""
        return max(int(self._opsets.get(domain, 1)) for domain in STANDARD_DOMAINS)

    def add(self, tensor: TensorProto) -> None:
        """Add an initializer of a subgraph under its new, unused name."""
        self.constants[tensor.name] = tensor
        self.types[tensor.name] = _get_type(tensor)
        if not self.fold_weights and _is_weight(tensor):
            self.weights.add(tensor.name)

    def store(self, name: str, array: Array) -> None:
        """Record a value as a constant."""
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        self.constants[name] = tensor
        self.types[name] = _get_type(tensor)

    def build_model(self) -> ModelProto:
        """Build the model from the kept nodes, with the types of all values stored."""
        model = ModelProto(ir_version=self.proto.ir_version)
        model.opset_import.extend(self.proto.opset_import)
        graph = model.graph
        graph.name = self.proto.graph.name
        graph.node.extend(_drop_unread(self.kept_nodes, self.outputs))
        read_names = {name for node in graph.node for name in _collect_reads(node)} | self.outputs
        graph.initializer.extend(t for name, t in self.constants.items() if name in read_names)
        for name, value_type in self.input_types.items():
            graph.input.add(name=name, type=value_type)
        for value in self.proto.graph.output:
            graph.output.add(name=value.name, type=self.types.get(value.name, value.type))
        inner_names = {name for node in graph.node for name in node.output} - self.outputs
        for name in inner_names & self.types.keys():
            graph.value_info.add(name=name, type=self.types[name])
        return model

    # ------------------------------------------------------------ one node

    def _process_node(self, original: NodeProto) -> None:
        node = NodeProto()
        node.CopyFrom(original)
        for position, name in enumerate(node.input):
            node.input[position] = self.alias.get(name, name)
        if is_standard(node) and (self._replace_node(node) or self._unroll_node(node)):
            return
        self._infer(node)
        arrays = self._evaluate_node(node)
        if arrays is None:
            self.kept_nodes.append(node)
            return
        for name, array in zip(node.output, arrays, strict=True):
            if name:
                self.store(name, array)

    def _replace_node(self, node: NodeProto) -> bool:
        """Replace a node by a constant, an alias or other nodes; return whether it could be."""
        if node.op_type == "Constant":
            array = read_constant(node)
            if array is None:
                return False
            self.store(node.output[0], array)
            if not self.fold_weights and _is_weight(self.constants[node.output[0]]):
                self.weights.add(node.output[0])
            return True
        if node.op_type == "Identity" and node.output[0] not in self.outputs:
            self.sequences.add_alias(node.input[0], node.output[0])
            self.alias[node.output[0]] = node.input[0]
            return True
        replacement = self.sequences.replace_node(self, node)
        if replacement is None and self.fold_weights:
            replacement = self.integer_weights.replace_node(self, node)
        if replacement is None:
            return False
        self.queue.extendleft(reversed(replacement))
        return True

    def _unroll_node(self, node: NodeProto) -> bool:
        if node.op_type == "If" and (condition := self.value(node.input[0])) is not None:
            self.queue.extendleft(
                reversed(inline_branch(self, node, condition=bool(condition.any())))
            )
            return True
        if (
            node.op_type in ("Loop", "Scan")
            and (unroller := prepare_unrolling(self, node)) is not None
        ):
            self.queue.appendleft(unroller)
            return True
        return False

    def _infer(self, node: NodeProto) -> None:
        standard = is_standard(node)
        version = self.opset if standard else self._opsets.get(node.domain, 1)
        domain = "" if standard else node.domain
        if standard and node.op_type in _POOLING_OPS:
            version = max(version, _FIXED_POOLING_OPSET)
        if not onnx.defs.has(node.op_type, version, domain):
            return
        schema = onnx.defs.get_schema(node.op_type, version, domain)
        read_names = [name for name in _collect_reads(node) if name]
        if any(name not in self.types for name in node.input if name):
            return
        small_constants = {
            n: t
            for n in read_names
            if (t := self.constants.get(n)) and _count_entries(t) <= _MAX_SHAPE_CONSTANT_ENTRIES
        }
        for name in node.output:
            self.types.pop(name, None)
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {n: self.types[n] for n in read_names if n in self.types},
                small_constants,
                opset_imports=list(self.proto.opset_import),
                ir_version=self.proto.ir_version,
            )
        except (
            onnx.shape_inference.InferenceError,
            onnx.checker.ValidationError,  # GroupNormalization of opset 18, withdrawn since
            ValueError,
            RuntimeError,
        ):
            return  # the outputs get no shape, and a rule that needs one reports it
        self.types |= inferred

    def _evaluate_node(self, node: NodeProto) -> list[Array] | None:
        """Compute the outputs of a node; ``None`` where they depend on the inputs of a run."""
        if node.op_type in _NEVER_FOLDED or any(iter_inner_graphs(node)):
            return None
        empty = self._build_empty(node)
        if empty is not None:
            return empty
        if node.op_type in SHAPE_ONLY and (sizes := self.shape(node.input[0])) is not None:
            element_type = self.types[node.input[0]].tensor_type.elem_type
            return [compute_from_shape(node, sizes, element_type)]
        read_names = [name for name in node.input if name]
        if any(name not in self.constants or name in self.weights for name in read_names):
            return None
        return evaluate_node(self.proto, node, {name: self.constants[name] for name in read_names})

    def _build_empty(self, node: NodeProto) -> list[Array] | None:
        """Return outputs that are empty by their shape; ``None`` unless all outputs are."""
        outputs: list[Array] = []
        for name in node.output:
            value_type = self.types.get(name)
            sizes = None if value_type is None else get_fixed_shape(value_type)
            if value_type is None or sizes is None or 0 not in sizes:
                return None
            dtype = helper.tensor_dtype_to_np_dtype(value_type.tensor_type.elem_type)
            outputs.append(np.zeros(sizes, dtype))
        return outputs or None


def _read_stated_types(proto: ModelProto) -> dict[str, TypeProto]:
    """Read the types that the file states for the outputs of non-standard operators."""
    nonstandard = {
        name for node in proto.graph.node if not is_standard(node) for name in node.output
    }
    values = (*proto.graph.value_info, *proto.graph.output)
    return {
        v.name: v.type
        for v in values
        if v.name in nonstandard and get_fixed_shape(v.type) is not None
    }


def _collect_reads(node: NodeProto) -> set[str]:
    """Return the names that a node reads, those read in its subgraphs included."""
    names = set(node.input)
    for graph in iter_inner_graphs(node):
        for inner_node in graph.node:
            names |= _collect_reads(inner_node)
        names |= {value.name for value in graph.output}
    return names


def _drop_unread(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    needed_names = set(outputs)
    read_nodes: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed_names.isdisjoint(node.output):
            read_nodes.append(node)
            needed_names |= _collect_reads(node)
    return read_nodes[::-1]


def _is_weight(tensor: TensorProto) -> bool:
    is_float = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return is_float and _count_entries(tensor) >= _MIN_WEIGHT_ENTRIES


def _count_entries(tensor: TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64))


def _get_type(tensor: TensorProto) -> TypeProto:
    return helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
