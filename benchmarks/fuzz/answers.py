"""Damaged answers of an agent, replayed to a session by a recorded transport."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.fuzz.inputs import mutate_bytes, mutate_json
from edgekit.cli.render.text import format_states
from edgekit.remote.session import Session
from edgekit.remote.transport import LONGEST_LINE_BYTES, Lines
from edgekit_agent.codec import encode
from edgekit_agent.jobs import PlanJob, ProbeJob, StatusJob
from edgekit_agent.results import DeviceFacts, Plan, Release, RuntimeFacts, Status
from edgekit_agent.worker_jobs import Blob
from edgekit_agent.worker_results import Failure, Health

_RELEASE = Release(
    name="ab" * 8,
    model="model.onnx",
    runtime="onnxruntime",
    threads=1,
    site=None,
    golden_samples="golden.npz",
    installed_at="2026-11-30T00:00:00Z",
)
_BLOB = Blob("0" * 64, 10, "0" * 64, 10, "raw")
_GREETING: dict[str, Any] = {"edgekit": {"home": "/h"}}


@dataclass
class _Recorded:
    """Stream that replays recorded output and accepts any input."""

    command_bytes = 0
    chunks: list[bytes]
    lines: Lines = field(init=False)

    def __post_init__(self) -> None:
        self.lines = Lines(lambda timeout_s: self.chunks.pop(0) if self.chunks else b"")

    def send(self, data: memoryview) -> int:
        return len(data)

    def has_output(self) -> bool:
        return bool(self.chunks) or self.lines.has_line()

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        return self.lines.readline(timeout_s, most_bytes)

    def stderr_tail(self) -> str:
        return ""

    def wait(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        self.chunks.clear()


@dataclass
class _Recording:
    name = "dev"
    pythons = ("python3",)
    said: bytes

    def open(self, command: str) -> _Recorded:
        step = max(1, len(self.said) // 5)
        return _Recorded([self.said[i : i + step] for i in range(0, len(self.said), step)])

    def close(self) -> None:
        pass


def use_answer(seed: int) -> None:
    """Replay one damaged conversation to a session and format the results that it accepts."""
    rng = Random(f"answers {seed}")
    job, kind, answer = rng.choice(_conversations())
    lines = [_GREETING, {"progress": {"stage": "working", "done": 1, "total": 3}}, answer]
    place = rng.choice((0, 1, 2, 2, 2))
    lines[place] = mutate_json(lines[place], rng)
    said = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if rng.random() < 0.3:
        said = mutate_bytes(said, rng)
    session = Session(_Recording(said))
    result = session.ask(job, kind, progress=lambda progress: None)
    if isinstance(result, Status):
        format_states([("dev", result)])


def _conversations() -> list[tuple[object, type, dict[str, Any]]]:
    status = Status(current=_RELEASE, previous=None, health=Health(True, 0.1, ""))
    return [
        (StatusJob(home="/h"), Status, {"result": encode(status)}),
        (PlanJob("/h", (_BLOB,)), Plan, {"result": encode(Plan((3,), 1 << 30))}),
        (ProbeJob(home="/h"), DeviceFacts, {"result": encode(_facts())}),
        (StatusJob(home="/h"), Status, {"error": encode(Failure("busy", "it is busy", "", False))}),
    ]


@functools.cache
def _facts() -> DeviceFacts:
    from edgekit_agent.measure.probe import probe

    found = probe(ProbeJob(home="/nonexistent"))
    assert all(isinstance(r, RuntimeFacts) for r in found.runtimes)
    return found
