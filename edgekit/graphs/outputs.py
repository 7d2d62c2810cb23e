"""Run a model file as it lies on disk, one feed at a time; nothing is kept between feeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit.errors import UserError, first_line
from edgekit.model import Model

Arrays = Mapping[str, NDArray[np.generic]]


def outputs(
    model: Model, feeds: Iterable[Arrays]
) -> Iterator[dict[str, NDArray[np.generic]] | str]:
    """All outputs by name for each feed; for one that the model fails on, why.

    The session is gone when the last feed is done, so that two models need not be held at once.

    Raises:
        UserError: the runtime does not take the file.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The arena keeps what it once took; without it peak memory is that of one feed.
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = 2
    try:
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(f"onnxruntime does not take it: {first_line(error)}") from error
    names = [spec.name for spec in model.signature.outputs]
    for feed in feeds:
        try:
            yield _run(session, names, feed)
        except UserError as failure:
            yield failure.message


def _run(
    session: ort.InferenceSession, names: list[str], feed: Arrays
) -> dict[str, NDArray[np.generic]]:
    try:
        made = session.run(names, dict(feed))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(first_line(error)) from error
    return dict(zip(names, made, strict=True))
