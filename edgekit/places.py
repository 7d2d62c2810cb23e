"""Where models are measured: this machine, or a device."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from edgekit.errors import DeviceError
from edgekit.evaluate import Agent, agent_progress
from edgekit.model import Model
from edgekit.profile import DeviceProfile, RuntimeName, RuntimeSpec, runtime_of
from edgekit.progress import Tick
from edgekit.remote.agent_file import agent_file
from edgekit.remote.deploy import check_machine, ensure_runtime
from edgekit.remote.home import DEFAULT, Home
from edgekit.remote.session import LOCAL, Progress, Session, open_session
from edgekit.remote.staging import forget, stage_file, stage_samples, staged_digests
from edgekit_agent.cpu import cores, name_and_isa
from edgekit_agent.jobs import ModelRef
from edgekit_agent.results import DeviceFacts, RuntimeFacts
from edgekit_agent.samples import Samples

HOST = "host"
_ANY_VERSION = RuntimeSpec(version="")
# What is installed for a runtime on this machine.
PACKAGES: dict[RuntimeName, str] = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


class Place(Protocol):
    """Somewhere a model can be run."""

    @property
    def agent(self) -> Agent:
        """Who answers jobs there."""

    def model_ref(self, model: Model) -> ModelRef:
        """The model as the agent there finds it; sent first where it must be."""

    def samples(self, samples: Samples) -> Samples:
        """The samples as the agent there finds them; sent first where they must be."""

    def identity(self, runtime: RuntimeName) -> str:
        """What figures depend on beside the model: the machine and the runtime there."""


@dataclass(frozen=True)
class HostPlace:
    """This machine."""

    agent: Session
    threads: int

    def model_ref(self, model: Model) -> ModelRef:
        """The file where it lies."""
        return ModelRef(str(model.path.resolve()), runtime_of(model), self.threads)

    def samples(self, samples: Samples) -> Samples:
        """The columns where they lie."""
        return samples

    def identity(self, runtime: RuntimeName) -> str:
        """As ``host_identity``."""
        return host_identity(runtime)


def host_identity(runtime: RuntimeName) -> str:
    """What figures of this machine depend on beside the model."""
    cpu, isa = name_and_isa()
    return _identity(platform.machine(), cpu, isa, cores(), version(PACKAGES[runtime]))


@contextmanager
def host_place(profile: DeviceProfile, home: Path) -> Iterator[HostPlace]:
    """This machine, with as many of the profile's threads as it has cores."""
    with open_session(LOCAL, home=str(home)) as session:
        yield HostPlace(session, host_threads(profile))


def host_threads(profile: DeviceProfile) -> int:
    """Threads for a model on this machine."""
    return min(profile.hardware.threads, cores())


@dataclass(frozen=True)
class DevicePlace:
    """A device, reached by a session; ``bring`` has a runtime ready when one is needed."""

    agent: Session
    facts: DeviceFacts
    bring: Callable[[RuntimeName], RuntimeFacts]
    threads: int
    progress: Progress
    ready: dict[RuntimeName, RuntimeFacts] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)  # digests of samples to be removed again

    def runtime(self, name: RuntimeName) -> RuntimeFacts:
        """A runtime of the device, sent there where it has none.

        Raises:
            DeviceError: none can be had for it.
        """
        if name not in self.ready:
            self.ready[name] = self.bring(name)
        return self.ready[name]

    def model_ref(self, model: Model) -> ModelRef:
        """The model in the device's object store, and the runtime for it.

        Raises:
            DeviceError: it is more than one file can hold, or no runtime can be had for it.
        """
        if model.beside:
            raise DeviceError(f"{model.path.name} is over 2 GiB: not sent", kind="model_failed")
        ready = self.runtime(runtime_of(model))
        path = stage_file(self.agent, model.path, self.progress)
        return ModelRef(path, ready.name, self.threads, ready.site)

    def samples(self, samples: Samples) -> Samples:
        """The columns in the device's object store."""
        there = stage_samples(self.agent, samples, self.progress)
        self.staged.update(staged_digests(there))
        return there

    def tidy(self) -> None:
        """Remove the samples from the device: they may be patients' data."""
        forget(self.agent, self.staged)
        self.staged.clear()

    def identity(self, runtime: RuntimeName) -> str:
        """Machine, processor and runtime of the device."""
        facts, version = self.facts, self.runtime(runtime).version
        return _identity(facts.machine, facts.cpu, facts.isa, facts.cores, version)


@contextmanager
def device_place(
    host: str,
    profile: DeviceProfile | None,
    *,
    cache: Path,
    tick: Tick,
    home: Home = DEFAULT,
    same_machine: bool = False,
) -> Iterator[DevicePlace]:
    """Open a device as a place to measure; runtimes are sent when needed.

    Args:
        host: ``local``, or what ``ssh`` takes.
        profile: says which runtime versions will do, and the threads.
        cache: where wheels are kept on this machine.
        tick: told of what is sent.
        home: where edgekit lives there.
        same_machine: refuse a device that is not of the profile's architecture.

    Raises:
        DeviceError: not reachable.
    """
    with open_session(host, home=home) as session:
        facts = session.facts()
        if same_machine and profile:
            check_machine(host, facts, profile)
        progress = agent_progress(tick)

        def bring(name: RuntimeName) -> RuntimeFacts:
            spec = profile.runtimes.get(name, _ANY_VERSION) if profile else _ANY_VERSION
            return ensure_runtime(
                session, facts, name, spec, _tested(name), cache=cache, progress=progress
            )

        threads = min(profile.hardware.threads if profile else facts.cores, facts.cores)
        place = DevicePlace(session, facts, bring, threads, progress)
        try:
            yield place
        except BaseException:
            with contextlib.suppress(DeviceError):  # what went wrong first is what counts
                place.tidy()
            raise
        place.tidy()


def _tested(runtime: RuntimeName) -> str:
    """The version on this machine, which the figures of the host come from."""
    try:
        return version(PACKAGES[runtime])
    except PackageNotFoundError:
        return ""  # nothing was tested here: the newest that the profile allows will do


def _identity(machine: str, cpu: str, isa: tuple[str, ...], cores: int, runtime: str) -> str:
    # The agent is what measures: another one may measure otherwise.
    facts = json.dumps([machine, cpu, isa, cores, runtime, agent_file().digest])
    return hashlib.sha256(facts.encode()).hexdigest()
