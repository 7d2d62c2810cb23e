"""Converters of model objects in memory by type, found without importing any library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.conversion.importers.registry import Conversion
from edgekit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """An object that a function or a pickle gave, with the example inputs that came with it."""

    value: object
    example: object
    given: str


# Converter of objects by their class: top-level package and class name.
_KINDS: dict[tuple[str, str], str] = {
    ("torch", "Module"): "edgekit.conversion.importers.torch_modules:convert",
    ("torch", "ExportedProgram"): "edgekit.conversion.importers.torch_files:convert_exported",
    ("keras", "Model"): "edgekit.conversion.importers.keras_models:convert",
    ("tf_keras", "Model"): "edgekit.conversion.importers.keras_models:convert",
    ("tensorflow", "Function"): "edgekit.conversion.importers.keras_functions:convert",
    ("tensorflow", "ConcreteFunction"): "edgekit.conversion.importers.keras_functions:convert",
    ("tensorflow", "Module"): "edgekit.conversion.importers.keras_functions:convert_module",
    ("tensorflow", "AutoTrackable"): "edgekit.conversion.importers.keras_functions:convert_module",
    ("sklearn", "BaseEstimator"): "edgekit.conversion.importers.sklearn_estimators:convert",
    ("onnx", "ModelProto"): "edgekit.conversion.importers.onnx_proto:convert",
}


def is_model(value: object) -> bool:
    """Return whether an object is a model of a known tool."""
    return _find_converter(value) is not None


def convert_object(found: FoundModel) -> Conversion:
    """Convert a model object to ONNX.

    Raises:
        UserError: The object is of no known type, or cannot be converted.
    """
    where = _find_converter(found.value)
    if where is None:
        raise UserError(
            f"{found.given}: returns {_add_article(type(found.value).__name__)}, which is not a "
            "supported model",
            hint="return a torch module with its example input (return module, example_inputs), a "
            "Keras model, a tf.function or tf.Module, a scikit-learn estimator, or an "
            "onnx.ModelProto",
        )
    module, _, name = where.partition(":")
    convert: Callable[[FoundModel], Conversion] = getattr(importlib.import_module(module), name)
    return convert(found)


def _find_converter(value: object) -> str | None:
    # In MRO order, as a Keras model is also a tf.Module.
    for cls in type(value).__mro__:
        where = _KINDS.get((cls.__module__.partition(".")[0], cls.__name__))
        if where is not None:
            return where
    return None


def _add_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
