"""Ask an installed app on a device: its version, its check, and its answer to a JSON row.

    python3 ask_app.py LAUNCHER < ROW

Standard library, Python 3.9.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_READY_S = 900.0


def main() -> None:
    """Print what the app says as one JSON object."""
    launcher, row = sys.argv[1], sys.stdin.buffer.read()
    state: dict[str, Any] = {"version": "", "check": None, "said": "", "answer": {}}
    if Path(launcher).exists():
        told = _run(launcher, "--version")
        state["version"] = told.stdout.partition(" ")[2].strip()
        checked = _run(launcher, "check")
        state["check"], state["said"] = checked.returncode, told.stderr + checked.stderr
        if not checked.returncode:
            state["answer"] = _predict(launcher, row)
    print(json.dumps(state))


def _run(launcher: str, argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([launcher, argument], capture_output=True, text=True, check=False)


def _predict(launcher: str, row: bytes) -> dict[str, Any]:
    command = [launcher, "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[0-9.]+:[0-9]+", process.stdout.readline())
            if found is None:
                return {}
            until = time.monotonic() + _READY_S
            while not _get(f"{found.group()}/health")["ready"] and time.monotonic() < until:
                time.sleep(0.5)
            return _get(f"{found.group()}/predict", row)
        finally:
            process.terminate()


def _get(url: str, data: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_READY_S) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


if __name__ == "__main__":
    main()
