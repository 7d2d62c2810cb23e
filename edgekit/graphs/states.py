"""States of a graph: inputs that take an output of the run before, recorded in the file."""

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
    """An input that is fed back.

    Args:
        input: its name.
        output: what it takes after each run.
        initial: what it is before the first.
    """

    input: str
    output: str
    initial: NDArray[np.generic]


def record_states(proto: ModelProto, states: Sequence[State]) -> None:
    """Write states into the metadata of a model, in place."""
    told = [
        {
            "input": state.input,
            "output": state.output,
            "dtype": state.initial.dtype.name,
            "shape": list(state.initial.shape),
            "initial": _packed(state.initial),
        }
        for state in states
    ]
    proto.metadata_props.add(key=_KEY, value=json.dumps(told, sort_keys=True))


def states_of(proto: ModelProto) -> tuple[State, ...]:
    """Read the states that a model's metadata tell; none where they are not understood."""
    for entry in proto.metadata_props:
        if entry.key == _KEY:
            try:
                return tuple(_state(each) for each in json.loads(entry.value))
            except (KeyError, TypeError, ValueError):
                return ()
    return ()


def _packed(array: NDArray[np.generic]) -> str:
    """The bytes of an array as text; empty for zeros."""
    return base64.b64encode(array.tobytes()).decode() if array.any() else ""


def _state(told: dict[str, object]) -> State:
    shape = [int(size) for size in list(told["shape"])]  # type: ignore[call-overload]
    array: NDArray[np.generic] = np.zeros(shape, str(told["dtype"]))
    if raw := str(told["initial"]):
        array = np.frombuffer(base64.b64decode(raw), array.dtype).reshape(shape)
    return State(input=str(told["input"]), output=str(told["output"]), initial=array)
