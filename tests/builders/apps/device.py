"""A device as an app finds it: a Python without packages, an empty prefix, and no network."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit_agent.files import sha256_of

ANSWER_S = 120.0
ROW = {"x": [0.1] * 64}


@dataclass
class Reply:
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Server:
    """A running app."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def predict(self, body: bytes | str | None = None, media_type: str = "application/json"):
        data = json.dumps(ROW) if body is None else body
        return self.ask("POST", "/predict", data, {"Content-Type": media_type})

    def wait_until_ready(self, wanted: bool = True) -> None:
        wait_for(lambda: self.ask("GET", "/health").json["ready"] is wanted)

    def find_worker(self) -> int:
        """Return the process that runs the models."""
        children = list_children(self.process.pid)
        (worker,) = (pid for pid in children if b"app-worker" in read_command(pid))
        return worker


class Device:
    """A prefix into which apps are installed, and a folder of programs with python3 alone."""

    def __init__(self, folder: Path, python: Path | None = None) -> None:
        self.folder, self.prefix = folder, folder / "pre fix"
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        (self.programs / "python3").symlink_to(python or Path(sys.executable).resolve())
        self.home = folder / "home"
        self.home.mkdir()
        path = f"{self.programs}:/usr/bin:/bin"
        self.environment = {"PATH": path, "HOME": str(self.home), "LC_ALL": "C"}

    @property
    def apps(self) -> Path:
        return self.prefix / "share" / "edgekit" / "apps"

    def app(self, name: str = "leaf") -> Path:
        return self.apps / name

    def start(self, command: Sequence[str | Path], **how: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **how,
        )

    def call(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        with self.start(command) as process:
            stdout, stderr = process.communicate(timeout=300)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def install(
        self, file: Path, *options: str, program: str = "sh"
    ) -> subprocess.CompletedProcess[str]:
        options = options or ("--no-start",)
        return self.call(program, file, "--prefix", self.prefix, *options)

    def run(self, *arguments: str, name: str = "leaf") -> subprocess.CompletedProcess[str]:
        return self.call(self.prefix / "bin" / name, *arguments)

    @contextlib.contextmanager
    def serve(self, *options: str, name: str = "leaf") -> Iterator[Server]:
        """Run the app's server for the block."""
        command = [self.prefix / "bin" / name, "serve", *(options or ("--port", "0"))]
        with self.start(command) as process:
            try:
                line = process.stdout.readline()
                found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
                assert found, line + process.stderr.read()
                yield Server(process, int(found.group(1)))
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)

    def served(self, name: str = "leaf") -> str | None:
        link = self.app(name) / "current"
        return link.readlink().name if link.is_symlink() else None

    def list_files(self) -> dict[str, str]:
        """Return the digest of every file below the prefix, without compiled modules and locks."""
        return {
            path.relative_to(self.prefix).as_posix(): sha256_of(str(path))
            for path in self.prefix.rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name not in ("lock", "serve.lock")
        }


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def list_children(pid: int) -> list[int]:
    """Return the processes that a process has started, from all of its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text().split())
    return found


def read_command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
