"""Inputs of a fitted scikit-learn estimator: its columns, and values like those it has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def iter_parts(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and every estimator inside it."""
    yield estimator
    for inner in _iter_inner(estimator):
        yield from iter_parts(inner)


def _iter_inner(estimator: Any) -> Iterator[Any]:
    for name in ("steps", "transformers_", "transformer_list"):
        yield from (
            member[1] for member in getattr(estimator, name, []) if hasattr(member[1], "fit")
        )
    estimators = getattr(estimator, "estimators_", [])
    yield from estimators.ravel() if isinstance(estimators, np.ndarray) else estimators
    for name in ("estimator_", "estimator", "final_estimator_", "best_estimator_"):
        inner = getattr(estimator, name, None)
        if hasattr(inner, "n_features_in_"):
            yield inner


def selects_by_name(estimator: Any) -> bool:
    """Return whether columns are selected by name."""
    chosen = (
        columns
        for part in iter_parts(estimator)
        for _, _, columns in getattr(part, "transformers_", [])
        if not isinstance(columns, (slice, str)) and len(columns)
    )
    return any(isinstance(columns[0], str) for columns in chosen)


def takes_text(estimator: Any) -> bool:
    """Return whether an estimator takes columns of text, or texts as samples."""
    for part in iter_parts(estimator):
        if hasattr(part, "vocabulary_"):
            return True
        if any(np.asarray(c).dtype.kind in "OUS" for c in getattr(part, "categories_", [])):
            return True
    return False


def build_table_sampler(estimator: Any, count: int) -> Callable[[int], NDArray[np.float32]]:
    """Return a sampler of tables with ``count`` columns, with values like those seen in training.

    Means and extremes come from scalers and imputers, categories from encoders, thresholds from
    trees.
    """
    columns = _find_typical_values(estimator, count)

    def draw(rows: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(rows)
        table = np.stack([_draw_values(column, rows, rng) for column in columns], axis=1)
        return table.astype(np.float32)

    return draw


def _draw_values(column: Array, rows: int, rng: np.random.Generator) -> Array:
    """Draw values of a column: seen values of an integer column, else values around seen ones."""
    picked = rng.choice(column, rows)
    if np.array_equal(column, np.round(column)) and len(column) > 1:
        return picked
    return np.asarray(picked + rng.normal(size=rows) * (column.std() or 1.0))


def _find_typical_values(estimator: Any, count: int) -> list[Array]:
    """Return typical values of each column."""
    for step in getattr(estimator, "steps", []):
        if hasattr(step[1], "n_features_in_"):
            return _find_typical_values(step[1], count)
    columns = [np.zeros(1)] * count
    for _, inner, chosen in getattr(estimator, "transformers_", []):
        column_numbers = _find_column_numbers(estimator, chosen)
        if hasattr(inner, "n_features_in_"):
            for number, values in zip(
                column_numbers, _find_typical_values(inner, len(column_numbers)), strict=True
            ):
                columns[number] = values
        elif inner == "drop":
            continue
    if hasattr(estimator, "transformers_"):
        return columns
    return _read_fitted_values(estimator, count) or columns


def _find_column_numbers(estimator: Any, chosen: Any) -> list[int]:
    """Return the numbers of columns that are given by number, name, mask or slice."""
    if isinstance(chosen, slice):
        return list(range(estimator.n_features_in_))[chosen]
    named = list(getattr(estimator, "feature_names_in_", []))
    listed = [chosen] if isinstance(chosen, (str, int)) else list(chosen)
    if listed and isinstance(listed[0], (bool, np.bool_)):
        return [i for i, wanted in enumerate(listed) if wanted]
    return [named.index(c) if isinstance(c, str) else int(c) for c in listed]


def _read_fitted_values(part: Any, count: int) -> list[Array] | None:
    """Return typical values of the columns from the fitted attributes of a single part."""
    categories = getattr(part, "categories_", None)
    if categories is not None:
        return [np.asarray(c, np.float64) for c in categories]
    for middle, spread in (("mean_", "scale_"), ("center_", "scale_")):
        m, s = getattr(part, middle, None), getattr(part, spread, None)
        if m is not None and s is not None:
            return [np.array([a - b, a, a + b], np.float64) for a, b in zip(m, s, strict=True)]
    low, high = getattr(part, "data_min_", None), getattr(part, "data_max_", None)
    if low is not None and high is not None:
        return [np.linspace(a, b + 1e-3, 5) for a, b in zip(low, high, strict=True)]
    statistics = getattr(part, "statistics_", None)
    if statistics is not None:
        return [np.array([v], np.float64) for v in statistics]
    return _collect_thresholds(part, count)


def _collect_thresholds(part: Any, count: int) -> list[Array] | None:
    """Return the thresholds at which trees split each column."""
    by_column: list[list[float]] = [[] for _ in range(count)]
    for tree in iter_parts(part):
        for features, thresholds in _iter_splits(tree):
            for feature, threshold in zip(features, thresholds, strict=True):
                by_column[feature].append(float(threshold))
    if not any(by_column):
        return None
    return [np.array(values or [0.0]) for values in by_column]


def _iter_splits(part: Any) -> Iterator[tuple[Array, Array]]:
    tree = getattr(part, "tree_", None)
    if tree is not None:
        inner = tree.feature >= 0
        yield tree.feature[inner], tree.threshold[inner]
    for predictors in getattr(part, "_predictors", []):  # histogram gradient boosting
        for predictor in predictors:
            nodes = predictor.nodes[~predictor.nodes["is_leaf"].astype(bool)]
            finite = np.isfinite(nodes["num_threshold"])
            yield nodes["feature_idx"][finite], nodes["num_threshold"][finite]
