"""Conversion of scikit-learn estimators and pipelines to ONNX with skl2onnx."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skl2onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from skl2onnx.common import _container
from skl2onnx.common.data_types import FloatTensorType

from edgekit.conversion.importers.ml_ops import replace_ml_operators
from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.postprocess import standardize_graph
from edgekit.conversion.importers.registry import Arrays, Conversion
from edgekit.conversion.importers.sklearn_inputs import (
    build_table_sampler,
    iter_parts,
    selects_by_name,
    takes_text,
)
from edgekit.errors import UserError, first_line

_OPSETS = {"": 17, "ai.onnx.ml": 3}
# Tree thresholds are rounded from double to float, so a value in between takes the other branch.
_STRAY_OF_TREES = 0.01
_ROWS = (1, 3, 256)
_SCORES = ("probabilities", "scores")


def load(path: Path) -> object:
    """Load a pickle or joblib file; this runs code in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other versions: the comparison shows if they matter
        value: object = joblib.load(path)
    return value


def convert(model_object: ModelObject) -> Conversion:
    """Convert a fitted estimator with one float input ``x``, or one for each named column.

    A classifier has the output ``probabilities`` (``scores`` for decision functions) first, and
    ``label`` where its classes are numbers.

    Raises:
        UserError: The estimator is not fitted, takes text, or skl2onnx cannot convert it.
    """
    estimator: Any = model_object.value
    display_name = model_object.display_name
    count = getattr(estimator, "n_features_in_", None)
    if count is None:
        raise UserError(f"{display_name}: {type(estimator).__name__} is not fitted", hint="fit it")
    if takes_text(estimator):
        raise UserError(
            f"{display_name}: {type(estimator).__name__} has text columns; on a device, inputs "
            "must be numeric",
            hint="encode these columns first, and save the part of the pipeline after that",
        )
    names = _name_inputs(estimator)
    proto = _export_estimator(estimator, names, int(count), display_name)
    _sort_outputs(proto)
    proto = replace_ml_operators(proto)
    values = [v.name for v in proto.graph.output]
    draw = build_table_sampler(estimator, int(count))

    def reference(inputs: Arrays) -> Arrays:
        table = _build_table(estimator, inputs, names)
        return [_compute_output(estimator, name, table, width) for name, width in widths]

    widths = [(v.name, _read_width(v)) for v in proto.graph.output]
    return Conversion(
        proto=standardize_graph(proto, inputs=names, outputs=values),
        tool="skl2onnx",
        reference=reference,
        draw=(lambda rows: _split_columns(draw(rows), names)),
        rows=_ROWS,
        stray=_STRAY_OF_TREES if any(_is_tree(part) for part in iter_parts(estimator)) else 0.0,
        notes=tuple(_iter_notes(estimator, display_name)),
    )


def _name_inputs(estimator: Any) -> list[str]:
    if selects_by_name(estimator):
        return [str(name) for name in estimator.feature_names_in_]
    return ["x"]


def _export_estimator(
    estimator: Any, names: Sequence[str], count: int, display_name: str
) -> ModelProto:
    width = count if len(names) == 1 else 1
    types = [(name, FloatTensorType([None, width])) for name in names]
    _container.make_node = _build_node
    for part in iter_parts(estimator):
        if hasattr(part, "flatten_transform"):
            part.flatten_transform = False  # the only voting output that skl2onnx supports
    try:
        if not _is_classifier(estimator):
            return _convert_to_onnx(estimator, types, None)
        try:
            return _convert_to_onnx(estimator, types, {id(estimator): {"zipmap": False}})
        except NameError:  # a classifier without probabilities has another option
            return _convert_to_onnx(
                estimator, types, {id(_get_last_step(estimator)): {"raw_scores": True}}
            )
    except Exception as error:
        raise UserError(
            f"{display_name}: skl2onnx cannot convert it: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def _get_last_step(estimator: Any) -> Any:
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def _convert_to_onnx(estimator: Any, types: Any, options: Any) -> ModelProto:
    return skl2onnx.to_onnx(estimator, initial_types=types, options=options, target_opset=_OPSETS)


def _build_node(
    op_type: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    **attributes: Any,
) -> NodeProto:
    """Build a node with plain integer attributes.

    skl2onnx passes booleans for integers (histogram trees), which protobuf no longer accepts.
    """
    plain = {
        key: [int(v) for v in value]
        if isinstance(value, list) and any(isinstance(v, (bool, np.bool_)) for v in value)
        else value
        for key, value in attributes.items()
    }
    return helper.make_node(op_type, inputs, outputs, **plain)


def _sort_outputs(proto: ModelProto) -> None:
    """Sort scores before labels, as the first output is the one evaluated; drop labels of text."""
    outputs = [v for v in proto.graph.output if not _is_text(v)]
    outputs.sort(key=lambda v: v.name not in _SCORES)
    copies = [type(v).FromString(v.SerializeToString()) for v in outputs]
    del proto.graph.output[:]
    proto.graph.output.extend(copies)


def _is_text(value: Any) -> bool:
    return bool(value.type.tensor_type.elem_type == 8)  # STRING of ONNX


def _read_width(value: Any) -> int | None:
    dims = value.type.tensor_type.shape.dim
    return int(dims[1].dim_value) if len(dims) == 2 and dims[1].dim_value else None


def _build_table(estimator: Any, inputs: Arrays, names: Sequence[str]) -> Any:
    # In double precision, as in ordinary use of the estimator.
    values = np.concatenate([np.asarray(column, np.float64) for column in inputs], axis=1)
    columns = getattr(estimator, "feature_names_in_", None)
    if columns is None:
        return values
    import pandas as pd

    return pd.DataFrame(values, columns=list(columns))


def _split_columns(table: NDArray[np.float32], names: Sequence[str]) -> Arrays:
    if len(names) == 1:
        return [table]
    return [table[:, i : i + 1] for i in range(len(names))]


def _compute_output(estimator: Any, name: str, table: Any, width: int | None) -> NDArray[Any]:
    if name == "label":
        labels = np.asarray(estimator.predict(table))
        return labels if width is None else labels.reshape(-1, width)
    for method in _list_methods(name):
        if hasattr(estimator, method):
            return _to_columns(np.asarray(getattr(estimator, method)(table)), name)
    raise UserError(f"{type(estimator).__name__} has no method that computes {name}")


def _list_methods(name: str) -> tuple[str, ...]:
    if name in _SCORES:
        return ("predict_proba", "decision_function", "transform")
    return ("predict", "transform")


def _to_columns(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim > 1:
        return values
    # Two classes have one score in scikit-learn, and one for each class in ONNX.
    return np.stack([-values, values], axis=1) if name == _SCORES[0] else values.reshape(-1, 1)


def _is_classifier(estimator: Any) -> bool:
    return hasattr(estimator, "classes_")


def _is_tree(part: Any) -> bool:
    return hasattr(part, "tree_") or hasattr(part, "_predictors")


def _iter_notes(estimator: Any, display_name: str) -> Iterator[str]:
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, np.ndarray) and list(classes) != list(range(len(classes))):
        mapping = ", ".join(f"{i} = {c}" for i, c in enumerate(classes[:20]))
        yield (
            f"{display_name}: classes of the columns of the probabilities: {mapping}; use the "
            "column numbers as labels"
        )
