"""Worker process that runs one model: it reads one job from stdin, answers it, and ends."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any, Optional

from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError, PeerGone, to_failure
from edgekit_agent.limits import limit_memory
from edgekit_agent.runtimes.import_errors import make_import_error
from edgekit_agent.wire import Outlet, guard_stdout, read_job

# Names, not imports: these modules need numpy, which may be in the job's own site.
_HANDLERS = {
    "bench": "edgekit_agent.measure.benchmark:bench",
    "score": "edgekit_agent.measure.accuracy:score",
    "health": "edgekit_agent.measure.health:check_health",
    "expand": "edgekit_agent.packing.unpack:expand",
}
# Jobs that the host may send; the others are parts of other jobs.
JOBS = frozenset(_HANDLERS) - {"expand"}


def run_worker(most_bytes: Optional[int] = None) -> None:
    """Do the one job that comes on standard input, answer it, and end the process.

    Args:
        most_bytes: limit on the private memory of this process.
    """
    if most_bytes is not None:
        limit_memory(most_bytes)
    outlet = Outlet(guard_stdout())
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    status = 0
    try:
        kind, job, peer = read_job(line)
        outlet.result(encode(_run_job(kind, job, outlet), peer=peer))
    except PeerGone:
        status = 1
    except Exception as error:  # noqa: BLE001 - every error is reported to the supervisor
        outlet.fail(to_failure(error))
    sys.stderr.flush()
    # Skip the interpreter's shutdown: some runtimes crash or hang in it.
    os._exit(status)


def _run_job(kind: str, job: Any, outlet: Outlet) -> object:  # noqa: ANN401 - one of JOBS
    if kind not in _HANDLERS:
        raise AgentError("bad_job", f"unknown kind of worker job: {kind}")
    site = job.site if kind == "expand" else job.model.site
    if site is not None:
        sys.path.insert(0, os.path.expanduser(site))
    module, function = _HANDLERS[kind].split(":")
    try:
        return getattr(importlib.import_module(module), function)(job, outlet.progress)
    except ImportError as error:
        what = f"cannot {'expand' if kind == 'expand' else 'run'} models here"
        hint = "numpy and a runtime are needed; 'edgekit push' installs them"
        raise make_import_error(what, error, site, hint=hint) from error


def _end_with_supervisor() -> None:
    # There is no more input: the read returns only when the supervisor has ended.
    os.read(0, 1)
    os._exit(1)
