"""Fix every shape of a graph and compute what then is constant."""

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

from edgekit.bridge.spelling import with_reals
from edgekit.bridge.walking import Walk
from edgekit.errors import PassRefused
from edgekit.model import name_dimension

_STANDARD = ("", "ai.onnx")
# How deep ONNX's own definitions of operators by others go.
_MOST_DEPTH = 4


def settled(
    proto: ModelProto, dims: Mapping[str, int], *, batch: int = 1, fold_weights: bool = True
) -> ModelProto:
    """A copy with fixed shapes, all of them stored, and constants where shapes were computed.

    Functions are written out, and so are the branches and rounds of If, Loop and Scan that are
    known beforehand. Shapes that the file states are not believed.

    Args:
        proto: the model, external data loaded; not changed.
        dims: sizes of free dimensions by name; those of first axes count as the batch.
        batch: size of a first axis that has none.
        fold_weights: also compute what depends on weights alone; without it each weight stays
            the initialiser that it is.

    Raises:
        PassRefused: an input or output is a sequence, or an input has no shape; a loop ends when
            the data says so.
    """
    for value in proto.graph.output:
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise PassRefused(
                f"output {value.name} is a sequence, a map or optional",
                hint="export the model with tensors as outputs",
            )
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    proto = with_reals(proto)
    made = _walked(proto, _fed(proto, dims, batch), fold_weights=fold_weights)
    for _ in range(_MOST_DEPTH):
        unruled = _unruled(made)
        if not unruled:
            break
        made = _walked(_written_out(made, unruled), _fed(made, {}, 1), fold_weights=fold_weights)
    return made


def _fed(proto: ModelProto, dims: Mapping[str, int], batch: int) -> dict[str, TypeProto]:
    """The types of what is fed, sizes fixed; stored inputs apart."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, TypeProto] = {}
    for value in proto.graph.input:
        if value.name in stored:
            continue
        if not value.type.HasField("tensor_type"):
            raise PassRefused(
                f"input {value.name} is a sequence, a map or optional",
                hint="export the model with tensors as inputs",
            )
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            raise PassRefused(f"input {value.name} is text", hint="encode it before the model")
        if not value.type.tensor_type.HasField("shape"):
            raise PassRefused(f"input {value.name} has no shape", hint="export the model with one")
        sizes = [
            dim.dim_value
            if dim.HasField("dim_value")
            else dims.get(
                name_dimension(value.name, axis, dim.dim_param), batch if axis == 0 else 1
            )
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        ]
        found[value.name] = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, sizes)
    return found


def _walked(proto: ModelProto, fed: Mapping[str, TypeProto], *, fold_weights: bool) -> ModelProto:
    walk = Walk(proto, fed, fold_weights=fold_weights)
    walk.run()
    made = walk.finished()
    for value in made.graph.output:
        if any(d.HasField("dim_value") and not d.dim_value for d in _dims(value)):
            raise PassRefused(
                f"output {value.name} has no entries", hint="take it out before export"
            )
    return made


def _dims(value: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _unruled(proto: ModelProto) -> list[str]:
    """Operators without a rule of their own that ONNX defines by others."""
    from edgekit.bridge.rules import RULES

    opset, found = _opset(proto), []
    for kind in {n.op_type for n in proto.graph.node if n.domain in _STANDARD} - RULES.keys():
        schema = onnx.defs.get_schema(kind, opset) if onnx.defs.has(kind, opset) else None
        if schema and (schema.has_function or schema.has_context_dependent_function):
            found.append(kind)
    return found


def _opset(proto: ModelProto) -> int:
    return max((int(o.version) for o in proto.opset_import if o.domain in _STANDARD), default=1)


def _written_out(proto: ModelProto, kinds: list[str]) -> ModelProto:
    """The model with operators as the functions that ONNX defines them by.

    onnx wants to know the type of all that they read, absent inputs too, and takes no attribute's
    default for granted.
    """
    asked = ModelProto()
    asked.CopyFrom(proto)
    for tensor in asked.graph.initializer:
        kind = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        asked.graph.value_info.add(name=tensor.name, type=kind)
    asked.graph.value_info.add(name="", type=helper.make_tensor_type_proto(1, []))
    for node in asked.graph.node:
        if node.op_type in kinds:
            _give_defaults(node, _opset(proto))
    try:
        return onnx.inliner.inline_selected_functions(
            asked, [("", kind) for kind in kinds], inline_schema_functions=True
        )
    except RuntimeError:
        return proto  # lowering names what has no rule


def _give_defaults(node: NodeProto, opset: int) -> None:
    given = {a.name for a in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and attribute.default_value.type:
            node.attribute.add().CopyFrom(attribute.default_value)
