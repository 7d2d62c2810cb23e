"""Shape inference with fixed input sizes, and the constant folding that it allows."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.inliner
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
    helper,
)

from edgekit.conversion.onnx_to_tflite.partial_evaluation import PartialEvaluator
from edgekit.conversion.onnx_to_tflite.qlinear_to_qdq import replace_integer_layers
from edgekit.errors import PassRefused
from edgekit.model import name_dimension
from edgekit.onnx_graph.io import get_opset
from edgekit.onnx_graph.operators import is_standard

# Nesting depth of ONNX's function definitions of operators.
_MAX_FUNCTION_DEPTH = 4


def fix_shapes(
    proto: ModelProto, dims: Mapping[str, int], *, batch: int = 1, fold_weights: bool = True
) -> ModelProto:
    """Return a copy with fixed shapes stored for all values, and with constants folded.

    Local functions are inlined, and so are branches and iterations of If, Loop and Scan that are
    known before a run. Shapes stated in the file are not trusted.

    Args:
        proto: Model with external data loaded; not changed.
        dims: Sizes of free dimensions by name; they apply to first axes too.
        batch: Size of a first axis that ``dims`` does not name; other axes get 1.
        fold_weights: Also fold values computed from weights alone; without it each weight stays the
            initializer that it is.

    Raises:
        PassRefused: An input or output is a sequence, an input has no shape, or the number of
            iterations of a loop depends on the data.
    """
    for value in proto.graph.output:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise PassRefused(
                f"output {value.name} is a sequence, a map or optional",
                hint="export the model with tensors as outputs",
            )
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    proto = replace_integer_layers(proto)
    fixed = _evaluate_graph(proto, _fix_input_types(proto, dims, batch), fold_weights=fold_weights)
    for _ in range(_MAX_FUNCTION_DEPTH):
        composite_ops = _find_composite_ops(fixed)
        if not composite_ops:
            break
        fixed = _evaluate_graph(
            _inline_definitions(fixed, composite_ops),
            _fix_input_types(fixed, {}, 1),
            fold_weights=fold_weights,
        )
    return fixed


def _fix_input_types(
    proto: ModelProto, dims: Mapping[str, int], batch: int
) -> dict[str, TypeProto]:
    """Return the types of the model inputs with fixed sizes, initializers excepted."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    input_types: dict[str, TypeProto] = {}
    for value in proto.graph.input:
        if value.name in stored:
            continue
        if not value.type.HasField("tensor_type"):
            raise PassRefused(
                f"input {value.name} is a sequence, a map or optional",
                hint="export the model with tensors as inputs",
            )
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            raise PassRefused(
                f"input {value.name} is text", hint="encode the text before the model"
            )
        if not value.type.tensor_type.HasField("shape"):
            raise PassRefused(
                f"input {value.name} has no shape",
                hint="export the model with a shape for this input",
            )
        sizes = [
            dim.dim_value
            if dim.HasField("dim_value")
            else dims.get(
                name_dimension(value.name, axis, dim.dim_param), batch if axis == 0 else 1
            )
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        ]
        input_types[value.name] = helper.make_tensor_type_proto(
            value.type.tensor_type.elem_type, sizes
        )
    return input_types


def _evaluate_graph(
    proto: ModelProto, input_types: Mapping[str, TypeProto], *, fold_weights: bool
) -> ModelProto:
    evaluator = PartialEvaluator(proto, input_types, fold_weights=fold_weights)
    evaluator.run()
    evaluated = evaluator.build_model()
    for value in evaluated.graph.output:
        if any(d.HasField("dim_value") and not d.dim_value for d in _list_dims(value)):
            raise PassRefused(f"output {value.name} has no entries", hint="remove it before export")
    return evaluated


def _list_dims(value: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _find_composite_ops(proto: ModelProto) -> list[str]:
    """Find operators without a rule that ONNX defines as functions of other operators."""
    from edgekit.conversion.onnx_to_tflite.ops import RULES

    opset, composite = max(get_opset(proto), 1), []
    for op_type in {n.op_type for n in proto.graph.node if is_standard(n)} - RULES.keys():
        schema = onnx.defs.get_schema(op_type, opset) if onnx.defs.has(op_type, opset) else None
        if schema and (schema.has_function or schema.has_context_dependent_function):
            composite.append(op_type)
    return composite


def _inline_definitions(proto: ModelProto, op_types: list[str]) -> ModelProto:
    """Inline the functions by which ONNX defines the given operators.

    onnx needs the type of every value that they read, absent inputs included, and every attribute
    spelled out, because it does not apply the attributes' defaults.
    """
    typed = ModelProto()
    typed.CopyFrom(proto)
    for tensor in typed.graph.initializer:
        tensor_type = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        typed.graph.value_info.add(name=tensor.name, type=tensor_type)
    typed.graph.value_info.add(name="", type=helper.make_tensor_type_proto(1, []))
    for node in typed.graph.node:
        if node.op_type in op_types:
            _give_defaults(node, max(get_opset(proto), 1))
    try:
        return onnx.inliner.inline_selected_functions(
            typed, [("", op_type) for op_type in op_types], inline_schema_functions=True
        )
    except RuntimeError:
        return proto  # the conversion reports the operators without a rule


def _give_defaults(node: NodeProto, opset: int) -> None:
    stated = {a.name for a in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in stated and attribute.default_value.type:
            node.attribute.add().CopyFrom(attribute.default_value)
