"""Several models that a function of the user combines, run as if they were one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.feeds import cast_values
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.runtimes import LoadedModel, Tensor
from edgekit_agent.samples import Samples
from edgekit_agent.user_modules import (
    describe_user_error,
    find_place,
    import_user_function,
)
from edgekit_agent.worker_jobs import Combination

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

# Models by name, and the arrays of one sample -> outputs of the sample.
RunFunction = Callable[[Mapping[str, "CallableModel"], Mapping[str, Any]], Any]
# Called with the inputs of each run of a model.
Listener = Callable[["Arrays"], None]


class CallableModel:
    """A model that code of the user calls with inputs by name, each with its batch axis."""

    def __init__(self, name: str, model: LoadedModel, listener: Optional[Listener] = None) -> None:
        self.name = name
        self.inputs = model.inputs
        self._model = model
        self._listener = listener

    def __call__(
        self,
        inputs: Optional[Mapping[str, Any]] = None,
        **named: Any,  # noqa: ANN401
    ) -> Arrays:
        """Run the model once.

        Args:
            inputs: an array for each input, by name.
            named: the same as keyword arguments.

        Returns:
            The outputs by name.

        Raises:
            AgentError: ``bad_job`` for inputs that do not fit; ``model_failed``.
        """
        given = {**(inputs or {}), **named}
        want = [tensor.name for tensor in self.inputs]
        if sorted(given) != sorted(want):
            raise AgentError(
                "bad_job",
                f"model {self.name} was called with the inputs "
                f"{', '.join(sorted(map(str, given))) or 'none'}, but it has {', '.join(want)}",
            )
        arrays = {
            tensor.name: cast_values(
                np.asarray(given[tensor.name]), np.dtype(tensor.dtype), tensor.name
            )
            for tensor in self.inputs
        }
        try:
            outputs = self._model.run(arrays)
        except AgentError as error:
            raise _name_error(error, f"model {self.name}") from error
        if self._listener is not None:
            self._listener(arrays)
        return outputs


class _ModelTable(Dict[str, CallableModel]):
    """Models by name, with a clear error for a name that there is not."""

    def __missing__(self, name: object) -> CallableModel:
        raise AgentError("bad_job", f"there is no model {name!r}, only {', '.join(self)}")


class CombinedModel:
    """Models and the function that combines them; see ``runtimes.LoadedModel``.

    A batch is one sample. The outputs are those that the function returns.
    """

    version = ""

    def __init__(
        self,
        entry: str,
        function: RunFunction,
        models: Mapping[str, CallableModel],
        inputs: Sequence[Tensor],
    ) -> None:
        self.inputs: Tuple[Tensor, ...] = tuple(inputs)
        self.outputs: Tuple[Tensor, ...] = ()  # known after a run
        self._entry, self._function, self._models = entry, function, models

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the function on one sample.

        Raises:
            AgentError: ``bad_job``; the function raises an error, or returns something else than
                arrays by name.
        """
        sample = {name: value[0] for name, value in inputs.items()}
        try:
            answer = self._function(_ModelTable(self._models), sample)
        except AgentError as error:
            raise _name_error(error, self._entry, find_place(error)) from error
        except (Exception, SystemExit) as error:
            raise AgentError("bad_job", f"{self._entry}: {describe_user_error(error)}") from error
        return {name: value[None] for name, value in self._check(answer).items()}

    def _check(self, answer: object) -> Arrays:
        if not isinstance(answer, Mapping) or not answer:
            raise AgentError(
                "bad_job",
                f"{self._entry}: returned an object of type {type(answer).__name__} instead of the "
                "outputs by name",
                hint='return a dictionary, such as {"scores": scores}',
            )
        found: Dict[str, NDArray[Any]] = {}
        for name, value in answer.items():
            array = _to_array(value)
            if not isinstance(name, str) or array is None:
                raise AgentError(
                    "bad_job", f"{self._entry}: output {name!r} is not an array of numbers"
                )
            found[name] = array
        return found


def load_combined_model(
    job: Combination,
    samples: Samples,
    listeners: Optional[Mapping[str, Listener]] = None,
) -> CombinedModel:
    """Load all models of a combination, and import the function that combines them.

    Args:
        job: the combination.
        samples: samples with a column for each array that the function gets.
        listeners: called with the inputs of each run of a model, by its name.

    Raises:
        AgentError: ``bad_job`` if there is no such function; errors of the runtimes.
    """
    listeners = listeners or {}
    function: RunFunction = import_user_function(job.run, folder=job.folder, files=job.files)
    models = {
        each.name: CallableModel(each.name, load_model(each.model).model, listeners.get(each.name))
        for each in job.models
    }
    types = {each.name: each.dtype for each in job.inputs}
    tensors = [
        Tensor(c.name, types.get(c.name, c.dtype), (1, *["?"] * (len(c.shape) - 1)))
        for c in samples.columns
    ]
    return CombinedModel(job.run, function, models, tensors)


def _name_error(error: AgentError, source: str, place: str = "") -> AgentError:
    """Return an error with its source in front of the message and a place behind it."""
    failure = error.failure
    return AgentError(failure.kind, f"{source}: {failure.message}{place}", hint=failure.hint)


def _to_array(value: object) -> Optional[NDArray[Any]]:
    """Return a value as an array of numbers; ``None`` if it is none."""
    try:
        array = np.asarray(value)
    except Exception:  # noqa: BLE001 - objects of other libraries raise anything
        return None
    return array if array.dtype.kind in "biuf" else None
