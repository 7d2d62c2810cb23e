"""ONNX models that a function returns, which need no conversion."""

from __future__ import annotations

from onnx import ModelProto

from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.registry import Arrays, Conversion
from edgekit.errors import UserError, first_line
from edgekit.onnx_graph.io import make_session, read_signature


def convert(model_object: ModelObject) -> Conversion:
    """Return the model itself, together with its onnxruntime session as the reference.

    Raises:
        UserError: onnxruntime refuses the model.
    """
    proto = model_object.value
    if not isinstance(proto, ModelProto):
        raise UserError(f"{model_object.display_name}: not an onnx.ModelProto")
    names = [spec.name for spec in read_signature(proto).inputs]
    try:
        copied = ModelProto()
        copied.CopyFrom(proto)
        session = make_session(copied)
    except Exception as error:
        raise UserError(
            f"{model_object.display_name}: onnxruntime refuses it: {first_line(error)}"
        ) from error

    def reference(inputs: Arrays) -> Arrays:
        outputs: Arrays = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return Conversion(proto=proto, tool="onnx", reference=reference)
