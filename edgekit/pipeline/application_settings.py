"""Settings of a bundle by which an application feeds the model and reads its answers."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bounded_reading import read_regular
from edgekit.bundle.manifest import TOKENIZER
from edgekit.data.column_rows import read_column
from edgekit.data.text_lines import MOST_TOKENIZER_BYTES
from edgekit.errors import UserError, reason
from edgekit.pipeline.request import BuildInputs
from edgekit_agent.preprocess.settings import (
    ConstantInput,
    InputSettings,
    StateInput,
    StoredArray,
)
from edgekit_agent.samples import Column

# Classes with larger numbers have no names in the manifest.
_MOST_CLASSES = 1 << 16
_IMAGE_AXES = 4
# Larger constants are in the golden samples alone.
_MOST_STORED_BYTES = 1 << 22


def describe_application(inputs: BuildInputs) -> dict[str, Any]:
    """Return the fields of the manifest from ``class_names`` on.

    A model that is combined with others has no answer of its own.
    """
    reading = inputs.model_samples.reading
    return {
        "class_names": list_class_names({} if inputs.part else inputs.class_names),
        "audio": reading.audio,
        "text": reading.text,
        "fields": reading.fields,
        "takes_images": _takes_images(inputs),
        "input_settings": describe_feeding(inputs),
        "answer": inputs.answer,
    }


def _takes_images(inputs: BuildInputs) -> bool:
    """Return whether an input takes images: bytes of pixels, or numbers that are normalized."""
    columns = inputs.model_samples.samples.columns
    shapes = [column.shape[1:] for column in columns if len(column.shape) == _IMAGE_AXES]
    if len(shapes) != 1 or shapes[0][-1] not in (1, 3):
        return False
    is_bytes = any(c.dtype == "uint8" and c.shape[1:] == shapes[0] for c in columns)
    return is_bytes or inputs.project.data.preprocess is not None


def read_tokenizer(inputs: BuildInputs) -> dict[str, bytes]:
    """Return the file of the tokenizer by its name in the bundle, if the samples are texts.

    Raises:
        UserError: It cannot be read any more.
    """
    place = inputs.model_samples.reading.tokenizer
    if place is None:
        return {}
    try:
        return {TOKENIZER: read_regular(place, MOST_TOKENIZER_BYTES)}
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: cannot be read: {reason(error)}") from error


def list_class_names(names: Mapping[int, str]) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers, empty where there is none."""
    known = {number: name for number, name in names.items() if 0 <= number < _MOST_CLASSES}
    return tuple(known.get(number, "") for number in range(max(known, default=-1) + 1))


def describe_feeding(inputs: BuildInputs) -> InputSettings:
    """Return the axes of the samples, the constants and the states of the model's inputs."""
    samples, states = inputs.model_samples.samples, inputs.feeding.states
    carried = {state.initial.name: state for state in samples.states}
    axes = {c.name: c.axis for c in samples.columns if c.name not in states}
    return InputSettings(
        axes=axes,
        constants=tuple(ConstantInput(c.name, _store(_read_whole(c))) for c in samples.constants),
        states=tuple(
            StateInput(
                name,
                state.output,
                carried[name].initial.axis
                if name in carried
                else next((c.axis for c in samples.columns if c.name == name), 0),
                _store(state.initial),
            )
            for name, state in states.items()
        ),
    )


def _read_whole(column: Column) -> NDArray[Any]:
    """Read an array that is no row of samples."""
    count = math.prod(column.shape)
    flat = read_column(Column(column.name, column.path, column.offset, column.dtype, (count,)))
    return flat.reshape(column.shape)


def _store(value: NDArray[Any]) -> StoredArray:
    """Return an array as text; of equal values, one alone, and nothing of a large array."""
    flat = np.ascontiguousarray(value).reshape(-1)
    if flat.size and (flat == flat[0]).all():
        flat = flat[:1]
    if flat.nbytes > _MOST_STORED_BYTES:
        flat = flat[:0]
    data = base64.b64encode(flat.astype(flat.dtype.newbyteorder("<")).tobytes()).decode()
    return StoredArray(value.dtype.name, value.shape, data)
