"""Fix every shape of a graph and compute what then is constant."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.bridge.graph import Array
from edgekit.bridge.spelling import spelled_out
from edgekit.graphs.onnx_file import inner_graphs

# Kept as they are: the integers under a DequantizeLinear are the weights of an int8 model.
_KEPT = {"DequantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform", "Bernoulli"}
# Smaller float constants take part in sizes (the scales of a Resize) rather than in layers.
_LEAST_WEIGHTS = 16


def settled(
    proto: ModelProto, dims: Mapping[str, int], *, batch: int = 1, fold_weights: bool = True
) -> ModelProto:
    """A copy with fixed shapes, all of them stored, and constants where shapes were computed.

    Args:
        proto: the model, external data loaded; not changed.
        dims: sizes of free dimensions by name; those of first axes count as the batch.
        batch: size of a first axis that has none.
        fold_weights: also compute what depends on weights alone; without it each weight stays
            the initialiser that it is.
    """
    from edgekit.bridge.rules import RULES

    fixed = spelled_out(proto, RULES)
    _fix_inputs(fixed, dims, batch)
    _drop_shapes(fixed)
    _constants_stored(fixed)
    while _folded_once(fixed, fold_weights=fold_weights):
        _drop_shapes(fixed)
    return fixed


def _fix_inputs(proto: ModelProto, dims: Mapping[str, int], batch: int) -> None:
    for value in proto.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                size = dims.get(dim.dim_param, batch if axis == 0 else 1)
                dim.dim_value = size


def _drop_shapes(proto: ModelProto) -> None:
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def _constants_stored(proto: ModelProto) -> None:
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        if node.op_type == "Constant" and (array := _constant_of(node)) is not None:
            proto.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    _replace_nodes(proto, kept)


def _constant_of(node: NodeProto) -> Array | None:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        array: Array = numpy_helper.to_array(value)
        return array
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    return None


def _folded_once(proto: ModelProto, *, fold_weights: bool) -> bool:
    """Infer shapes, and compute what is constant by them; whether anything was."""
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        proto.CopyFrom(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    shapes = _fixed_shapes(proto)
    constants = {t.name: t for t in proto.graph.initializer}
    kept: list[NodeProto] = []
    before = len(constants)
    for node in proto.graph.node:
        made = _value_of(proto, node, constants, shapes, fold_weights=fold_weights)
        if made is None:
            kept.append(node)
            continue
        for name, array in zip(node.output, made, strict=True):
            tensor = numpy_helper.from_array(np.asarray(array), name)
            constants[name] = tensor
            proto.graph.initializer.append(tensor)
    _replace_nodes(proto, kept)
    return len(constants) > before


def _value_of(
    proto: ModelProto,
    node: NodeProto,
    constants: Mapping[str, TensorProto],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    fold_weights: bool,
) -> list[Array] | None:
    """What a node computes, where that is known before any run."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        bounds = {a.name: a.i for a in node.attribute}
        sizes = shapes[node.input[0]][slice(bounds.get("start", 0), bounds.get("end"))]
        return [np.asarray(sizes, np.int64)]
    if node.op_type == "Size" and node.input[0] in shapes:
        return [np.asarray(np.prod(shapes[node.input[0]], dtype=np.int64))]
    if node.op_type in _KEPT or any(inner_graphs(node)):
        return None
    read = [name for name in node.input if name]
    if any(name not in constants for name in read) or not all(node.output):
        return None
    if not fold_weights and any(_is_weight(constants[name]) for name in read):
        return None
    return _computed(proto, node, {name: constants[name] for name in read})


def _is_weight(tensor: TensorProto) -> bool:
    is_float = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return is_float and int(np.prod(tensor.dims)) >= _LEAST_WEIGHTS


def _computed(
    proto: ModelProto, node: NodeProto, read: Mapping[str, TensorProto]
) -> list[Array] | None:
    graph = helper.make_graph(
        [node],
        "one",
        [],
        [ValueInfoProto(name=name) for name in node.output],
        initializer=list(read.values()),
    )
    one = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    try:
        made: list[Array] = ReferenceEvaluator(one).run(None, {})
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None  # it stays in the graph, and its rule says what is the matter
    return made if all(isinstance(array, np.ndarray | np.generic) for array in made) else None


def _fixed_shapes(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    found = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = tuple(d.dim_value for d in dims)
    return found


def _replace_nodes(proto: ModelProto, kept: list[NodeProto]) -> None:
    if len(kept) != len(proto.graph.node):
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
