"""Read a .tflite file: signature only, through the runtime itself."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import UserError, first_line, missing_extra
from edgekit.model import Model, Signature, TensorSpec
from edgekit_agent.failures import AgentError
from edgekit_agent.files import sha256_of
from edgekit_agent.runtimes import Tensor, import_runtime

_REFUSED = "fetch or export it again, without operators that LiteRT lacks"


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
        with _without_chatter():
            loaded = import_runtime("litert")(str(path), 1)
    except AgentError as error:
        raise UserError(_refusal(path, error), hint=_REFUSED) from error
    except Exception as error:
        raise UserError(f"{path}: LiteRT refuses the file: {first_line(error)}") from error
    signature = Signature(inputs=_specs(loaded.inputs), outputs=_specs(loaded.outputs))
    return Model(path=path, format="tflite", digest=sha256_of(str(path)), signature=signature)


def _refusal(path: Path, error: AgentError) -> str:
    """One line, with the path once."""
    said = first_line(error).replace(f" cannot load {path}: ", ": ")
    return f"{path}: LiteRT refuses the file: {said}"


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep off the terminal what LiteRT says of itself, once in a process and at its first load.

    It has no setting for that. Whatever else is written to stderr is passed on.
    """
    if sys.__stderr__ is None:  # closed, and its number may be another file's
        yield
        return
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in tensors)
