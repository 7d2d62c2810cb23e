"""Run a model file as it lies on disk, one feed at a time.

Nothing is kept between feeds but the states that the file itself has: LiteRT keeps variables, and
those that became inputs of an .onnx file are carried here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit.errors import UserError, first_line
from edgekit.graphs.onnx_file import load_structure, quiet_options
from edgekit.graphs.states import states_of
from edgekit.model import Model
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime

Arrays = Mapping[str, NDArray[np.generic]]

_THREADS = 2


def outputs(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    """All outputs by name for each feed; for one that the model fails on, why.

    The session is gone when the last feed is done, so that two models need not be held at once.

    Raises:
        UserError: the runtime does not take the file.
    """
    if model.format == "tflite":
        yield from _by_litert(model, feeds)
    else:
        yield from _by_onnxruntime(model, feeds)


def _by_litert(
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


def _by_onnxruntime(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    options = quiet_options()
    # The arena keeps what it once took; without it peak memory is that of one feed.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = _THREADS
    try:
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(f"onnxruntime does not take it: {first_line(error)}") from error
    names = [spec.name for spec in model.signature.outputs]
    states = states_of(load_structure(model.path))
    held = {state.input: state.initial for state in states}
    for feed in feeds:
        try:
            made = _run(session, names, {**held, **feed})
        except UserError as failure:
            yield failure.message
            continue
        held = {state.input: made[state.output] for state in states}
        yield made


def _run(
    session: ort.InferenceSession, names: list[str], feed: Arrays
) -> dict[str, NDArray[np.generic]]:
    try:
        made = session.run(names, dict(feed))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(first_line(error)) from error
    return dict(zip(names, made, strict=True))
