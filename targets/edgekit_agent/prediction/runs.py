"""Runs of a model on one sample: constants, states, batches of a fixed size. Needs numpy."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any, Dict, Mapping, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import (
    Batch,
    find_fixed_batch,
    get_next_state,
    stack_rows,
)
from edgekit_agent.measure.health import read_golden_arrays
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.samples import Column, State
from edgekit_agent.worker_jobs import ModelRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.model_settings import ModelSettings
    from edgekit_agent.preprocess.settings import StoredArray
    from edgekit_agent.runtimes import Arrays, LoadedModel, Tensor


class ModelRunner:
    """A loaded model that runs one sample at a time.

    Args:
        folder: folder of the model.
        settings: its settings.
        threads: threads of the runtime.
    """

    def __init__(self, folder: str, settings: ModelSettings, threads: int) -> None:
        self._settings = settings
        path = os.path.join(folder, settings.model)
        self.model: LoadedModel = load_model(ModelRef(path, settings.runtime, threads)).model
        self.tensors: Dict[str, Tensor] = {tensor.name: tensor for tensor in self.model.inputs}
        self._check_names()
        feeding = settings.feeding
        axes, states = feeding.axes or {}, {each.name: each for each in feeding.states}
        fed = [tensor.name for tensor in settings.sample_inputs]
        self.axes = {name: axes.get(name, _choose_axis(self.tensors[name])) for name in fed}
        state_axes = {name: state.axis for name, state in states.items()}
        self.batch = find_fixed_batch({**self.axes, **state_axes}, self.model.inputs) or 1
        self._constants = {
            each.name: self._read_constant(folder, each.name, each.value)
            for each in feeding.constants
        }
        self._states = tuple(
            State(each.output, Column(each.name, "", 0, each.initial.dtype, (1,), each.axis))
            for each in feeding.states
        )
        self._initial = {
            each.name: stack_rows(
                decode_array(each.initial)[np.newaxis],
                self.tensors[each.name],
                None,
                each.axis,
                self.batch,
            )
            for each in feeding.states
        }

    @property
    def sample_tensors(self) -> Dict[str, Tensor]:
        """Return the inputs that samples feed, by name."""
        return {name: self.tensors[name] for name in self.axes}

    def start(self) -> Dict[str, NDArray[Any]]:
        """Return the states before the first step of a stream."""
        return dict(self._initial)

    def stack(self, rows: Arrays) -> Arrays:
        """Return the inputs of the model for the rows of a sample, normalized.

        Raises:
            AgentError: ``bad_sample``: a row does not fit its input.
        """
        try:
            return {
                name: stack_rows(
                    row[np.newaxis],
                    self.tensors[name],
                    self._settings.preprocess,
                    self.axes[name],
                    self.batch,
                )
                for name, row in rows.items()
            }
        except AgentError as error:
            failure = error.failure
            hint = "" if self._settings.preprocess else failure.hint
            raise AgentError("bad_sample", failure.message, hint=hint) from error

    def run(
        self, inputs: Arrays, states: Mapping[str, NDArray[Any]]
    ) -> Tuple[Batch, Arrays, Dict[str, NDArray[Any]]]:
        """Run the model once; return the batch, the outputs, and the states after it.

        Raises:
            AgentError: ``model_failed``.
        """
        fed = {**inputs, **self._constants, **states}
        outputs = self.model.run(fed)
        following = {
            state.initial.name: get_next_state(outputs, state, self.tensors[state.initial.name])
            for state in self._states
        }
        return Batch(0, 1, inputs, {}, self.batch), dict(outputs), following

    def _check_names(self) -> None:
        have, want = set(self.tensors), {tensor.name for tensor in self._settings.inputs}
        if have != want:
            names = ", ".join(sorted(have ^ want))
            raise AgentError(
                "bad_bundle",
                f"{self._settings.model} belongs to another manifest: {names}",
                hint="build it again",
            )

    def _read_constant(self, folder: str, name: str, stored: StoredArray) -> NDArray[Any]:
        value = decode_array(stored) if stored.data or 0 in stored.shape else None
        if value is None:  # too large for the manifest
            path = os.path.join(folder, self._settings.golden_samples)
            found = read_golden_arrays(path).get(f"constant:{name}")
            if found is None:
                raise AgentError("bad_bundle", f"{path}: the constant {name} is missing")
            value = np.asarray(found[0])
        return stack_rows(value[np.newaxis], self.tensors[name], None, -1, 1)


def decode_array(stored: StoredArray) -> NDArray[Any]:
    """Return an array that is stored as text.

    Raises:
        AgentError: ``bad_bundle``: its bytes do not fit its shape.
    """
    dtype = np.dtype(stored.dtype).newbyteorder("<")
    try:
        flat = np.frombuffer(base64.b64decode(stored.data, validate=True), dtype)
        full = flat if flat.size != 1 else np.broadcast_to(flat.reshape(()), stored.shape)
        values: NDArray[Any] = np.array(full.reshape(stored.shape), np.dtype(stored.dtype))
    except ValueError as error:
        raise AgentError(
            "bad_bundle", f"the manifest has a damaged array: {error}", hint="build it again"
        ) from error
    return values


def _choose_axis(tensor: Tensor) -> int:
    return 0 if tensor.shape else -1
