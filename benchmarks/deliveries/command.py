"""edgekit command in a fork of this process, which saves the time of its imports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.cli import main
from edgekit.remote.ssh.client import SshTransport

MOST_S = 900.0
PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """Result of a command.

    Attributes:
        code: Exit code; None if it was killed.
        said: Its messages in one line.
        codes: Exit code of each host.
    """

    code: int | None
    said: str
    codes: Mapping[str, int]


class Command:
    """Running command.

    Args:
        arguments: Arguments as on the command line.
        patience_s: Time for which a link may be silent before it is given up.
    """

    def __init__(self, *arguments: object, patience_s: float = PATIENCE_S) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-command-"))
        self._started = time.monotonic()
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run([str(a) for a in arguments], self._folder, patience_s)

    def kill(self) -> None:
        """Kill the command at once."""
        if not self.is_over():
            os.kill(self.pid, signal.SIGKILL)

    def is_over(self) -> bool:
        """Return whether the command has ended."""
        if self._status is None:
            end, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if end else None
        return self._status is not None

    def wait(self) -> CommandResult:
        """Wait for the end; kill a command that takes too long, which counts as exit code 1."""
        while not self.is_over() and time.monotonic() < self._started + MOST_S:
            time.sleep(0.01)
        is_late = not self.is_over()
        if is_late:
            self.kill()
            _, self._status = os.waitpid(self.pid, 0)
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        out, said = ((self._folder / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self._folder)
        if is_late:
            return CommandResult(code=1, said=f"no end in {MOST_S:g} s: {said[-300:]}", codes={})
        lines = [line for line in said.splitlines() if line.startswith("edgekit: ")]
        text = "traceback: " + said[-300:] if "Traceback" in said else " / ".join(lines)
        return CommandResult(
            code=None if code == -signal.SIGKILL else code, said=text, codes=_codes(out)
        )


def _run(arguments: list[str], folder: Path, patience_s: float) -> None:
    """Run the command in this process and exit."""
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.closerange(3, 4096)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["edgekit", *arguments]
        defaults = SshTransport.__init__.__kwdefaults__
        assert defaults is not None
        defaults["stall_s"] = patience_s
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - this process must not go on as the benchmark
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _codes(out: str) -> dict[str, int]:
    try:
        return {each["host"]: int(each.get("exit_code", 0)) for each in json.loads(out)}
    except ValueError:
        return {}
