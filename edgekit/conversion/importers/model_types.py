"""Converters of model objects in memory by type, found without importing any library."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.conversion.importers.registry import Conversion
from edgekit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ModelObject:
    """An object that a function or a pickle gave, with the example inputs that came with it."""

    value: object
    example: object
    display_name: str


# Converter of objects by their class: top-level package and class name.
_CONVERTERS: dict[tuple[str, str], str] = {
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


def convert_object(model_object: ModelObject) -> Conversion:
    """Convert a model object to ONNX.

    Raises:
        UserError: The object is of no known type, or cannot be converted.
    """
    converter = _find_converter(model_object.value)
    if converter is None:
        raise UserError(
            f"{model_object.display_name}: returns "
            f"{_add_article(type(model_object.value).__name__)}, which is not a supported model",
            hint="return a torch module with its example input (return module, example_inputs), a "
            "Keras model, a tf.function or tf.Module, a scikit-learn estimator, or an "
            "onnx.ModelProto",
        )
    module, _, name = converter.partition(":")
    convert: Callable[[ModelObject], Conversion] = getattr(importlib.import_module(module), name)
    return convert(model_object)


def _find_converter(value: object) -> str | None:
    # In MRO order, as a Keras model is also a tf.Module.
    for cls in type(value).__mro__:
        converter = _CONVERTERS.get((cls.__module__.partition(".")[0], cls.__name__))
        if converter is not None:
            return converter
    return None


def _add_article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
