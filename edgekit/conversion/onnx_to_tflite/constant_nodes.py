"""Evaluation of ONNX nodes whose inputs are constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.tflite.ir import Array, Shape

# Operators that read only the shape of their input.
SHAPE_ONLY = ("EyeLike", "Shape", "Size")


def compute_from_shape(node: NodeProto, shape: Shape, elem_type: int) -> Array:
    """Compute the output of an operator of ``SHAPE_ONLY`` from the shape of its input.

    Args:
        node: EyeLike, Shape or Size.
        shape: Shape of its input.
        elem_type: ONNX element type of its input.
    """
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Size":
        return np.asarray(np.prod(shape, dtype=np.int64))
    if node.op_type == "Shape":
        return np.asarray(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)
    dtype = helper.tensor_dtype_to_np_dtype(attributes.get("dtype", elem_type))
    return np.eye(shape[0], shape[1], attributes.get("k", 0), dtype=dtype)


def read_constant(node: NodeProto) -> Array | None:
    """Return the value of a Constant node; ``None`` for text and sparse tensors."""
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


def evaluate_node(
    proto: ModelProto, node: NodeProto, constants: Mapping[str, TensorProto]
) -> list[Array] | None:
    """Compute the outputs of a node; ``None`` if ONNX's reference evaluator cannot run it.

    Args:
        proto: Model of the node; its opset and IR version apply.
        node: Node without subgraphs.
        constants: Constants that the node reads, by name.
    """
    names = [name or f"{node.output[0]}__{position}" for position, name in enumerate(node.output)]
    output_names = [name for name, original in zip(names, node.output, strict=True) if original]
    graph = helper.make_graph(
        [node],
        "one",
        [],
        [ValueInfoProto(name=name) for name in output_names],
        initializer=list(constants.values()),
    )
    one = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    try:
        outputs = ReferenceEvaluator(one).run(None, {})
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
        return None  # the node stays in the graph, and its conversion rule reports the error
    if not all(isinstance(array, np.ndarray | np.generic) for array in outputs):
        return None
    results = iter(outputs)
    return [np.asarray(next(results)) if name else np.zeros(0) for name in node.output]
