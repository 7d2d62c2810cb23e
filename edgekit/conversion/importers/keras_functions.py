"""Conversion of TensorFlow functions and modules to ONNX with tf2onnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx
from onnx import ModelProto, ValueInfoProto, numpy_helper

from edgekit.conversion.importers.example_inputs import build_sampler, flatten_examples
from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.postprocess import standardize_graph
from edgekit.conversion.importers.registry import Arrays, Conversion
from edgekit.errors import UserError, first_line

OPSET = 17
_SIGNATURE_HINT = (
    "give it an input_signature (tf.function(input_signature=[tf.TensorSpec([None, ...])])), or "
    "return it with example inputs"
)


def convert(model_object: ModelObject) -> Conversion:
    """Convert a tf.function.

    Raises:
        UserError: The function has no signature and no example inputs, or cannot be converted.
    """
    function: Any = model_object.value
    if isinstance(function, tf.types.experimental.ConcreteFunction):
        return convert_concrete(function, display_name=model_object.display_name)
    names, arrays = flatten_examples(model_object.example, display_name=model_object.display_name)
    if function.input_signature is None and not arrays:
        raise UserError(
            f"{model_object.display_name}: the inputs of the tf.function are unknown",
            hint=_SIGNATURE_HINT,
        )
    try:
        concrete = _trace_function(function, names, arrays)
    except Exception as error:
        raise UserError(
            f"{model_object.display_name}: cannot be traced: {first_line(error)}"
        ) from error
    examples = (arrays,) if arrays else ()
    return convert_concrete(concrete, display_name=model_object.display_name, examples=examples)


def convert_module(model_object: ModelObject) -> Conversion:
    """Convert a tf.Module: its signature, else its ``__call__`` where that is a tf.function.

    Raises:
        UserError: The module has neither.
    """
    module: Any = model_object.value
    signatures = getattr(module, "signatures", None)
    if signatures:
        return convert_concrete(
            choose_signature(signatures, "", display_name=model_object.display_name),
            display_name=model_object.display_name,
        )
    # callable() would not show whether it is a tf.function.
    function = getattr(module, "__call__", None)  # noqa: B004
    if function is None or not hasattr(function, "get_concrete_function"):
        raise UserError(
            f"{model_object.display_name}: the __call__ of {type(module).__name__} is not a "
            "tf.function",
            hint="decorate __call__ with @tf.function(input_signature=[...])",
        )
    return convert(
        ModelObject(
            value=function, example=model_object.example, display_name=model_object.display_name
        )
    )


def choose_signature(signatures: Mapping[str, Any], name: str, *, display_name: str) -> Any:
    """Return the signature of a name; without a name ``serving_default``, or the only one.

    Raises:
        UserError: There is none, or there are several and none is named.
    """
    available = ", ".join(sorted(signatures)) or "none"
    if name:
        if name not in signatures:
            raise UserError(
                f"{display_name}: no signature {name!r}", hint=f"its signatures: {available}"
            )
        return signatures[name]
    if "serving_default" in signatures:
        return signatures["serving_default"]
    if len(signatures) == 1:
        return next(iter(signatures.values()))
    if not signatures:
        raise UserError(
            f"{display_name}: the model has no signatures",
            hint="save it with signatures=, or model.export()",
        )
    first = min(signatures)
    raise UserError(
        f"{display_name}: the model has several signatures: {available}",
        hint=f"choose one, such as '{display_name}#{first}'",
    )


def convert_concrete(
    function: Any,
    *,
    display_name: str,
    examples: tuple[Arrays, ...] = (),
    keep: object = None,
) -> Conversion:
    """Convert a concrete function; the graph's inputs are named after its arguments.

    Args:
        function: A tf.types.experimental.ConcreteFunction.
        display_name: Name of the source, for messages.
        examples: Inputs to compare on.
        keep: Owner of the function's variables, which must live as long as the function.
    """
    positional, keywords = function.structured_input_signature
    specs = [s for s in tf.nest.flatten(positional) if isinstance(s, tf.TensorSpec)]
    named = {k: s for k, s in keywords.items() if isinstance(s, tf.TensorSpec)}
    names = [_name_argument(spec, i) for i, spec in enumerate(specs)] + list(named)

    def call(*tensors: Any, _keep: object = keep) -> Any:
        inputs = dict(zip(named, tensors[len(specs) :], strict=True))
        packed = tf.nest.pack_sequence_as(positional, list(tensors[: len(specs)]))
        return function(*packed, **inputs)

    outputs = _name_outputs(function.structured_outputs)
    return convert_callable(
        call,
        [*specs, *named.values()],
        inputs=names,
        outputs=outputs,
        display_name=display_name,
        examples=examples,
    )


def convert_callable(
    function: Callable[..., Any],
    specs: Sequence[Any],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    display_name: str,
    examples: tuple[Arrays, ...] = (),
    vocabulary: int = 2,
) -> Conversion:
    """Convert a callable on tensors.

    Args:
        function: Takes a tensor for each of ``specs`` and returns a structure of tensors.
        specs: Shapes and types of the inputs.
        inputs: Names for the inputs.
        outputs: Names for the outputs, in the order of the flattened structure.
        display_name: Name of the source, for messages.
        examples: Inputs to compare on.
        vocabulary: Upper bound (exclusive) of random integers.

    Raises:
        UserError: An input is not numeric, or tf2onnx cannot convert the function.
    """
    _check_numeric(specs, inputs, display_name)

    def flat(*tensors: Any) -> list[Any]:
        return [tf.convert_to_tensor(t) for t in tf.nest.flatten(function(*tensors))]

    plain = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{i}") for i, spec in enumerate(specs)
    ]
    traced = tf.function(flat, input_signature=plain, autograph=False)
    try:
        concrete = traced.get_concrete_function()
        proto, _ = tf2onnx.convert.from_function(traced, input_signature=plain, opset=OPSET)
    except Exception as error:
        raise UserError(
            f"{display_name}: tf2onnx cannot convert it: {_format_error(error)}"
        ) from error
    kept_inputs = _sort_inputs(proto, concrete)
    unused = [name for i, name in enumerate(inputs) if i not in kept_inputs]

    def reference(arrays: Arrays) -> Arrays:
        filled = iter(arrays)
        tensors = [
            tf.constant(next(filled), spec.dtype) if i in kept_inputs else _build_zeros(spec)
            for i, spec in enumerate(plain)
        ]
        return [t.numpy() for t in concrete(*tensors)]

    notes = (
        (f"{display_name}: no output depends on the input {', '.join(unused)}",) if unused else ()
    )
    used_examples = tuple(
        [a for i, a in enumerate(example) if i in kept_inputs] for example in examples
    )
    return Conversion(
        proto=standardize_graph(proto, inputs=[inputs[i] for i in kept_inputs], outputs=outputs),
        tool="tf2onnx",
        reference=reference,
        examples=used_examples,
        draw=build_sampler(used_examples[0]) if used_examples else None,
        vocabulary=vocabulary,
        notes=notes,
    )


def _sort_inputs(proto: ModelProto, concrete: Any) -> list[int]:
    """Sort the graph's inputs in the order of the arguments; return the arguments that it uses.

    tf2onnx turns constants captured by a function into inputs; they become initializers.
    """
    values = {value.name.partition(":")[0]: value for value in proto.graph.input}
    caught = {placed.op.name: eager for eager, placed in concrete.graph.captures}
    count = len(concrete.inputs) - len(caught)
    kept_inputs = [i for i in range(count) if f"input_{i}" in values]
    for name in values.keys() & caught.keys():
        array = caught[name].numpy()
        proto.graph.initializer.append(numpy_helper.from_array(array, values[name].name))
    ranked = [values[f"input_{i}"].SerializeToString() for i in kept_inputs]
    del proto.graph.input[:]
    proto.graph.input.extend(ValueInfoProto.FromString(serialized) for serialized in ranked)
    return kept_inputs


def _trace_function(function: Any, names: Sequence[str], arrays: Arrays) -> Any:
    if not arrays:
        return function.get_concrete_function()
    specs = [tf.TensorSpec([None, *np.shape(a)[1:]], np.asarray(a).dtype) for a in arrays]
    if names and names[0]:
        return function.get_concrete_function(**dict(zip(names, specs, strict=True)))
    return function.get_concrete_function(*specs)


def _build_zeros(spec: Any) -> Any:
    return tf.zeros([d or 1 for d in spec.shape], spec.dtype)


def _name_argument(spec: Any, i: int) -> str:
    return str(spec.name or f"input_{i}").partition(":")[0]


def _name_outputs(structure: Any) -> list[str]:
    if isinstance(structure, Mapping):
        return sorted(str(k) for k in structure)  # as tf.nest flattens it
    count = len(tf.nest.flatten(structure))
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _check_numeric(specs: Sequence[Any], names: Sequence[str], display_name: str) -> None:
    for spec, name in zip(specs, names, strict=True):
        if spec.dtype == tf.string:
            raise UserError(
                f"{display_name}: the input {name} is text; on a device, inputs must be numeric",
                hint="export the part of the model after the text processing",
            )
        if spec.shape.rank is None:
            raise UserError(
                f"{display_name}: the shape of the input {name} is unknown", hint=_SIGNATURE_HINT
            )


def _format_error(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
