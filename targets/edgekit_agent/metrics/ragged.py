"""Ragged targets: arrays that are padded to one size, each with the length of its sample."""

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
            first axis if there is such a target, else a target of its own.

    Raises:
        AgentError: ``bad_job``; a length is not an integer from 0 to the size of its target.
    """
    lengths = {
        name: targets[get_length_name(name)] for name in targets if get_length_name(name) in targets
    }
    dropped = {get_length_name(name) for name in lengths}
    return {
        name: value[: _read_length(name, value, lengths[name])] if name in lengths else value
        for name, value in targets.items()
        if name not in dropped
    }


def _read_length(name: str, value: NDArray[Any], length: NDArray[Any]) -> int:
    size = value.shape[0] if value.ndim else 0
    if length.size != 1 or length.dtype.kind not in "iu" or not 0 <= int(length.item()) <= size:
        raise AgentError(
            "bad_job",
            f"{get_length_name(name)}: must be one integer from 0 to {size}, the size of {name}",
        )
    return int(length.item())
