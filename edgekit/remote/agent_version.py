"""Versions of the protocol that agents speak, and which of them this host works with."""

from __future__ import annotations

from typing import Any

from edgekit.errors import DeviceError
from edgekit_agent.protocol import PROTOCOL, Version


def check_agent_version(host: str, version: Version) -> None:
    """Check that this host works with an agent of a version.

    Raises:
        DeviceError: it does not.
    """
    if PROTOCOL.works_with(version):
        return
    where = "on this machine" if version > PROTOCOL else "on the device"
    raise DeviceError(
        f"{host}: the agent speaks protocol {version} and this edgekit {PROTOCOL}: "
        f"upgrade edgekit {where}",
        kind="protocol",
    )


def is_bad_job(answer: dict[str, Any]) -> bool:
    """Return whether an agent answers that it was not sent a job that it knows."""
    error = answer.get("error")
    return isinstance(error, dict) and error.get("kind") == "bad_job"
