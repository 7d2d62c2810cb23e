"""Session of a graph that yields inner values as well, run thousands of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.errors import UserError, first_line
from edgekit.onnx_graph.io import read_signature
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented

Arrays = Mapping[str, NDArray[np.generic]]


class ValueSession:
    """Session of a graph that yields named values, inner ones as well, for any inputs.

    Args:
        proto: the graph; not changed.
        names: values to compute.
        model: what messages call the model.

    Raises:
        UserError: the runtime refuses the graph.
    """

    def __init__(self, proto: ModelProto, names: Sequence[str], *, model: str) -> None:
        self._names = list(names)
        self._model = model
        inputs = {spec.name for spec in read_signature(proto).inputs}
        self._asked = [name for name in self._names if name not in inputs]
        self._session = open_instrumented(proto, Additions(outputs=self._asked), many_runs=True)

    def compute(self, fed: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the values for the inputs of one run.

        Raises:
            UserError: the model fails on these inputs.
        """
        try:
            made = self._session.run(self._asked, dict(fed)) if self._asked else []
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise UserError(f"the {self._model} fails on a sample: {first_line(error)}") from error
        values = dict(zip(self._asked, made, strict=True))
        return {name: values[name] if name in values else fed[name] for name in self._names}
