"""Serving of jobs: JSON lines from standard input are answered by JSON lines."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict

from edgekit_agent import worker
from edgekit_agent.apps.job_choice import (
    choose_rollback,
    choose_status,
    install_received,
    plan_package,
    uninstall_home,
)
from edgekit_agent.boot.watch import confirm
from edgekit_agent.codec import decode, encode
from edgekit_agent.failures import AgentError, PeerGone, to_failure
from edgekit_agent.limits import NO_LIMITS, get_expand_limits, get_health_limits
from edgekit_agent.measure.probe import probe
from edgekit_agent.protocol import Version
from edgekit_agent.releases.audit import run_and_log
from edgekit_agent.releases.install import install
from edgekit_agent.releases.receive import forget, plan, receive
from edgekit_agent.releases.wheels import unpack_runtime
from edgekit_agent.supervise import run_in_worker
from edgekit_agent.trust.keys import admit, change_trust, end_trust
from edgekit_agent.wire import Inlet, Outlet, guard_stdout, read_job
from edgekit_agent.worker_jobs import ExpandJob, HealthJob
from edgekit_agent.worker_results import ExpandResult, Health


def serve_jobs() -> int:
    """Answer jobs until the input ends; return the exit status."""
    inlet, outlet = Inlet(sys.stdin.buffer), Outlet(guard_stdout())
    try:
        for line in iter(inlet.line, None):
            _answer(line, inlet, outlet)
            inlet.drain()
    except PeerGone:
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _answer(line: bytes, inlet: Inlet, outlet: Outlet) -> None:
    try:
        kind, job, peer = read_job(line)
        result = _run(kind, job, peer, inlet, outlet)
    except PeerGone:
        raise
    except Exception as error:  # noqa: BLE001 - every error is reported to the host
        outlet.fail(to_failure(error))
    else:
        outlet.result(result)


def _run(
    kind: str,
    job: Any,  # noqa: ANN401 - the record that belongs to the kind
    peer: Version,
    inlet: Inlet,
    outlet: Outlet,
) -> Dict[str, Any]:
    if kind in worker.JOBS:
        limits = get_health_limits() if isinstance(job, HealthJob) else NO_LIMITS
        return run_in_worker(job, outlet, limits)

    def ask_health(question: HealthJob) -> Health:
        return decode(Health, run_in_worker(question, outlet, get_health_limits()))

    def expand(packed: ExpandJob) -> ExpandResult:
        limits = get_expand_limits(packed.blob.size)
        return decode(ExpandResult, run_in_worker(packed, outlet, limits))

    handlers: Dict[str, Callable[[], object]] = {
        "probe": lambda: probe(job),
        "plan": lambda: plan(job),
        "receive": lambda: receive(job, inlet, outlet.progress, expand),
        "forget": lambda: forget(job),
        "runtime": lambda: unpack_runtime(job, outlet.progress),
        "admit": lambda: run_and_log(job, lambda: admit(job)),
        "trust": lambda: run_and_log(job, lambda: change_trust(job)),
        "untrust": lambda: run_and_log(job, lambda: end_trust(job)),
        "install": lambda: run_and_log(job, lambda: install(job, ask_health, outlet.progress)),
        "confirm": lambda: confirm(job),
        "rollback": lambda: run_and_log(job, lambda: choose_rollback(job, ask_health)),
        "status": lambda: choose_status(job, ask_health),
        "uninstall": lambda: run_and_log(job, lambda: uninstall_home(job)),
        "package-plan": lambda: plan_package(job),
        "package": lambda: run_and_log(job, lambda: install_received(job, outlet.progress)),
    }
    if kind not in handlers:
        raise AgentError("bad_job", f"unknown kind of job: {kind}")
    return encode(handlers[kind](), peer=peer)
