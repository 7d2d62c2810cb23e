"""Versions of the protocol that agents speak, and which of them this host works with."""

from __future__ import annotations

from typing import Any

from edgekit.errors import DeviceError
from edgekit_agent.protocol import PROTOCOL, Version
from edgekit_agent.worker_results import Failure


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


def make_failure_error(host: str, job: object, failure: Failure) -> DeviceError:
    """Return the error for a failure that an agent reports, which may be too old for the job."""
    is_unknown = "unknown field app" in failure.message or "unknown job" in failure.message
    if failure.kind == "bad_job" and is_unknown and asks_for_app(job):
        return make_old_agent_error(host)
    return DeviceError(
        f"{host}: {failure.message}",
        hint=failure.hint,
        transient=failure.transient,
        kind=failure.kind,
    )


def asks_for_app(job: object) -> bool:
    """Return whether a job is about a named home."""
    return bool(str(getattr(job, "app", "")))


def make_old_agent_error(host: str) -> DeviceError:
    """Return the error that an agent does not know named releases."""
    return DeviceError(
        f"{host}: its agent is older than releases with names (--name): upgrade edgekit on the "
        "device",
        kind="protocol",
    )
