"""Detection of passes that make a model slower on this machine."""

from __future__ import annotations

import contextlib
import functools

from edgekit.compression.checks.contract_inputs import iter_probes
from edgekit.compression.checks.timing import measure_slowdown
from edgekit.config.profile import get_runtime
from edgekit.data.input_settings import Feeding
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.progress import Count
from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import import_runtime
from edgekit_agent.samples import Samples


def describe_slowdown(
    before: Model,
    after: Model,
    samples: Samples | None,
    *,
    seed: int,
    feeding: Feeding | None = None,
    tick: Count | None = None,
) -> str:
    """Describe how much slower the result of a pass is than its input; empty if it is not slower.

    Passes that change the format report it themselves.

    Args:
        before: Input of the pass.
        after: Result of the pass.
        samples: Calibration samples, of which the first is run; ``None`` for random inputs.
        seed: Seed of the random inputs.
        feeding: Input settings of edgekit.toml, for random inputs.
        tick: Callback for the number of finished pairs of runs.
    """
    if before.format != after.format:
        return ""
    with contextlib.suppress(AgentError, UserError):  # the comparison of outputs reports these
        feed = next(iter_probes(before, samples, seed=seed, feeding=feeding)).feed
        load = import_runtime(get_runtime(after))
        runs = [functools.partial(load(str(m.path), 1).run, feed) for m in (before, after)]
        if (ratio := measure_slowdown(runs[0], runs[1], tick)) > 1:
            return (
                f"on this machine the result takes {ratio:.2f} times as long as the original "
                "(one thread)"
            )
    return ""
