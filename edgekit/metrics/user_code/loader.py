"""Metrics of the user: a function or a class of a module, and what its attributes tell."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.config.entry_points import find_member, search_modules_in
from edgekit.config.user_modules import find_files, hash_files, import_fresh
from edgekit.errors import UserError
from edgekit.metrics.metric import (
    Aggregate,
    Floats,
    Margin,
    Metric,
    Table,
    TargetReader,
    aggregate_mean,
    prepare_first_mean,
)
from edgekit.metrics.user_code.calls import UserCode
from edgekit_agent.scoring import MetricOptions

# Default margin: points for shares, else percent of the value of the original.
_POINTS = Margin(value=1.0)
_PERCENT = Margin(value=1.0, relative=True)
_loaded: dict[str, Metric] = {}


def load_user_metric(name: str, folder: Path | None = None) -> Metric:
    """Load the metric that a function or class of the user computes.

    Higher values are better unless it has an attribute ``lower_is_better = True``. Further
    attributes: ``title``; ``is_share``, whether values are from 0 to 1; ``margin``, the largest
    loss that counts as none in the unit of the metric (points of a share), or ``relative_margin``,
    in percent of the value of the original; ``uses_targets = False`` for values that depend on the
    outputs alone.

    Args:
        name: ``module:function`` or ``module:Class``.
        folder: Folder of the project; ``None`` = the metric as it was loaded before, else from the
            current folder.

    Raises:
        UserError: There is no such function or class, or it has a wrong attribute.
    """
    if folder is None and name in _loaded:
        return _loaded[name]
    base = (folder or Path()).resolve()
    with search_modules_in(base):
        module = import_fresh(name, base)
        value = find_member(name, module)
    files = find_files(module, base, value)
    code = UserCode(
        name=name,
        folder=base,
        value=_check_value(name, value),
        digest=hash_files(files),
        files=files,
        uses_targets=getattr(value, "uses_targets", True) is not False,
    )
    _loaded[name] = _build_metric(code)
    return _loaded[name]


def _check_value(name: str, value: object) -> Callable[..., Any]:
    """Check that a value is a function of two arguments, or a class with the two methods."""
    if inspect.isclass(value):
        lacking = [each for each in ("update", "value") if not callable(getattr(value, each, None))]
        if lacking:
            raise UserError(
                f"{name}: the class has no method {' and no method '.join(lacking)}",
                hint="give it update(self, outputs, targets) and value(self)",
            )
        _check_arguments(name, value, (), wanted="no arguments")
        _check_arguments(f"{name}.update", getattr(value, "update"), ({}, {}, {}))  # noqa: B009
        return value
    if not callable(value):
        raise UserError(f"{name}: {type(value).__name__} is neither a function nor a class")
    _check_arguments(name, value, ({}, {}))
    return value


def _check_arguments(
    name: str,
    function: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    *,
    wanted: str = "the arguments (outputs, targets)",
) -> None:
    try:
        inspect.signature(function).bind(*args)
    except TypeError as error:
        raise UserError(
            f"{name}: must take {wanted}: {error}",
            hint="def function(outputs, targets), or a class with update(self, outputs, targets) "
            "and value(self)",
        ) from error
    except ValueError:
        return  # written in C: it states no arguments


def _build_metric(code: UserCode) -> Metric:
    attributes = _Attributes(code)
    is_share = attributes.read_flag("is_share")
    by_sample = not code.is_class
    return Metric(
        name=code.name,
        title=attributes.read_title(),
        prepare=prepare_first_mean if by_sample else _prepare_known_values,
        compute_trivial=_compute_no_trivial,
        higher_is_better=attributes.read_direction(),
        is_share=is_share,
        margin=attributes.read_margin(_POINTS if is_share else _PERCENT),
        find_blocks=None if by_sample else _find_blocks,
        prepare_mismatched=_prepare_mismatched_mean if by_sample else _prepare_mismatched_value,
        code=code,
    )


class _Attributes:
    """Attributes of a function or class of the user that describe the metric."""

    def __init__(self, code: UserCode) -> None:
        self._code = code

    def read_title(self) -> str:
        """Return the title; by default the name in words."""
        title = getattr(self._code.value, "title", None)
        if title is None:
            return self._code.name.rpartition(":")[2].rpartition(".")[2].replace("_", " ")
        if not isinstance(title, str) or not title.strip():
            raise self._make_error("title", title, "text")
        return title

    def read_flag(self, name: str, *, default: bool = False) -> bool:
        """Return an attribute that is true or false."""
        value = getattr(self._code.value, name, default)
        if not isinstance(value, bool):
            raise self._make_error(name, value, "True or False")
        return value

    def read_direction(self) -> bool:
        """Return whether higher values are better."""
        lower = self.read_flag("lower_is_better")
        higher = self.read_flag("higher_is_better", default=not lower)
        if lower and higher:
            raise UserError(
                f"{self._code.name}: lower_is_better and higher_is_better contradict each other"
            )
        return higher

    def read_margin(self, default: Margin) -> Margin:
        """Return the largest loss that counts as none."""
        found = [name for name in ("margin", "relative_margin") if hasattr(self._code.value, name)]
        if len(found) > 1:
            raise UserError(
                f"{self._code.name}: has both a margin and a relative_margin",
                hint="margin is in the unit of the metric, relative_margin in percent of the value",
            )
        if not found:
            return default
        value = getattr(self._code.value, found[0])
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (math.isfinite(value) and value >= 0):
            raise self._make_error(found[0], value, "a number of at least 0")
        return Margin(value=float(value), relative=found[0] == "relative_margin")

    def _make_error(self, name: str, value: object, wanted: str) -> UserError:
        return UserError(f"{self._code.name}: {name} is {value!r} instead of {wanted}")


def _compute_no_trivial(read: TargetReader, options: MetricOptions) -> None:
    """Return ``None``: nothing is known of the best constant answer."""


def _prepare_mismatched_mean(table: Table) -> Aggregate | None:
    """Return the mean of the values with the targets of other samples, if all are known."""
    if any(row.size < 2 for row in table.rows):
        return None
    return aggregate_mean(table.stack()[:, 1])


# ---------------------------------------------------------------- values of all samples together

# Rows of a class hold the block of the sample, the number of all samples, the value of all, that
# without the block and, if it is known, that with the targets of other samples.


def build_rows(
    blocks: NDArray[np.int64], value: float, left_out: Floats, mismatched: float | None = None
) -> list[Floats]:
    """Return the rows of a metric whose value is known of all samples and without each block.

    Args:
        blocks: Number of the block of each sample.
        value: Value of all samples.
        left_out: Value without each block.
        mismatched: Value with the targets of other samples, if it is known.
    """
    last = [] if mismatched is None else [mismatched]
    return [
        np.array([block, blocks.size, value, left_out[block], *last], np.float64)
        for block in blocks
    ]


def _prepare_mismatched_value(table: Table) -> Aggregate | None:
    """Return the value with the targets of other samples, if it is known."""
    rows = table.stack()
    if rows.shape[1] < 5:
        return None
    return lambda weights: np.full(len(weights), rows[0, 4])


def _find_blocks(table: Table) -> NDArray[np.int64]:
    return table.stack()[:, 0].astype(np.int64)


def _prepare_known_values(table: Table, options: MetricOptions) -> Aggregate:
    """Return the known values; nan for other weights than all ones, or ones without a block."""
    del options
    rows = table.stack()
    blocks, complete = rows[:, 0].astype(np.int64), table.n == rows[0, 1]

    def compute_one(weights: Floats) -> float:
        if not complete or not np.isin(weights, (0.0, 1.0)).all():
            return math.nan
        absent = np.unique(blocks[weights == 0])
        if not absent.size:
            return float(rows[0, 2])
        if absent.size > 1 or (weights[blocks == absent[0]] != 0).any():
            return math.nan
        return float(rows[blocks == absent[0]][0, 3])

    return lambda weights: np.array([compute_one(each) for each in weights])
