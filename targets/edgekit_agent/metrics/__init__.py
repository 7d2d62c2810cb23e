"""Statistic of each sample by name: what a metric needs to know of it, as one row of numbers.

The host aggregates the rows to the value of the metric. The same code runs on the host and on the
device. It uses ``portable_math`` for ``exp`` and ``log``, and no matrix products, so that the same
outputs give the same bits on every processor. Needs numpy; modules are imported when needed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import MetricOptions

    Statistic = Callable[["ScoredSample", "MetricOptions"], NDArray[np.float64]]

# Module of each metric; it has a table STATISTICS from the name to the function.
MODULES: Dict[str, str] = {
    "top1": "classification",
    "top5": "classification",
    "binary": "classification",
    "map": "detection",
    "map50": "detection",
    "mae": "regression",
    "rmse": "regression",
    "r2": "regression",
    "relative-rms": "regression",
    "cosine": "regression",
    "psnr": "restoration",
    "ssim": "restoration",
    "miou": "segmentation",
    "dice": "segmentation",
    "macro-f1": "classification",
    "log-loss": "probabilities",
    "ece": "probabilities",
    "multilabel-map": "multilabel",
    "multilabel-f1": "multilabel",
    "auc": "ranking",
    "eer": "ranking",
    "spearman": "ranking",
    "reconstruction-auc": "ranking",
    "pairs-auc": "embeddings",
    "pairs-eer": "embeddings",
    "recall": "embeddings",
    "cer": "texts",
    "wer": "texts",
    "perplexity": "tokens",
    "token-accuracy": "tokens",
    "outputs": "outputs",
    "agreement": "agreement",
    "output-cosine": "agreement",
    "output-rms": "agreement",
}


@dataclass(frozen=True)
class ScoredSample:
    """Outputs, targets and inputs of one sample, by name, each without its sample axis.

    Targets are those of the data: the main one is called ``y``. Outputs are those of the model, or
    of the post-processing where one is declared.
    """

    number: int
    outputs: Arrays
    targets: Arrays
    inputs: Arrays

    def get_output(self, name: str | None) -> NDArray[Any]:
        """Return the output of a name, else the first one.

        Raises:
            AgentError: ``bad_job``; there is no such output.
        """
        if name is not None and name not in self.outputs:
            raise AgentError(
                "bad_job", f"the model has no output {name!r}, only {', '.join(self.outputs)}"
            )
        return self.outputs[name] if name is not None else next(iter(self.outputs.values()))

    def get_target(self, name: str = "y") -> NDArray[Any]:
        """Return the target of a name.

        Raises:
            AgentError: ``bad_job``; there is no such target.
        """
        if name not in self.targets:
            known = ", ".join(self.targets) or "none"
            raise AgentError(
                "bad_job",
                f"the data has no target {name!r}; its targets: {known}",
                hint="add an array 'y' with the target of each sample",
            )
        return self.targets[name]


def load_statistic(name: str) -> Statistic:
    """Import the function that computes the row of one sample.

    Raises:
        AgentError: ``bad_job``; there is no such metric.
    """
    if name not in MODULES:
        known = ", ".join(sorted(MODULES))
        raise AgentError("bad_job", f"unknown metric {name!r}; known: {known}")
    module = importlib.import_module(f"edgekit_agent.metrics.{MODULES[name]}")
    statistic: Statistic = module.STATISTICS[name]
    return statistic
