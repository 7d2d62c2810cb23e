"""Original model as the teacher of a smaller one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from edgekit.errors import UserError, first_line
from edgekit.onnx_graph.io import make_session, make_session_options, read_signature

Arrays = Mapping[str, NDArray[np.generic]]


class Teacher:
    """Values of a graph, inner ones as well, for any inputs.

    Args:
        proto: the graph; not changed.
        names: values to compute.

    Raises:
        UserError: the runtime refuses the graph.
    """

    def __init__(self, proto: ModelProto, names: Sequence[str]) -> None:
        self.names = list(names)
        inputs = {spec.name for spec in read_signature(proto).inputs}
        self._asked = [name for name in self.names if name not in inputs]
        self._session = _open(proto, self._asked)

    def compute(self, fed: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the values for the inputs of one run.

        Raises:
            UserError: the model fails on these inputs.
        """
        try:
            made = self._session.run(self._asked, dict(fed)) if self._asked else []
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise UserError(f"the original model fails on a sample: {first_line(error)}") from error
        values = dict(zip(self._asked, made, strict=True))
        return {name: values[name] if name in values else fed[name] for name in self.names}


def _open(proto: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Open a session that is fast in thousands of runs, with further outputs."""
    asked = ModelProto()
    asked.CopyFrom(proto)
    known = {output.name for output in asked.graph.output}
    asked.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    options = make_session_options()
    options.intra_op_num_threads = 2
    # Threads that wait in a loop would slow down the learning between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # QuantizeLinear and DequantizeLinear run in float32, as in the student.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return make_session(asked, options)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        message = first_line(error)
        raise UserError(f"the inner values of a model cannot be read: {message}") from error
