"""Headless Chromium as a place of measurement, and the choice between it and other devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgekit.config.profile import DeviceProfile, RuntimeName, get_runtime
from edgekit.errors import DeviceError
from edgekit.model import Model
from edgekit.pipeline.measure_targets import Place, compute_identity, open_device_place
from edgekit.pipeline.timing import Agent
from edgekit.progress import Tick
from edgekit.remote.home import DEFAULT, Home
from edgekit.remote.host_names import WEB
from edgekit.remote.web.browser_agent import BrowserAgent
from edgekit.remote.web.runtime_files import WEB_CACHE, fetch_web_runtime
from edgekit_agent.measure.probe import read_machine
from edgekit_agent.results import DeviceFacts
from edgekit_agent.samples import Samples
from edgekit_agent.worker_jobs import ModelRef

_BROWSER = re.compile(r"(?:Headless)?(Chrome|Chromium)/([0-9.]+)")


class Device(Place, Protocol):
    """A device with its facts: behind a session, or a browser."""

    @property
    def facts(self) -> DeviceFacts:
        """Return the facts of the device."""


@dataclass(frozen=True)
class BrowserPlace:
    """Headless Chromium on this machine; ONNX models alone run there."""

    agent: Agent
    facts: DeviceFacts
    threads: int

    def model_ref(self, model: Model) -> ModelRef:
        """Return a reference to the file at its present path.

        Raises:
            DeviceError: Browsers cannot run the model.
        """
        self._check_runtime(get_runtime(model))
        if model.beside:
            raise DeviceError(f"{model.path.name} is larger than 2 GiB", kind="model_failed")
        return ModelRef(str(model.path.resolve()), "onnxruntime", self.threads)

    def samples(self, samples: Samples) -> Samples:
        """Return the samples unchanged."""
        return samples

    def identity(self, runtime: RuntimeName) -> str:
        """Return a digest of this machine, the browser and the runtime.

        Raises:
            DeviceError: Browsers have no such runtime.
        """
        self._check_runtime(runtime)
        facts = self.facts
        return compute_identity(
            facts.machine, f"{facts.cpu} {facts.system}", facts.isa, facts.cores, facts.libc
        )

    def _check_runtime(self, runtime: RuntimeName) -> None:
        if runtime != "onnxruntime":
            raise DeviceError(
                "web: browsers run ONNX models, and this one is for LiteRT",
                hint="build with --runtime onnxruntime, or give the .onnx file",
                kind="missing_runtime",
            )


def open_device(
    host: str,
    profile: DeviceProfile | None,
    *,
    root: Path,
    tick: Tick,
    home: Home = DEFAULT,
    same_machine: bool = False,
) -> AbstractContextManager[Device]:
    """Open a device as a place of measurement.

    Args:
        host: ``web`` for headless Chromium on this machine, ``local``, or an argument of ``ssh``.
        profile: Profile that gives the allowed runtime versions and the threads.
        root: Folder of the cache.
        tick: Progress callback.
        home: Folder of edgekit on the device.
        same_machine: Whether to refuse a device of another architecture than the profile's;
            in a browser it does not matter.

    Raises:
        DeviceError: The device cannot be reached.
    """
    if host == WEB:
        return open_browser_place(profile, cache=root / WEB_CACHE, tick=tick)
    return open_device_place(
        host, profile, cache=root / "wheels", tick=tick, home=home, same_machine=same_machine
    )


@contextmanager
def open_browser_place(
    profile: DeviceProfile | None, *, cache: Path, tick: Tick
) -> Iterator[BrowserPlace]:
    """Open headless Chromium as a place of measurement.

    Args:
        profile: Profile that gives the threads.
        cache: Folder for the runtime on this machine.
        tick: Progress callback.

    Raises:
        DeviceError: Chromium is missing or does not start.
        UserError: The runtime cannot be fetched.
    """
    runtime = fetch_web_runtime(cache, tick=tick)
    agent = BrowserAgent(runtime)
    tick("starting Chromium", 0, 0)
    greeting = agent.read_greeting()
    cores = int(greeting["cores"])
    named = _BROWSER.search(str(greeting["agent"]))
    facts = replace(
        read_machine(""),
        system=f"{named[1]} {named[2]}" if named else "browser",
        cores=cores,
        libc=f"onnxruntime-web {runtime.version}",
    )
    yield BrowserPlace(agent, facts, min(profile.hardware.threads if profile else cores, cores))
