"""Whether a pass made a model slower, timed beside the model before on this machine."""

from __future__ import annotations

import contextlib
import functools

from edgekit.errors import UserError
from edgekit.feeding import Feeding
from edgekit.model import Format, Model
from edgekit.passes.probes import probes
from edgekit.passes.timing import time_ratio
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime
from edgekit_agent.samples import Samples

_RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime", "tflite": "litert"}
# Ratios below this are noise on a busy machine.
_SLOWER = 1.15


def slowdown_note(
    before: Model,
    after: Model,
    samples: Samples | None,
    *,
    seed: int,
    feeding: Feeding | None = None,
) -> str:
    """Say how much slower a file is than the one it was made of; empty where it is not.

    Passes that change the format tell of it themselves.

    Args:
        before: the pass's input.
        after: what it made.
        samples: calibration samples, the first of which is run; made-up inputs without any.
        seed: of the made-up inputs.
        feeding: what edgekit.toml says of the inputs, for those that are made up.
    """
    if before.format != after.format:
        return ""
    with contextlib.suppress(AgentError, UserError):  # the comparison of outputs tells of these
        feed = next(probes(before, samples, seed=seed, feeding=feeding)).feed
        load = import_runtime(_RUNTIMES[after.format])
        runs = [functools.partial(load(str(m.path), 1).run, feed) for m in (before, after)]
        if (ratio := time_ratio(*runs)) > _SLOWER:
            return f"on this machine it takes {ratio:.2f} times as long as before, one thread"
    return ""
