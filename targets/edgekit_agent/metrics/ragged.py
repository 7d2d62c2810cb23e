"""Ragged arrays: rows that are padded to one size, each with the lengths of its sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

_LENGTH = "_length"


def get_length_name(name: str) -> str:
    """Return the name of the array that holds the lengths of a ragged one."""
    return name + _LENGTH


def cut_ragged(targets: Arrays) -> Dict[str, NDArray[Any]]:
    """Cut each target of one sample to its length, and drop the lengths.

    Args:
        targets: targets of one sample by name. ``NAME_length`` is the length of ``NAME`` along its
            first axis, or the lengths along its first axes, if there is such a target, else a
            target of its own.

    Raises:
        AgentError: ``bad_job``; a length is not an integer from 0 to the size of its target.
    """
    lengths = {
        name: targets[get_length_name(name)] for name in targets if get_length_name(name) in targets
    }
    dropped = {get_length_name(name) for name in lengths}
    return {
        name: cut_padding(name, value, lengths[name]) if name in lengths else value
        for name, value in targets.items()
        if name not in dropped
    }


def cut_padding(
    name: str, value: NDArray[Any], lengths: NDArray[Any], *, least: int = 0
) -> NDArray[Any]:
    """Cut a padded array to its lengths.

    Args:
        name: name of the array, for messages.
        value: the array.
        lengths: its length along the first axis, or its lengths along several first axes.
        least: smallest length.

    Raises:
        AgentError: ``bad_job``; a length is not an integer from ``least`` to the size of the array.
    """
    flat = lengths.reshape(-1)
    sizes = value.shape[: flat.size]
    are_valid = flat.dtype.kind in "iu" and 0 < flat.size == len(sizes)
    if not are_valid or not all(least <= int(n) <= size for n, size in zip(flat, sizes)):
        wanted = " and ".join(f"one integer from {least} to {size}" for size in sizes or (0,))
        raise AgentError(
            "bad_job", f"{get_length_name(name)}: must be {wanted}, the size of {name}"
        )
    return value[tuple(slice(int(n)) for n in flat)]
