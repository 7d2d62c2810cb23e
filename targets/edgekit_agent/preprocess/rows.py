"""Rows of fields, as of a form or of a line of a table, as values of a model's input."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Mapping, Sequence, Tuple, Union

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Tensor

_MOST_NAMED = 12
# A number as people write it; ``float`` would take 1_000, too.
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_MOST_DIGITS = 40


def read_fields(row: Mapping[str, Any], fields: Sequence[str]) -> Tuple[float, ...]:
    """Return the numbers of a row in the order of the fields.

    Raises:
        AgentError: ``bad_sample``: a field is missing, unknown or no number.
    """
    unknown = [name for name in row if name not in fields]
    missing = [name for name in fields if name not in row]
    if unknown or missing:
        told = f"there is no field {unknown[0]!r:.60}" if unknown else f"{missing[0]} is missing"
        more = ", ..." if len(fields) > _MOST_NAMED else ""
        raise AgentError(
            "bad_sample",
            f"the row: {told}",
            hint=f"its fields are {', '.join(fields[:_MOST_NAMED])}{more}",
        )
    return tuple(read_number(row[name], name) for name in fields)


def read_number(value: Any, name: str) -> float:  # noqa: ANN401 - any JSON value
    """Return a number, which may be written as text.

    Raises:
        AgentError: ``bad_sample``: it is none, or not finite; true and false are none either.
    """
    check_not_bool(value, name)
    number = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) or (
        isinstance(value, str) and len(value) <= _MOST_DIGITS and _NUMBER.fullmatch(value)
    ):
        number = float(value)
    if not math.isfinite(number):
        told = "is empty" if value is None or value == "" else f"is not a number: {value!r:.40}"
        raise AgentError("bad_sample", f"{name} {told}", hint="give a finite number")
    return number


def check_not_bool(value: object, name: str) -> None:
    """Check that a value is not true or false, which a number would stand for by chance.

    Raises:
        AgentError: ``bad_sample``.
    """
    if isinstance(value, (bool, np.bool_)):
        raise AgentError(
            "bad_sample",
            f"{name} is {str(value).lower()}, not a number",
            hint="give the number that the model was trained with, such as 1 or 0",
        )


def read_values(values: Any, name: str, *, is_bool: bool = False) -> NDArray[Any]:  # noqa: ANN401 - any JSON value
    """Return numbers, lists of numbers and so on as an array.

    Args:
        values: the numbers.
        name: what they are, for messages.
        is_bool: whether lists may hold true and false.

    Raises:
        AgentError: ``bad_sample``: they are no numbers, of different lengths, or not finite.
    """
    if not is_bool:
        _check_no_bool(values, name)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise AgentError("bad_sample", f"{name}: not an array of numbers") from error
    if array.dtype.kind not in "biuf" or not array.size:
        raise AgentError("bad_sample", f"{name}: not an array of numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise AgentError("bad_sample", f"{name}: has a value that is not finite")
    return array


def _check_no_bool(values: object, name: str) -> None:
    """Check that nested lists hold no true and no false, which numpy takes for 1 and 0."""
    left = [values]
    while left:
        each = left.pop()
        if isinstance(each, (list, tuple)):
            left.extend(each)
        else:
            check_not_bool(each, name)


def shape_numbers(numbers: Union[Sequence[float], NDArray[Any]], tensor: Tensor, axis: int) -> Any:  # noqa: ANN401 - an array
    """Return numbers in the type of an input, and in the shape of its row if that is fixed.

    Args:
        numbers: the numbers of a row in their order.
        tensor: the input.
        axis: axis of the samples; -1 = there is none.

    Raises:
        AgentError: ``bad_sample``: there are more or fewer than the input takes, or one changes
            when it is converted.
    """
    array = np.asarray(numbers, np.float64)
    sizes = [size for place, size in enumerate(tensor.shape) if place != axis]
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) == len(sizes):
        if math.prod(fixed) != array.size:
            raise AgentError(
                "bad_sample",
                f"the row has {array.size} numbers, but the model takes {math.prod(fixed)}",
            )
        array = array.reshape(fixed)
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        good = np.isfinite(cast)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = array.astype(dtype)
        good = cast == array
    if not good.all():
        wrong = array.reshape(-1)[int(np.argmin(good.reshape(-1)))]
        raise AgentError(
            "bad_sample", f"{wrong:g} is not a value of {tensor.dtype}, the type of {tensor.name}"
        )
    return cast
