"""Metrics of the user that are computed where the model runs, by code that comes with the job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import MetricCode
from edgekit_agent.user_modules import describe_user_error, import_user_function

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def load_user_statistic(code: MetricCode) -> Statistic:
    """Import a function of the user; return the function that computes the row of one sample.

    The function gets outputs and targets by name, each with a first axis of one sample, and returns
    one number.

    Raises:
        AgentError: ``bad_job``; the code raises an error, or has no such function.
    """
    value = import_user_function(code.entry, files=code.files)

    def compute(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
        del options
        outputs, targets = (
            {name: np.asarray(array)[None] for name, array in arrays.items()}
            for arrays in (sample.outputs, sample.targets)
        )
        try:
            row = np.asarray(value(outputs, targets), np.float64).reshape(-1)
        except (Exception, SystemExit) as error:
            raise AgentError(
                "bad_job", f"{code.entry}: sample {sample.number}: {describe_user_error(error)}"
            ) from error
        if row.size != 1 or not np.isfinite(row).all():
            answer = row[0] if row.size == 1 else f"{row.size} numbers"
            raise AgentError(
                "bad_job",
                f"{code.entry}: returned {answer} for sample {sample.number}",
                hint="return an array with one finite number for each sample",
            )
        return row

    return compute
