"""Sent to the device as ``python3 -c`` at every start, so it is short: become the agent laid there.

It settles the home as ``bootstrap`` does. Where the agent is missing or damaged, where nothing can
be written beside it or this Python is too old, it ends without a word.
"""

import hashlib
import json
import os
import sys
from pathlib import Path


def _knock(given: str, digest: str) -> None:
    env = os.environ.get
    data = env("XDG_DATA_HOME") or "~/.local/share"
    home = Path.home() / Path(env("EDGEKIT_HOME") or given or f"{data}/edgekit").expanduser()
    agent = home / f"agent/edgekit_agent-{digest[:16]}.pyz"
    whole = hashlib.sha256(agent.read_bytes()).hexdigest() == digest
    if whole and os.access(agent.parent, os.W_OK) and sys.version_info > (3, 9):
        os.write(1, json.dumps({"edgekit": {"home": str(home)}}).encode() + b"\n")
        os.execv(sys.executable, [sys.executable, "-I", str(agent)])


if __name__ == "__main__":
    _knock(*sys.argv[1:])
