"""A private OpenSSH server, a connection that fails on demand, and small bundles."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgekit.bundle.bundle_file import Bundle, open_bundle
from edgekit.bundle.manifest import BundledFile, Manifest, RuntimeUse, Tensor
from edgekit.config.profile import Budget, DeviceProfile, Hardware, RuntimeSpec
from edgekit.remote.upload import sha256
from edgekit_agent.jobs import NamedBlob

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ENTER = """\
#!/bin/sh
export HOME={home}
unset XDG_DATA_HOME EDGEKIT_HOME SSH_AUTH_SOCK
PATH={python}:$PATH
cd
. {folder}/env
exec ${{LOGIN_SHELL:-/bin/sh}} -c "$SSH_ORIGINAL_COMMAND"
"""


def agents_below(home: Path) -> list[int]:
    """Return the processes that run an agent from a home."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(c.startswith(str(home)) and c.endswith(".pyz") for c in command):
                found.append(int(entry.name))
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Sshd:
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Return the user's home on the device."""
        return self.folder / "home"

    @property
    def edgekit_home(self) -> Path:
        return self.home / ".local/share/edgekit"

    def public_key(self, name: str = "host_ed25519") -> str:
        """Return type and base64 of the public key."""
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def known_line(self, port: int | None = None) -> str:
        return f"[127.0.0.1]:{port or self.port} {self.public_key()}\n"

    def config(
        self, path: Path, *, host: str = "dev", known: str | None = None, **more: object
    ) -> Path:
        """Return a client configuration with one host; ``more`` adds or replaces settings."""
        hosts = path.with_name(f"{path.name}.known")
        port = int(str(more.get("Port", self.port)))
        hosts.write_text(self.known_line(port) if known is None else known)
        settings = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "User": getpass.getuser(),
            "IdentityFile": self.folder / "key",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": hosts,
            "GlobalKnownHostsFile": "none",
            **more,
        }
        lines = [f"Host {host}", *(f"  {k} {v}" for k, v in settings.items() if v is not None)]
        path.write_text("\n".join(lines) + "\n")
        return path

    def environment(self, text: str) -> None:
        """Return lines of sh that every command on the device starts with."""
        (self.folder / "env").write_text(text)


def start_sshd(
    folder: Path, *, lines: str = "", before: Callable[[], object] = lambda: None
) -> Sshd:
    """Start a server; ``lines`` go into its configuration, ``before`` runs once keys exist."""
    server = Sshd(folder=folder, port=free_port())
    server.home.mkdir(parents=True)
    for name, kind in (("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("key", "ed25519")):
        _keygen(folder / name, kind)
    enter = folder / "enter"
    python = Path(sys.executable).parent
    enter.write_text(ENTER.format(home=server.home, folder=folder, python=python))
    enter.chmod(0o755)
    server.environment("")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{server.port}\nHostKey {folder}/host_ed25519\n"
        f"HostKey {folder}/host_ecdsa\nAuthorizedKeysFile {folder}/key.pub\n"
        f"ForceCommand {enter}\nPidFile none\nStrictModes no\nUsePAM no\nMaxStartups 100\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n" + lines
    )
    before()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, process_group=0
        )
    server.process = process
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
            return server
        time.sleep(0.02)
    raise RuntimeError((folder / "log").read_text())


def _keygen(path: Path, kind: str, passphrase: str = "") -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)


def make_key(path: Path, *, passphrase: str = "") -> Path:
    _keygen(path, "ed25519", passphrase)
    return path


@pytest.fixture(scope="session")
def running_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not Path(SSHD).exists() or shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH server on this machine")
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


@pytest.fixture
def sshd(running_sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """The server with an empty device behind it, reachable as ``dev``."""
    shutil.rmtree(running_sshd.home)
    running_sshd.home.mkdir()
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(running_sshd.config(tmp_path / "ssh_config")))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield running_sshd
    running_sshd.environment("")


