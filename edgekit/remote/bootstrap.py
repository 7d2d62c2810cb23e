"""Sent to the device as ``python3 -c``: settle the home, lay the agent there, become the agent.

It says one line ``{"edgekit": {...}}``: ``send`` where it wants the agent's bytes on stdin,
``error`` where it gives up, ``home`` when all is in place. Python 3.9, standard library only.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(home: str, digest: str, size: int) -> int:
    """Become the agent of that digest; 1 where that cannot be."""
    try:
        folder = settle(home)
        path = folder / "agent" / f"edgekit_agent-{digest[:16]}.pyz"
        if not whole(path, digest):
            say({"send": size})
            lay(path, receive(size), digest)
    except (OSError, ValueError) as error:
        say({"error": str(error)})
        return 1
    say({"home": str(folder)})
    return os.execv(sys.executable, [sys.executable, "-I", str(path)])


def settle(home: str) -> Path:
    """The folder to live in, absolute and writable."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    chosen = os.environ.get("EDGEKIT_HOME") or home or f"{data}/edgekit"
    # An SSH command starts in the user's home, so that is where a relative path starts here too.
    folder = Path.home() / Path(chosen).expanduser()
    try:
        (folder / "agent").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make edgekit's home {folder}: {error.strerror}") from error
    if not os.access(str(folder / "agent"), os.W_OK):
        raise ValueError(f"edgekit's home {folder} is not writable")
    return folder


def whole(path: Path, digest: str) -> bool:
    """Whether the file is there and is the one we mean."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def receive(size: int) -> bytes:
    """So many bytes of stdin, and not one more: the rest is for the agent."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, min(65536, size - len(data)))
        if not chunk:
            raise ValueError("the agent did not arrive whole")
        data += chunk
    return bytes(data)


def lay(path: Path, data: bytes, digest: str) -> None:
    """Put the agent in its place, whole or not at all, also after a power cut."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the agent arrived damaged")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary.exists():
            temporary.unlink()
    handle = os.open(str(path.parent), os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def say(what: "dict[str, Any]") -> None:
    """One line to the host."""
    sys.stdout.write(json.dumps({"edgekit": what}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
