"""Metric and post-processing of a proposal as lines of edgekit.toml."""

from __future__ import annotations

import json

from pydantic import BaseModel

from edgekit.config.project import MetricOptionsTable, PostprocessTable
from edgekit.pipeline.proposals.task_proposal import TaskProposal


def format_metric(task: TaskProposal) -> str:
    """Format the metric in ``[data]``, and the table of its options after it."""
    if task.targets:
        return f'# metric = "module:function"  # judges {" and ".join(task.targets)}\n'
    if not task.metric:
        return f'# metric = ""  # {task.reason}\n'
    options = _format_table(task.options, MetricOptionsTable())
    table = f"\n[data.metric_options]\n{options}" if options else ""
    return f'metric = "{task.metric}"  # {task.reason}\n{table}'


def format_postprocessing(head: PostprocessTable | None) -> str:
    """Format ``[postprocess]`` without default values; empty if there is none."""
    if head is None:
        return ""
    lines = _format_table(head, PostprocessTable(kind=head.kind))
    return f'\n[postprocess]\nkind = "{head.kind}"\n{lines}'


def _format_table(table: BaseModel, plain: BaseModel) -> str:
    lines = []
    for key in type(table).model_fields:
        value = getattr(table, key)
        if value != getattr(plain, key):
            listed = list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(listed, ensure_ascii=False)}\n")
    return "".join(lines)
