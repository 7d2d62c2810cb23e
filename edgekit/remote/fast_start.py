"""Script that a device runs with ``python3 -c`` to start the agent that is installed there.

It is sent at every start, so it is short. It resolves the home as ``bootstrap`` does. If the agent
is missing or damaged, if a process cannot run from memory, or if this Python is too old, it ends
without a greeting.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

given, digest = sys.argv[1:]
env = os.environ.get
own = env("EDGEKIT_HOME") or given or (env("XDG_DATA_HOME") or "~/.local/share") + "/edgekit"
home = Path.home() / Path(own).expanduser()
path = home / f"agent/edgekit_agent-{digest[:16]}.pyz"
agent = path.read_bytes()
if hashlib.sha256(agent).hexdigest() == digest and sys.version_info > (3, 9):
    fd = os.memfd_create("", 0)
    os.write(fd, agent)
    os.write(1, json.dumps({"edgekit": {"home": str(home)}}).encode() + b"\n")
    os.execv(sys.executable, [sys.executable, "-I", f"/proc/self/fd/{fd}", str(path)])
