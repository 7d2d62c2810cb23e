"""Conversion of Keras models, of Keras 3 and of Keras 2 (tf_keras), to ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from edgekit.conversion.importers.example_inputs import flatten_examples
from edgekit.conversion.importers.keras_functions import convert_callable
from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.registry import Conversion
from edgekit.errors import UserError


def convert(model_object: ModelObject) -> Conversion:
    """Convert a model in inference mode; inputs and outputs are named after its layers.

    Raises:
        UserError: The inputs of the model are not known, or tf2onnx cannot convert it.
    """
    model: Any = model_object.value
    display_name = model_object.display_name
    names, arrays = flatten_examples(model_object.example, display_name=display_name)
    inputs = list(getattr(model, "inputs", None) or [])
    if not inputs:
        if not arrays:
            raise UserError(
                f"{display_name}: the inputs of {type(model).__name__} are unknown",
                hint="return it with example inputs: return model, example_inputs",
            )
        return _convert_with_examples(model, names, arrays, display_name=display_name)
    structure = getattr(model, "input", None)  # absent in Keras 3 before the first call
    specs = [tf.TensorSpec(t.shape, t.dtype) for t in inputs]
    order = [_read_name(t) for t in inputs]
    examples = (arrays,) if arrays and len(arrays) == len(inputs) else ()
    return convert_callable(
        lambda *tensors: model(_pack_inputs(structure, order, tensors), training=False),
        specs,
        inputs=order,
        outputs=_name_outputs(model),
        display_name=display_name,
        examples=examples,
        vocabulary=_find_vocabulary(model),
    )


def _convert_with_examples(
    model: Any,
    names: Sequence[str],
    arrays: Sequence[Any],
    *,
    display_name: str,
) -> Conversion:
    """Convert a subclassed model by calling it with example inputs."""
    specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays]

    def call(*tensors: Any) -> Any:
        if names[0]:
            return model(dict(zip(names, tensors, strict=True)), training=False)
        return model(tensors[0] if len(tensors) == 1 else list(tensors), training=False)

    results = call(*(tf.constant(a) for a in arrays))
    count = len(tf.nest.flatten(results))
    outputs = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    if isinstance(results, Mapping):
        outputs = sorted(str(k) for k in results)
    input_names = [n or ("x" if len(arrays) == 1 else f"x_{i}") for i, n in enumerate(names)]
    return convert_callable(
        call,
        specs,
        inputs=input_names,
        outputs=outputs,
        display_name=display_name,
        examples=(arrays,),
    )


def _pack_inputs(structure: Any, order: Sequence[str], tensors: Sequence[Any]) -> Any:
    """Pack tensors into the structure of inputs with which the model was built."""
    if isinstance(structure, Mapping):
        by_name = dict(zip(order, tensors, strict=True))
        return {key: by_name[_read_name(t)] for key, t in structure.items()}
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _read_name(tensor: Any) -> str:
    return str(tensor.name).partition(":")[0]


def _name_outputs(model: Any) -> list[str]:
    structure = getattr(model, "output", None)
    if isinstance(structure, Mapping):
        return sorted(str(k) for k in structure)
    output_names = getattr(model, "output_names", None)
    if output_names:  # Keras 2
        return [str(name) for name in output_names]
    return [_name_layer(t) for t in model.outputs]


def _name_layer(tensor: Any) -> str:
    history = tensor._keras_history
    return str(history[0].name)


def _find_vocabulary(model: Any) -> int:
    """Return the upper bound of integers that are valid for every embedding of the model."""
    sizes = [int(layer.input_dim) for layer in _iter_layers(model) if _is_embedding(layer)]
    return max(2, min(sizes, default=2))


def _is_embedding(layer: Any) -> bool:
    return type(layer).__name__ == "Embedding" and hasattr(layer, "input_dim")


def _iter_layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _iter_layers(layer)
