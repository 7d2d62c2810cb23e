"""Metrics of the user that are computed where the model runs, by code that comes with the job."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import MetricCode

if TYPE_CHECKING:
    import types

    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


class _TextFinder(MetaPathFinder, Loader):
    """Finder and loader of modules whose texts are in memory."""

    def __init__(self, texts: Dict[str, str]) -> None:
        self._texts = texts

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]] = None,
        target: Optional[types.ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        """Find a module by its name."""
        del path, target
        base = fullname.replace(".", "/")
        for name, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if name in self._texts:
                return spec_from_loader(fullname, self, origin=name, is_package=is_package)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the text of a module."""
        origin = str(module.__spec__.origin) if module.__spec__ else ""
        exec(compile(self._texts[origin], origin, "exec"), module.__dict__)


def load_user_statistic(code: MetricCode) -> Statistic:
    """Import a function of the user; return the function that computes the row of one sample.

    The function gets outputs and targets by name, each with a first axis of one sample, and returns
    one number.

    Raises:
        AgentError: ``bad_job``; the code raises an error, or has no such function.
    """
    sys.meta_path.insert(0, _TextFinder({file.path: file.text for file in code.files}))
    module, _, name = code.entry.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (Exception, SystemExit) as error:
        raise AgentError("bad_job", f"{code.entry}: {_describe(error)}") from error

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
                "bad_job", f"{code.entry}: sample {sample.number}: {_describe(error)}"
            ) from error
        if row.size != 1 or not np.isfinite(row).all():
            raise AgentError(
                "bad_job",
                f"{code.entry}: returned {row.size} numbers for sample {sample.number}"
                if row.size != 1
                else f"{code.entry}: returned {row[0]} for sample {sample.number}",
                hint="return an array with one finite number for each sample",
            )
        return row

    return compute


def _describe(error: BaseException) -> str:
    """Return type and text of an error, with the last line of the user's code."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not os.path.isabs(file) and file.endswith(".py"):
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}{place}"
