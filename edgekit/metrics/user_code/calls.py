"""Function or class of the user that computes a metric, called with outputs and targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.config.entry_points import build_user_code_error, search_modules_in
from edgekit.config.user_modules import read_code
from edgekit.errors import UserError
from edgekit_agent.scoring import MetricCode

# Arrays of one sample, by name.
Sample = Mapping[str, NDArray[Any]]
# Arrays of several samples, by name; a list where their shapes differ.
Batch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class UserCode:
    """A function of outputs and targets, or a class with ``update`` and ``value``.

    Attributes:
        name: Its name, ``module:function``.
        folder: Folder of the project.
        value: The function or class.
        digest: Digest of the files that define it.
        files: These files.
        uses_targets: Whether its values depend on the targets.
    """

    name: str
    folder: Path
    value: Callable[..., Any]
    digest: str
    files: tuple[Path, ...] = ()
    uses_targets: bool = True

    @property
    def is_class(self) -> bool:
        """Return whether the value is known of all samples together alone."""
        return inspect.isclass(self.value)

    def read_files(self) -> MetricCode:
        """Read the files, so that the function can run on a device.

        Raises:
            UserError: It is a class, a file is not in the folder of the project, or they are too
                large.
        """
        if self.is_class:
            raise UserError(
                f"{self.name}: a class needs all samples, and runs on this machine alone",
                hint="remove [data] metric_on_device, or give a function",
            )
        return MetricCode(self.name, read_code(self.name, self.files, self.folder))

    def compute_values(
        self, outputs: Sequence[Sample], targets: Sequence[Sample], *, first: int = 0
    ) -> NDArray[np.float64]:
        """Call the function: compute one value for each sample.

        Args:
            outputs: Outputs of consecutive samples.
            targets: Targets of these samples.
            first: Number of the first of them, for messages.

        Raises:
            UserError: The function raises an error, or its answer is not one finite number for each
                sample.
        """
        answer = self.call(self.value, stack_samples(outputs), stack_samples(targets))
        return self._check_values(answer, len(outputs), first)

    def read_value(self, instance: Any) -> float:  # noqa: ANN401 - of the user's class
        """Return the value of an instance of the class.

        Raises:
            UserError: ``value`` raises an error, or does not return one finite number.
        """
        answer = self.call(instance.value)
        value = _to_numbers(answer)
        if value is None or value.size != 1 or not np.isfinite(value).all():
            raise UserError(
                f"{self.name}: value() returned {_describe(answer)} instead of a finite number"
            )
        return float(value.reshape(-1)[0])

    def call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        """Call a function of the user.

        Raises:
            UserError: It raises an error.
        """
        try:
            with search_modules_in(self.folder.resolve()):
                return function(*args)
        except (Exception, SystemExit) as error:
            found = build_user_code_error(self.name, self.folder, error)
            found.hint = found.hint or _list_arrays(args)
            raise found from error

    def _check_values(self, answer: object, n: int, first: int) -> NDArray[np.float64]:
        values = _to_numbers(answer)
        if values is None or values.shape != (n,):
            raise UserError(
                f"{self.name}: returned {_describe(answer)} instead of one number for each of the "
                f"{n} samples that it got",
                hint="the first axis of each array is that of the samples: take the mean over the "
                f"other axes, and return an array of shape ({n},)",
            )
        finite = np.isfinite(values)
        if not finite.all():
            place = int(np.argmin(finite))
            raise UserError(
                f"{self.name}: returned {values[place]} for sample {first + place}; a finite "
                "number is needed for each sample"
            )
        return values


def stack_samples(samples: Sequence[Sample]) -> Batch:
    """Stack the arrays of samples along a first axis; those of different shapes become a list."""
    found: Batch = {}
    for name in samples[0] if samples else ():
        arrays = [np.asarray(sample[name]) for sample in samples]
        is_equal = all(array.shape == arrays[0].shape for array in arrays)
        found[name] = np.stack(arrays) if is_equal else arrays
    return found


def _list_arrays(args: Sequence[object]) -> str:
    """Return the names of the arrays that the user's code got, if it got any."""
    named = zip(("outputs", "targets"), args[-2:], strict=False)
    given = [(what, names) for what, names in named if isinstance(names, dict)]
    return "; ".join(f"{what}: {', '.join(map(str, names))}" for what, names in given)


def _to_numbers(answer: object) -> NDArray[np.float64] | None:
    """Return an answer as numbers; ``None`` if it is something else."""
    try:
        values = np.asarray(answer)
    except Exception:  # noqa: BLE001 - objects of other libraries raise anything
        return None
    return values.astype(np.float64) if values.dtype.kind in "biuf" else None


def _describe(answer: object) -> str:
    values = _to_numbers(answer)
    if answer is None:
        return "None"
    if values is None:
        return f"an object of type {type(answer).__name__}"
    if values.ndim:
        return f"an array of shape {values.shape}"
    return f"{values.item():g}"
