"""Groups and slices of samples: columns that the host alone reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.data.column_rows import read_column, read_texts
from edgekit.data.table import Table
from edgekit.errors import UserError
from edgekit_agent.samples import Column

GROUP, SEQUENCE, SLICE = "group", "sequence", "slice_"


@dataclass(frozen=True, kw_only=True)
class SampleGroups:
    """Groups and slices of all samples.

    Attributes:
        groups: Number of the group (patient, stream, image) of each sample; ``None`` = each sample
            is one.
        slices: Label of each sample, by the name of the slice column without ``slice_``.
    """

    groups: NDArray[np.int64] | None = None
    slices: dict[str, NDArray[np.str_]] = field(default_factory=dict)


def is_group_name(name: str) -> bool:
    """Return whether an array of this name holds groups or slices, unless it feeds an input."""
    return name in (GROUP, SEQUENCE) or name.startswith(SLICE)


def read_groups(table: Table, inputs: Collection[str]) -> SampleGroups:
    """Read the columns ``group`` and ``slice_NAME`` of a table.

    Without ``group``, the steps of a sequence are a group.

    Raises:
        UserError: A column has other than one text or integer per sample.
    """
    columns = {c.name: c for c in table.columns if c.name not in inputs and is_group_name(c.name)}
    group = columns.get(GROUP) or columns.get(SEQUENCE)
    slices = [c for name, c in columns.items() if name.startswith(SLICE)]
    return SampleGroups(
        groups=None if group is None else _convert_to_numbers(_read_labels(group, table)),
        slices={
            column.name.removeprefix(SLICE): _read_labels(column, table).astype(np.str_)
            for column in slices
        },
    )


def _convert_to_numbers(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Convert labels to the numbers 0, 1, ... in the order of the labels."""
    numbers: NDArray[np.int64] = np.unique(labels, return_inverse=True)[1].reshape(-1)
    return numbers.astype(np.int64)


def _read_labels(column: Column, table: Table) -> NDArray[np.generic]:
    """Read one text or integer per sample."""
    is_text = column.name in table.texts
    sizes = column.shape[1:-1] if is_text else column.shape[1:]
    if any(size != 1 for size in sizes) or np.dtype(column.dtype).kind not in "iub":
        raise UserError(
            f"{table.source}: {column.name}: must be one text or integer per sample",
            hint="name the group or the slice of each sample by a text or a number",
        )
    labels: NDArray[np.generic]
    labels = read_texts(column, table.source) if is_text else read_column(column).reshape(-1)
    return labels
