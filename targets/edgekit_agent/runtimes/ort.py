"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Tuple

import onnxruntime

from edgekit_agent.failures import AgentError
from edgekit_agent.limits import MOST_FOLDED_BYTES
from edgekit_agent.runtimes import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3
# onnxruntime releases that do not know the entry ignore it.
MOST_FOLDED_ENTRY = "optimization.constant_folding_max_output_size_in_bytes"


class OrtModel:
    """An ONNX Runtime session; see ``edgekit_agent.runtimes.LoadedModel``."""

    version: str = onnxruntime.__version__

    def __init__(self, session: Any) -> None:  # noqa: ANN401 - onnxruntime has no types
        self._session = session
        self.inputs = tuple(_to_tensor(value) for value in session.get_inputs())
        self.outputs = tuple(_to_tensor(value) for value in session.get_outputs())
        self._names = [tensor.name for tensor in self.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run one inference."""
        try:
            return dict(zip(self._names, self._session.run(self._names, inputs)))
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise AgentError("model_failed", f"onnxruntime: {error}") from error


def load(path: str, threads: int) -> OrtModel:
    """Load an ONNX file.

    Raises:
        FileNotFoundError: there is no such file.
        AgentError: ``model_failed``; onnxruntime refuses it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if hasattr(options, "add_session_config_entry"):  # not in the oldest releases
        options.add_session_config_entry(MOST_FOLDED_ENTRY, str(MOST_FOLDED_BYTES))
    with open(path, "rb"):
        pass  # raises FileNotFoundError, unlike onnxruntime
    try:
        session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise AgentError(
            "model_failed",
            f"onnxruntime {onnxruntime.__version__} cannot load {path}: {error}",
            hint="the model may need a newer onnxruntime (opset, operator or IR version)",
        ) from error
    return OrtModel(session)


def _to_tensor(value: Any) -> Tensor:  # noqa: ANN401 - onnxruntime has no types
    if value.type not in _DTYPES:
        raise AgentError("model_failed", f"{value.name}: {value.type} is not supported here")
    shape: Tuple[Any, ...] = tuple("?" if dim is None else dim for dim in value.shape)
    return Tensor(value.name, _DTYPES[value.type], shape)
