"""The metrics of accuracy."""

from __future__ import annotations

from edgekit.metrics import registry
from edgekit.metrics.registry import MetricFacts, describe_metric

__all__ = ["MetricFacts", "list_metrics"]


def list_metrics() -> list[MetricFacts]:
    """List the metrics, also those of plugins, with what they need.

    A function of yours is a metric, too: ``module:function``.

    Returns:
        A description of each metric. Its attributes: ``name``; ``title``; ``higher_is_better``;
        ``is_share``; ``margin``, the largest loss that counts as none by default, and its ``unit``;
        ``target``, what the target ``y`` of a sample must be.

    Examples:
        >>> import edgekit
        >>> [each.unit for each in edgekit.list_metrics() if each.name == "mae"]
        ['%']
    """
    return [describe_metric(metric) for metric in registry.list_metrics()]
