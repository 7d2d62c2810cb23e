"""Read a .tflite file: signature only, through the runtime itself."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import UserError, first_line, missing_extra
from edgekit.model import Model, Signature, TensorSpec
from edgekit_agent.files import sha256_of
from edgekit_agent.runtimes import Tensor, import_runtime


def read_tflite(path: Path) -> Model:
    """The model in a .tflite file.

    Raises:
        UserError: LiteRT is not installed, or refuses the file.
    """
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        raise missing_extra("ai-edge-litert", "litert") from error
    try:
        loaded = import_runtime("litert")(str(path), 1)
    except Exception as error:
        raise UserError(f"{path}: LiteRT refuses the file: {first_line(error)}") from error
    signature = Signature(inputs=_specs(loaded.inputs), outputs=_specs(loaded.outputs))
    return Model(path=path, format="tflite", digest=sha256_of(str(path)), signature=signature)


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in tensors)
