"""Entry point of the agent: reads jobs as JSON lines until the input ends, and answers them."""

from __future__ import annotations

import os
import platform
import sys
from typing import List, Optional

_USAGE = "usage: python -m edgekit_agent [--version]    job lines on stdin, JSON lines on stdout\n"


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the agent and return its exit status.

    Args:
        arguments: nothing, or the path of the agent's own file, to serve jobs; ``--version`` to
            print the version. ``worker``, ``trial PACKAGE [SITE]`` and ``watch HOME`` are for
            processes that the agent starts itself.
    """
    # onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # New files are private to this user; ``homes.share`` opens those that the home's mode allows.
    os.umask(0o077)
    arguments = sys.argv[1:] if arguments is None else arguments
    # Imported when needed: a worker starts sooner without the rest.
    if not arguments or [a.endswith(".pyz") for a in arguments] == [True]:
        from edgekit_agent.serve import serve_jobs

        return serve_jobs()
    if arguments == ["--version"]:
        from edgekit_agent.protocol import PROTOCOL

        sys.stdout.write(
            f"edgekit_agent protocol {PROTOCOL} (Python {platform.python_version()})\n"
        )
        return 0
    if arguments[0] == "worker":
        from edgekit_agent import worker

        worker.run_worker(int(arguments[1]) if arguments[1:] else None)
    if arguments[0] == "watch" and len(arguments) == 2:
        from edgekit_agent.boot.watch import run_watch

        return run_watch(arguments[1])
    if arguments[0] == "trial" and len(arguments) in (2, 3):
        from edgekit_agent.runtimes.trial import run_trial

        return run_trial(arguments[1], arguments[2] if len(arguments) == 3 else None)
    sys.stderr.write(_USAGE)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
