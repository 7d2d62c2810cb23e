"""Devices on this machine, bundles and commands of the benchmark of broken deliveries."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.deliveries.command import PATIENCE_S, Command
from benchmarks.deliveries.judge import DeviceState, Digests
from benchmarks.deliveries.links import find_agents_at_work, find_watchers
from benchmarks.deliveries.look import look
from edgekit.bundle.bundle_file import Bundle
from edgekit.bundle.manifest import RELEASE_DIGITS
from edgekit.errors import EdgekitError
from edgekit.remote.confirmation import UNWATCHED, WatchTerms
from edgekit.remote.deploy import push, status
from edgekit.remote.session import open_session
from edgekit.remote.trust import trust_key
from edgekit.remote.upload import sha256
from edgekit.signing.keys import OwnKey, make_key
from edgekit.signing.releases import Signer
from tests.agent.test_crash import with_direct_link
from tests.builders.servers import Sshd, make_bundle, start_sshd
from tests.builders.signed import with_signature

TEMPLATES = ("empty", "one", "two", "old form", "signed", "bare", "brought")
SETTLE_S = 90.0
# The system's Python, which has no runtime.
BARE_PATH = "export PATH=/usr/bin:/bin\n"
# The releases of templates, which are made when they are needed, have lower ones.
_FIRST_VERSION = 10
_ON_CPU = ["CPUExecutionProvider"]


class Site:
    """Two devices behind private SSH servers, ``dev`` and ``dev2``, and the pushed bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Digests] = {}
        self.devices: dict[str, Sshd] = {}
        self._count = 0
        os.environ |= {
            "EDGEKIT_CACHE": os.environ.get("EDGEKIT_CACHE", str(folder / "cache")),
            "EDGEKIT_CONFIG": str(folder / "config"),
            "EDGEKIT_SSH_CONFIG": str(folder / "ssh_config"),
        }
        os.environ.pop("SSH_AUTH_SOCK", None)
        self._key: OwnKey = make_key("own")

    @contextlib.contextmanager
    def run_servers(self) -> Iterator[Site]:
        """Start the servers and stop them at the end of the block."""
        try:
            for name in ("dev", "dev2"):
                self.devices[name] = start_sshd(self.folder / name)
            self.connect({})
            yield self
        finally:
            for device in self.devices.values():
                if device.process is not None:
                    device.process.terminate()
                    device.process.wait()

    def connect(self, ports: Mapping[str, int]) -> None:
        """Write the ssh configuration; some hosts may be reached through another port."""
        texts = []
        for name, device in self.devices.items():
            part = device.config(
                self.folder / f"part_{name}",
                host=name,
                Port=ports.get(name, device.port),
                ConnectTimeout=10,
            )
            texts.append(part.read_text())
        (self.folder / "ssh_config").write_text("".join(texts))

    def bundle(
        self, rng: random.Random, *, signed: bool = False, version: int | None = None, **how: bool
    ) -> Bundle:
        """Make a bundle that was not pushed before; the versions of signed ones rise."""
        self._count += 1
        width = rng.choice((8, 400, 2400, 6000))
        bundle = make_bundle(
            self.folder / f"bundle{self._count}",
            seed=rng.getrandbits(31),
            width=width,
            **how,  # type: ignore[arg-type]
        )
        if signed:
            rising = _FIRST_VERSION + self._count
            signer = Signer(key=self._key, version=version or rising, valid_days=10)
            bundle = with_signature(bundle, signer.sign(bundle.manifest, bundle.manifest_bytes))
        self.known[release_of(bundle)] = files_of(bundle)
        return bundle

    def reset(self, name: str, template: str) -> None:
        """Give a device the home of a template."""
        device = self.devices[name]
        is_bare = template in ("bare", "brought")
        device.environment(BARE_PATH if is_bare else "")
        stored = self.folder / "templates" / name / template
        if not stored.exists():
            self._make(name, template, stored)
        _remove(device.edgekit_home)
        if template not in ("empty", "bare"):
            shutil.copytree(stored, device.edgekit_home, symlinks=True)

    def _make(self, name: str, template: str, stored: Path) -> None:
        device, rng = self.devices[name], random.Random(template)
        _remove(device.edgekit_home)
        counts = {"empty": 0, "bare": 0, "one": 1}
        if template == "signed":
            with open_session(name) as session:
                trust_key(session, self._key.get_trusted_key(), None)
        for version in range(1, 1 + counts.get(template, 2)):
            with open_session(name) as session:
                bundle = self.bundle(rng, signed=template == "signed", version=version)
                push(bundle, session, cache=cache() / "wheels", watch=UNWATCHED)
        if template == "old form":
            with_direct_link(device.edgekit_home)
        device.edgekit_home.mkdir(parents=True, exist_ok=True)
        shutil.copytree(device.edgekit_home, stored, symlinks=True)

    def seen(self, name: str) -> DeviceState:
        """Read the state of a device; retry if an agent removes files meanwhile."""
        for _ in range(20):
            try:
                return DeviceState.of(look(str(self.devices[name].edgekit_home)))
            except FileNotFoundError:
                time.sleep(0.05)
        raise RuntimeError(f"{name}: its home does not come to rest")

    def settle(self, name: str, watch_s: float) -> None:
        """Wait until no agent is at work, and until a short watch is over."""
        home = self.devices[name].edgekit_home
        until = time.monotonic() + SETTLE_S
        while find_agents_at_work(home) and time.monotonic() < until:
            time.sleep(0.1)
        until = time.monotonic() + watch_s + 30
        while watch_s <= 10 and find_watchers(home) and time.monotonic() < until:
            time.sleep(0.1)

    def health(self, name: str) -> str:
        """Return the fault of the served model; empty if there is none."""
        folder = self.devices[name].edgekit_home / "current"
        if not folder.exists():
            return ""
        model = onnxruntime.InferenceSession(folder / "model.onnx", providers=_ON_CPU)
        with np.load(folder / "golden.npz") as golden:
            (y,) = model.run(None, {"x": golden["input:x"]})
            is_right = np.allclose(y, golden["output:y"], rtol=1e-3, atol=1e-3)
        return "" if is_right else "the served model computes something else"

    def push_again(self, bundle: Bundle, name: str, watch_s: float) -> str:
        """Push as usual; return the failure, or an empty text."""
        try:
            with open_session(name) as session:
                push(bundle, session, cache=cache() / "wheels", watch=WatchTerms(seconds=watch_s))
                said = status(session)
        except EdgekitError as error:
            return f"failed: {error}"
        seen = self.seen(name)
        names = (said.current and said.current.name, said.previous and said.previous.name)
        if names != (seen.current, seen.previous):
            return f"reports {names}, the links lead to {(seen.current, seen.previous)}"
        return ""

    def start(
        self, bundle: Bundle, *hosts: str, watch_s: float, patience_s: float = PATIENCE_S
    ) -> Command:
        """Start a push."""
        watch = ("--watch", f"{watch_s:g}")
        return Command("push", bundle.path, *hosts, "--json", *watch, patience_s=patience_s)


def release_of(bundle: Bundle) -> str:
    """Return the release name of a bundle."""
    return sha256(bundle.manifest_bytes)[:RELEASE_DIGITS]


def files_of(bundle: Bundle) -> Digests:
    """Return the digest of every file of a release."""
    return {
        "manifest.json": sha256(bundle.manifest_bytes),
        **{blob.name: blob.digest for blob in bundle.blobs()},
    }


def cache() -> Path:
    """Return the folder of wheels."""
    return Path(os.environ["EDGEKIT_CACHE"])


def _remove(home: Path) -> None:
    for _ in range(50):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(0.1)
    raise RuntimeError(f"{home} cannot be removed")
