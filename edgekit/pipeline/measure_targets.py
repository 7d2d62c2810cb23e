"""Places where models are measured: this machine, or a device."""

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

from edgekit.bundle.results import Candidate, Measurement
from edgekit.config.profile import DeviceProfile, RuntimeName, RuntimeSpec, get_runtime
from edgekit.errors import DeviceError
from edgekit.model import Model
from edgekit.pipeline.timing import Agent
from edgekit.progress import Tick, make_agent_callback
from edgekit.remote.agent_file import pack_agent
from edgekit.remote.deploy import check_machine, ensure_runtime
from edgekit.remote.home import DEFAULT, Home
from edgekit.remote.host_names import LOCAL
from edgekit.remote.session import Progress, Session, open_session
from edgekit.remote.staging import forget, get_staged_digests, stage_file, stage_samples
from edgekit_agent.measure.cpu import count_cores, read_name_and_isa
from edgekit_agent.results import DeviceFacts, RuntimeFacts
from edgekit_agent.samples import Samples
from edgekit_agent.worker_jobs import ModelRef

HOST = "host"
_ANY_VERSION = RuntimeSpec(version="")
# Package of each runtime on this machine.
PACKAGES: dict[RuntimeName, str] = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


def get_device_measurement(candidate: Candidate) -> Measurement | None:
    """Return the measurement of a candidate on a device; ``None`` if there is none."""
    return next((m for m in candidate.measurements if m.source != HOST), None)


class Place(Protocol):
    """Machine that can run a model."""

    @property
    def agent(self) -> Agent:
        """Return the agent that runs jobs in this place."""

    def model_ref(self, model: Model) -> ModelRef:
        """Return a reference to the model for the agent; send the model first if needed."""

    def samples(self, samples: Samples) -> Samples:
        """Return the samples by their paths for the agent; send them first if needed."""

    def identity(self, runtime: RuntimeName) -> str:
        """Return a digest of the machine and the runtime, on which all figures depend."""


@dataclass(frozen=True)
class HostPlace:
    """Measuring place on this machine."""

    agent: Session
    threads: int

    def model_ref(self, model: Model) -> ModelRef:
        """Return a reference to the file at its present path."""
        return ModelRef(str(model.path.resolve()), get_runtime(model), self.threads)

    def samples(self, samples: Samples) -> Samples:
        """Return the samples unchanged."""
        return samples

    def identity(self, runtime: RuntimeName) -> str:
        """Return the result of ``compute_host_identity``."""
        return compute_host_identity(runtime)


def compute_host_identity(runtime: RuntimeName) -> str:
    """Return a digest of this machine and a runtime, on which all figures depend."""
    cpu, isa = read_name_and_isa()
    return compute_identity(platform.machine(), cpu, isa, count_cores(), version(PACKAGES[runtime]))


@contextmanager
def open_host_place(profile: DeviceProfile, home: Path) -> Iterator[HostPlace]:
    """Open this machine for measurements, with at most as many threads as it has cores."""
    with open_session(LOCAL, home=str(home)) as session:
        yield HostPlace(session, get_host_threads(profile))


def get_host_threads(profile: DeviceProfile) -> int:
    """Return the number of threads of a model on this machine."""
    return min(profile.hardware.threads, count_cores())


@dataclass(frozen=True)
class DevicePlace:
    """Measuring place on a device behind a session; ``bring`` installs a runtime when needed."""

    agent: Session
    facts: DeviceFacts
    bring: Callable[[RuntimeName], RuntimeFacts]
    threads: int
    progress: Progress
    ready: dict[RuntimeName, RuntimeFacts] = field(default_factory=dict)
    staged: set[str] = field(default_factory=set)  # digests of samples to remove at the end

    def runtime(self, name: RuntimeName) -> RuntimeFacts:
        """Return a runtime of the device; install it if it is missing.

        Raises:
            DeviceError: No runtime is available for the device.
        """
        if name not in self.ready:
            self.ready[name] = self.bring(name)
        return self.ready[name]

    def model_ref(self, model: Model) -> ModelRef:
        """Return a reference to the model in the device's object store, and its runtime.

        Raises:
            DeviceError: The model does not fit one file, or no runtime is available for it.
        """
        if model.beside:
            raise DeviceError(
                f"{model.path.name} is larger than 2 GiB and was not sent", kind="model_failed"
            )
        ready = self.runtime(get_runtime(model))
        path = stage_file(self.agent, model.path, self.progress)
        return ModelRef(path, ready.name, self.threads, ready.site)

    def samples(self, samples: Samples) -> Samples:
        """Return the samples in the device's object store."""
        there = stage_samples(self.agent, samples, self.progress)
        self.staged.update(get_staged_digests(there))
        return there

    def remove_samples(self) -> None:
        """Remove the samples from the device: they may be confidential, such as patients' data."""
        forget(self.agent, self.staged)
        self.staged.clear()

    def identity(self, runtime: RuntimeName) -> str:
        """Return a digest of machine, processor and runtime of the device."""
        facts, version = self.facts, self.runtime(runtime).version
        return compute_identity(facts.machine, facts.cpu, facts.isa, facts.cores, version)


@contextmanager
def open_device_place(
    host: str,
    profile: DeviceProfile | None,
    *,
    cache: Path,
    tick: Tick,
    home: Home = DEFAULT,
    same_machine: bool = False,
) -> Iterator[DevicePlace]:
    """Open a device as a measuring place; runtimes are sent when needed.

    Args:
        host: ``local``, or an argument of ``ssh``.
        profile: Profile that gives the allowed runtime versions and the threads.
        cache: Folder for wheels on this machine.
        tick: Progress callback of transfers.
        home: Folder of edgekit on the device.
        same_machine: Whether to refuse a device of another architecture than the profile's.

    Raises:
        DeviceError: The device cannot be reached.
    """
    with open_session(host, home=home) as session:
        facts = session.facts()
        if same_machine and profile:
            check_machine(host, facts, profile)
        progress = make_agent_callback(tick)

        def bring(name: RuntimeName) -> RuntimeFacts:
            spec = profile.runtimes.get(name, _ANY_VERSION) if profile else _ANY_VERSION
            return ensure_runtime(
                session, facts, name, spec, _get_host_version(name), cache=cache, progress=progress
            )

        threads = min(profile.hardware.threads if profile else facts.cores, facts.cores)
        place = DevicePlace(session, facts, bring, threads, progress)
        try:
            yield place
        except BaseException:
            with contextlib.suppress(DeviceError):  # the first error counts
                place.remove_samples()
            raise
        place.remove_samples()


def _get_host_version(runtime: RuntimeName) -> str:
    """Return the version of a runtime on this machine, which measures the figures of the host."""
    try:
        return version(PACKAGES[runtime])
    except PackageNotFoundError:
        return ""  # no version was tested here: the newest that the profile allows is taken


def compute_identity(machine: str, cpu: str, isa: tuple[str, ...], cores: int, runtime: str) -> str:
    """Return a digest of a machine, its processor and a runtime, on which all figures depend."""
    # The agent measures: another version of it may measure differently.
    facts = json.dumps([machine, cpu, isa, cores, runtime, pack_agent().digest])
    return hashlib.sha256(facts.encode()).hexdigest()
