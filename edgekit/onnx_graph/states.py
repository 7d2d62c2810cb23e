"""States of a streaming model, recorded in the ONNX metadata."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

_KEY = "edgekit.states"


@dataclass(frozen=True, kw_only=True)
class State:
    """Recurrent state: an input that receives an output of the previous run.

    Args:
        input: name of the input.
        output: name of the output that feeds it in the next run.
        initial: value of the input in the first run.
    """

    input: str
    output: str
    initial: NDArray[np.generic]


def record_states(proto: ModelProto, states: Sequence[State]) -> None:
    """Write states into the metadata of a model, in place."""
    record = [
        {
            "input": state.input,
            "output": state.output,
            "dtype": state.initial.dtype.name,
            "shape": list(state.initial.shape),
            "initial": _encode_array(state.initial),
        }
        for state in states
    ]
    proto.metadata_props.add(key=_KEY, value=json.dumps(record, sort_keys=True))


def read_states(proto: ModelProto) -> tuple[State, ...]:
    """Read the states from the metadata of a model.

    Returns:
        The states; empty if there is no record or the record is malformed.
    """
    for entry in proto.metadata_props:
        if entry.key == _KEY:
            try:
                return tuple(_decode_state(record) for record in json.loads(entry.value))
            except (KeyError, TypeError, ValueError):
                return ()
    return ()


def _encode_array(array: NDArray[np.generic]) -> str:
    """Encode the bytes of an array as base64; an array of zeros becomes an empty string."""
    return base64.b64encode(array.tobytes()).decode() if array.any() else ""


def _decode_state(record: dict[str, object]) -> State:
    shape = [int(size) for size in list(record["shape"])]  # type: ignore[call-overload]
    array: NDArray[np.generic] = np.zeros(shape, str(record["dtype"]))
    if raw := str(record["initial"]):
        array = np.frombuffer(base64.b64decode(raw), array.dtype).reshape(shape)
    return State(input=str(record["input"]), output=str(record["output"]), initial=array)
