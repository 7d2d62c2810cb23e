"""Trial loads of .tflite files in a child process: some damaged files crash LiteRT."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekit.cache.store import Store
from edgekit.errors import UserError
from edgekit_agent.files import sha256_of

TRIAL_TIMEOUT_S = 300.0
_OPENED = "openings"
_OPEN = """\
import sys
from edgekit_agent.runtimes import import_runtime
import_runtime("litert")(sys.argv[1], 1)
"""


def try_tflite(path: Path, store: Store) -> None:
    """Check that LiteRT can load a file without a crash; each file is tried once.

    Args:
        path: the .tflite file.
        store: remembers the files that were loaded.

    Raises:
        UserError: LiteRT crashes, or does not finish in time.
    """
    try:
        runtime = version("ai-edge-litert")
    except PackageNotFoundError:
        return  # the reader of the file reports the missing package
    try:
        key = hashlib.sha256(f"{sha256_of(str(path))} {runtime}".encode()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if store.recall(_OPENED, key):
        return
    status = _open_in_child(path)
    if status is None:
        raise UserError(f"{path}: LiteRT did not open the file within {TRIAL_TIMEOUT_S:g} s")
    if status < 0:
        signal_name = _get_signal_name(-status)
        raise UserError(
            f"{path}: LiteRT {runtime} crashes when it opens the file ({signal_name})",
            hint="the file is damaged; download or export it again",
        )
    if status == 0:
        store.remember(_OPENED, key, {"opened": True})


def _open_in_child(path: Path) -> int | None:
    """Load the file in a child process and return its exit status; ``None`` on a timeout."""
    try:
        completed = subprocess.run(
            # -P: no file in the current folder may be imported as a module.
            [sys.executable, "-P", "-c", _OPEN, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return completed.returncode


def _get_signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
