"""Bootstrap program that a device runs with ``python3 -c``: it installs and starts the agent.

It prints lines ``{"edgekit": {...}}``: ``send`` to ask for the agent's bytes on stdin,
``error`` on failure, ``home`` once the agent is installed. Python 3.9, standard library only.
"""

import errno
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(home: str, rule: str, digest: str, size: int) -> int:
    """Start the agent that has the given digest; return 1 on failure."""
    os.umask(0o077)
    folder = resolve_home(home)
    path = folder / "agent" / f"edgekit_agent-{digest[:16]}.pyz"
    try:
        check_rule(folder, home, rule)
        agent = find_agent(path, digest) or receive_agent(folder, path, digest, size)
        file = write_unnamed(agent)
    except OSError as error:
        say({"error": f"cannot create edgekit's folder {folder}: {error.strerror}"})
        return 1
    except ValueError as error:
        say({"error": str(error)})
        return 1
    say({"home": str(folder)})
    # Run the same bytes that were checked; the path only appears in the process list.
    return os.execv(sys.executable, [sys.executable, "-I", file, str(path)])


def resolve_home(home: str) -> Path:
    """Return edgekit's folder as an absolute path."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    chosen = os.environ.get("EDGEKIT_HOME") or home or f"{data}/edgekit"
    # An SSH command starts in the user's home, so a relative path starts there here too.
    return Path.home() / Path(chosen).expanduser()


def check_rule(folder: Path, home: str, rule: str) -> None:
    """Refuse a folder outside the user's home if the rule is ``inside``."""
    top = os.path.realpath(Path.home())
    inside = os.path.commonpath([top, os.path.realpath(folder)]) == top
    if rule == "inside" and home and not os.environ.get("EDGEKIT_HOME") and not inside:
        raise ValueError(
            f"the profile's folder {folder} is outside the user's home {top}; to use it, give "
            f"--home {folder}"
        )


def claim_home(folder: Path) -> None:
    """Mark a new or empty folder as edgekit's; refuse one that holds files of other programs.

    The agent checks again, more closely, before it writes anything.
    """
    names = {path.name for path in folder.iterdir()} if os.path.lexists(folder) else set()
    if not names:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        (folder / ".edgekit-home").write_text("edgekit keeps its files here\n")
    elif ".edgekit-home" not in names and not any(folder.glob("agent/edgekit_agent-*.pyz")):
        raise ValueError(
            f"{folder} contains {min(names)!r}, which edgekit did not write; nothing was changed"
        )


def find_agent(path: Path, digest: str) -> bytes:
    """Read the installed agent; return no bytes if it is missing or its digest differs."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    return data if hashlib.sha256(data).hexdigest() == digest else b""


def write_unnamed(agent: bytes) -> str:
    """Write the agent to an unnamed file and return its path in this process."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("agent", 0)
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
        os.set_inheritable(handle, True)
    with open(handle, "wb", closefd=False) as target:
        target.write(agent)
    folder = "/proc/self/fd" if Path("/proc/self/fd").is_dir() else "/dev/fd"
    return f"{folder}/{handle}"


def receive(size: int) -> bytes:
    """Read exactly ``size`` bytes from stdin; the agent reads the rest."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, min(65536, size - len(data)))
        if not chunk:
            raise ValueError("the transfer of the agent was incomplete")
        data += chunk
    return bytes(data)


def receive_agent(folder: Path, path: Path, digest: str, size: int) -> bytes:
    """Receive the agent and install it atomically, safe against a power cut.

    On a read-only file system the agent runs without being installed, so that ``status`` works.
    """
    is_writable = True
    try:
        claim_home(folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        is_writable = os.access(path.parent, os.W_OK)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        is_writable = False
    say({"send": size})
    data = receive(size)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the agent was damaged in transfer")
    if is_writable:
        install_agent(path, data)
    return data


def install_agent(path: Path, data: bytes) -> None:
    """Write the agent to its path atomically and flush it to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()
    handle = os.open(str(path.parent), os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def say(what: "dict[str, Any]") -> None:
    """Write one JSON line to the host."""
    sys.stdout.write(json.dumps({"edgekit": what}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
