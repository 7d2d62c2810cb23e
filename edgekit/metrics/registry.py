"""Metrics by name: built-in, of plugins (entry point ``edgekit.metrics``), and of the user."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.config.entry_points import is_entry
from edgekit.config.plugins import load_plugins, warn_of_plugin
from edgekit.errors import UserError, did_you_mean
from edgekit.metrics.intervals.paired_tables import Unit, get_unit
from edgekit.metrics.metric import Metric
from edgekit.metrics.user_code.loader import load_user_metric

# Modules with a tuple METRICS.
_MODULES = (
    "classification",
    "detection",
    "regression",
    "restoration",
    "segmentation",
    "probabilities",
    "multilabel",
    "ranking",
    "reconstruction",
    "embeddings",
    "sequences",
    "agreement",
)
_GROUP = "edgekit.metrics"


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """Description of a metric.

    Attributes:
        name: Its name, for ``--metric`` and edgekit.toml.
        title: Its name in reports.
        higher_is_better: Whether higher values are better.
        is_share: Whether values are shares from 0 to 1, shown in percent.
        margin: Largest loss that counts as none, unless the project or the device sets it.
        unit: Unit of the margin: ``points`` of a share, ``%`` of the value of the original, or that
            of the metric (empty).
        target: What the target ``y`` of a sample must be.
    """

    name: str
    title: str
    higher_is_better: bool
    is_share: bool
    margin: float
    unit: Unit
    target: str


def describe_metric(metric: Metric) -> MetricFacts:
    """Describe a metric."""
    return MetricFacts(
        name=metric.name,
        title=metric.title,
        higher_is_better=metric.higher_is_better,
        is_share=metric.is_share,
        margin=metric.margin.value,
        unit=get_unit(metric, metric.margin),
        target=metric.target,
    )


@cache
def list_metrics() -> tuple[Metric, ...]:
    """Return all metrics; the built-in ones come first."""
    found: dict[str, Metric] = {}
    for module in _MODULES:
        for metric in importlib.import_module(f"edgekit.metrics.{module}").METRICS:
            found[metric.name] = metric
    for plugin in load_plugins(_GROUP):
        if not isinstance(plugin.value, Metric):
            warn_of_plugin(plugin, "it is not an edgekit.metrics.metric.Metric")
        elif plugin.value.name in found:
            warn_of_plugin(plugin, f"there is a metric {plugin.value.name!r} already")
        else:
            found[plugin.value.name] = plugin.value
    return tuple(found.values())


def get_metric(name: str, folder: Path | None = None) -> Metric:
    """Return the metric of a name.

    Args:
        name: Name of a metric, or ``module:function`` of the user.
        folder: Folder of the project, in which a module is searched; ``None`` = the metric as it
            was loaded before, else from the current folder.

    Raises:
        UserError: There is none, or the code of the user cannot be used.
    """
    if is_entry(name):
        return load_user_metric(name, folder)
    known = {metric.name: metric for metric in list_metrics()}
    if name not in known:
        raise UserError(
            f"unknown metric {name!r}{did_you_mean(name, known)}",
            hint=f"metrics: {', '.join(known)}, or module:function",
        )
    return known[name]
