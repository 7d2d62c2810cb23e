"""edgekit metrics: list the metrics of accuracy."""

from __future__ import annotations

import edgekit
from edgekit.cli.options import Json
from edgekit.cli.render.output import emit


def list_metrics(as_json: Json = False) -> None:
    """List the metrics with their default margins and the targets that they need.

    A function of yours is a metric, too: --metric module:function.
    """
    from edgekit.cli.render import metrics as render_metrics

    emit(edgekit.list_metrics(), render_metrics.format_metrics, as_json=as_json)