@dataclass
class Proxy:
    """A connection to a port that is cut, or falls silent, after this many bytes."""

    target: int
    cut_after: int | None = None
    stall_after: int | None = None
    port: int = 0
    carried: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    def start(self) -> Proxy:
        server = socket.create_server(("127.0.0.1", 0))
        self.port = server.getsockname()[1]
        self._sockets.append(server)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return self

    def stop(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        """Forward between an accepted connection and a new one to the target."""
        far = socket.create_connection(("127.0.0.1", self.target))
        self._sockets += [near, far]
        for args in ((near, far, True), (far, near, False)):
            threading.Thread(target=self._carry, args=args, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                if up:
                    if self.stall_after is not None and self.carried > self.stall_after:
                        return
                    if self.cut_after is not None and self.carried + len(data) > self.cut_after:
                        sink.sendall(data[: max(0, self.cut_after - self.carried)])
                        self._reset(source, sink)
                        return
                    self.carried += len(data)
                elif self.stall_after is not None and self.carried > self.stall_after:
                    return
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    @staticmethod
    def _reset(*ends: socket.socket) -> None:
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # close() alone would wait for the thread that reads from it.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def make_proxy(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **how: int
) -> Iterator[Proxy]:
    """Put ``dev`` behind a failing connection for the block."""
    proxy = Proxy(sshd.port, **how).start()
    config = sshd.config(tmp_path / "proxied_config", Port=proxy.port)
    try:
        with monkeypatch.context() as patch:
            patch.setenv("EDGEKIT_SSH_CONFIG", str(config))
            yield proxy
    finally:
        proxy.stop()


def make_bundle(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 2400,
    arch: str = "",
    wrong: bool = False,
    low_bits: bool = False,
) -> Bundle:
    """Build a bundle with one matrix of 64 rows; ``wrong`` makes its health check fail.

    With ``low_bits`` the matrix is stored as int8 that use few of their values.
    """
    random = np.random.default_rng(seed)
    body = "f = DequantizeLinear(w, s) y = MatMul(x, f)" if low_bits else "y = MatMul(x, w)"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[1, 64] x) => (float[1, {width}] y) {{ {body} }}"
    )
    weights = random.standard_normal((64, width)).astype(np.float32)
    if low_bits:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "s"))
        weights = np.rint(weights * 2).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    data = model.SerializeToString()
    x = random.standard_normal((1, 64)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    golden_samples = io.BytesIO()
    np.savez(golden_samples, **{"input:x": x, "output:y": -y if wrong else y})
    members = {"model.onnx": data, "golden.npz": golden_samples.getvalue()}
    folder.mkdir(parents=True)
    for name, content in members.items():
        (folder / name).write_bytes(content)
    manifest = _manifest(members, width, arch or platform.machine())
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True))
    return open_bundle(folder)


def _manifest(members: dict[str, bytes], width: int, arch: str) -> Manifest:
    files = tuple(
        BundledFile(name=n, digest=sha256(c), bytes=len(c)) for n, c in sorted(members.items())
    )
    profile = DeviceProfile(
        schema=1,
        name="test",
        summary="a test",
        hardware=Hardware(arch=arch, cpu="any", cores=1, threads=1, memory_mib=512),
        runtimes={"onnxruntime": RuntimeSpec(version=">=1.16")},
        budget=Budget(),
    )
    return Manifest(
        name="m",
        model="model.onnx",
        format="onnx",
        source_digest=sha256(members["model.onnx"]),
        inputs=(Tensor(name="x", dtype="float32", shape=(1, 64)),),
        outputs=(Tensor(name="y", dtype="float32", shape=(1, width)),),
        metric="top1",
        output=None,
        runtime=RuntimeUse(name="onnxruntime", version=onnxruntime.__version__, threads=1),
        profile=profile,
        files=files,
        recipe={},
        provenance={},
        measurements=[],
        verdict={},
        passes=True,
    )


def get_served(home: Path) -> str | None:
    """Return the release that a device serves, after checking that it is complete."""
    link = home / "current"
    if not link.exists():
        return None
    release = link.resolve()
    record = (release / "release.json").read_text()
    for blob in _files(record):
        content = (release / blob.name).read_bytes()
        assert sha256(content) == blob.digest, f"{blob.name} of {release.name} is damaged"
    return release.name


def _files(record: str) -> list[NamedBlob]:
    import json

    return [NamedBlob(**entry) for entry in json.loads(record)["files"]]
