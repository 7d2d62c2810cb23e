"""Runs of a model file on one feed after the other, as it is stored on disk.

Between feeds only the states of the file itself are kept: LiteRT keeps its variables, and this
module carries the states of an .onnx file from outputs to inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit.errors import UserError, first_line
from edgekit.model import Model
from edgekit.onnx_graph.io import load_structure, make_session_options
from edgekit.onnx_graph.states import read_states
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime

Arrays = Mapping[str, NDArray[np.generic]]

_THREADS = 2


def iter_outputs(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    """Yield all outputs by name for each feed, or the error message if the model fails on it.

    The session is released after the last feed, so that two models need not be in memory at once.

    Args:
        model: the .onnx or .tflite file.
        feeds: input arrays by name.

    Raises:
        UserError: the runtime refuses the file.
    """
    if model.format == "tflite":
        yield from _run_litert(model, feeds)
    else:
        yield from _run_onnxruntime(model, feeds)


def _run_litert(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    try:
        loaded = import_runtime("litert")(str(model.path), _THREADS)
    except AgentError as error:
        raise UserError(error.failure.message, hint=error.failure.hint) from error
    for feed in feeds:
        try:
            yield loaded.run(feed)
        except AgentError as error:
            yield error.failure.message


def _run_onnxruntime(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    options = make_session_options()
    # The arena never returns memory; without it peak memory is that of one feed.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = _THREADS
    try:
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(f"onnxruntime rejects it: {first_line(error)}") from error
    names = [spec.name for spec in model.signature.outputs]
    states = read_states(load_structure(model.path))
    state_values = {state.input: state.initial for state in states}
    for feed in feeds:
        try:
            outputs = _run(session, names, {**state_values, **feed})
        except UserError as failure:
            yield failure.message
            continue
        state_values = {state.input: outputs[state.output] for state in states}
        yield outputs


def _run(
    session: ort.InferenceSession, names: list[str], feed: Arrays
) -> dict[str, NDArray[np.generic]]:
    try:
        outputs = session.run(names, dict(feed))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(first_line(error)) from error
    return dict(zip(names, outputs, strict=True))
