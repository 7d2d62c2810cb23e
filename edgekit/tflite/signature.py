"""Reading of a .tflite file's signature through LiteRT."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import UserError, first_line, make_missing_extra_error
from edgekit.model import Model, Signature, TensorSpec
from edgekit_agent.failures import AgentError
from edgekit_agent.files import sha256_of
from edgekit_agent.runtimes import Tensor, import_runtime

_LACKS = "download or export it again, without operators that LiteRT lacks"
_REFUSED = "download or export it again; inputs that are resized may need sizes in the file"
# Parts of LiteRT's messages on operators without a kernel.
_MISSING = ("unresolved custom op", "Didn't find op", "Select TensorFlow op", "Op builtin_code out")


def read_tflite(path: Path) -> Model:
    """Read a .tflite file and check that LiteRT accepts it.

    Raises:
        UserError: LiteRT is not installed, or refuses the file.
    """
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        raise make_missing_extra_error("ai-edge-litert", "litert") from error
    try:
        with _silence_litert():
            loaded = import_runtime("litert")(str(path), 1)
    except AgentError as error:
        lacks = any(words in str(error) for words in _MISSING)
        raise UserError(_format_refusal(path, error), hint=_LACKS if lacks else _REFUSED) from error
    except Exception as error:
        raise UserError(f"{path}: LiteRT rejects the file: {first_line(error)}") from error
    signature = Signature(inputs=_to_specs(loaded.inputs), outputs=_to_specs(loaded.outputs))
    return Model(path=path, format="tflite", digest=sha256_of(str(path)), signature=signature)


def read_shapes_at(path: Path, sizes: Mapping[str, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Return the shapes of the tensors in a file's main graph at given sizes of its inputs.

    Args:
        path: of a file that LiteRT accepts.
        sizes: the shape of each input, by its name in the graph.

    Returns:
        Shapes by tensor index.

    Raises:
        UserError: LiteRT does not accept inputs of these sizes.
    """
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(
        model_path=str(path),
        num_threads=1,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    for details in interpreter.get_input_details():
        if details["name"] in sizes:
            interpreter.resize_tensor_input(
                details["index"], list(sizes[details["name"]]), strict=False
            )
    refusal = f"{path}: LiteRT cannot process inputs " + ", ".join(
        f"{name} {list(shape)}" for name, shape in sizes.items()
    )
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{refusal}: {first_line(error)}", hint="give other sizes") from error
    shapes = {
        d["index"]: tuple(int(n) for n in d["shape"]) for d in interpreter.get_tensor_details()
    }
    for details in interpreter.get_tensor_details():
        if 0 in shapes[details["index"]]:
            raise UserError(
                f"{refusal}: {details['name']} has no entries", hint="give larger sizes"
            )
    return shapes


def _format_refusal(path: Path, error: AgentError) -> str:
    """Format LiteRT's refusal as one line that names the path once."""
    message = first_line(error).replace(f" cannot load {path}: ", ": ")
    return f"{path}: LiteRT rejects the file: {message}"


@contextmanager
def _silence_litert() -> Iterator[None]:
    """Suppress the INFO lines that LiteRT prints at its first load.

    LiteRT has no setting for that. All other output to stderr is passed on.
    """
    if sys.__stderr__ is None:  # closed, and its number may belong to another file
        yield
        return
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as stderr_file:
        os.dup2(stderr_file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            stderr_file.seek(0)
            for line in stderr_file:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def _to_specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in tensors)
