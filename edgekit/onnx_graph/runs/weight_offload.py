"""Weights of a model in a file that the runtime maps, instead of in memory."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

# Smaller tensors stay in the graph, where shape inference needs them.
_MIN_BYTES = 1024
# Mapped data must begin on a page.
_PAGE = 4096
_FILE = "weights"


def copy_without_weights(proto: ModelProto) -> ModelProto:
    """Copy a model without its initializers."""
    lean = ModelProto(ir_version=proto.ir_version)
    lean.opset_import.extend(proto.opset_import)
    lean.functions.extend(proto.functions)
    lean.graph.name = proto.graph.name
    lean.graph.input.extend(proto.graph.input)
    lean.graph.output.extend(proto.graph.output)
    lean.graph.node.extend(proto.graph.node)
    return lean


def offload(proto: ModelProto, target: ModelProto, folder: Path) -> None:
    """Copy the initializers of a model to ``target``, the large ones as references to a file.

    A protobuf message keeps the memory of cleared fields, so the weights stay in memory until
    ``proto`` is freed.

    Args:
        proto: the model with its weights.
        target: the copy without initializers.
        folder: for the file of the weights.
    """
    with (folder / _FILE).open("wb") as file:
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) >= _MIN_BYTES:
                _move_to_file(tensor, target.graph.initializer.add(), file)
            else:
                target.graph.initializer.add().CopyFrom(tensor)


def restore_weights(proto: ModelProto, folder: Path) -> None:
    """Load the offloaded weights into a model again, and remove their file."""
    for tensor in proto.graph.initializer:
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    (folder / _FILE).unlink()


def _move_to_file(tensor: TensorProto, target: TensorProto, file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _PAGE))
    facts = {"location": _FILE, "offset": file.tell(), "length": len(tensor.raw_data)}
    file.write(tensor.raw_data)
    target.name, target.data_type = tensor.name, tensor.data_type
    target.dims.extend(tensor.dims)
    target.data_location = TensorProto.EXTERNAL
    for key, value in facts.items():
        target.external_data.add(key=key, value=str(value))
