"""A hostile or broken device causes a one-line error, in bounded time and memory."""

import json
import resource
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import DeviceError
from edgekit.progress import Ticker, make_agent_callback
from edgekit.remote.agent_answers import bounds_of, read_result
from edgekit.remote.local import LocalTransport
from edgekit.remote.python_tags import read_device_python
from edgekit.remote.session import Session
from edgekit_agent.codec import encode
from edgekit_agent.jobs import PlanJob, ProbeJob, StatusJob
from edgekit_agent.results import DeviceFacts, Plan, Status
from edgekit_agent.samples import Column, Samples
from edgekit_agent.worker_jobs import Blob, ModelRef, ScoreJob
from edgekit_agent.worker_results import Health, Tally
from tests.builders import hostile_agent

AGENT = Path(hostile_agent.__file__)
BLOBS = tuple(Blob(f"{i:064x}", 10, f"{i:064x}", 10, "raw") for i in range(3))
PLANS = ("empty plan", "long plan", "plan below", "plan beyond")
ENDLESS = ("endless progress", "slow progress", "slow bytes")
OTHERS = [mode for mode in hostile_agent.ANSWERS if mode not in (*PLANS, *ENDLESS)]


class HostileTransport(LocalTransport):
    """A device with a hostile agent."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def open(self, command):
        return super().open(shlex.join([sys.executable, str(AGENT), self.mode]))


def ask(mode, job, result, **more):
    transport = HostileTransport(mode)
    try:
        return Session(transport).ask(job, result, **more)
    finally:
        transport.close()


def assert_refused(mode, job, result, **more):
    started = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        ask(mode, job, result, **more)
    assert time.monotonic() - started < 20
    assert caught.value.message.startswith("local: ")
    assert len(str(caught.value)) < 5000
    assert caught.value.message.isprintable()
    assert caught.value.hint.isprintable()
    return caught.value.message


@pytest.mark.parametrize("mode", OTHERS)
def test_any_answer_is_valid_or_causes_one_line(mode):
    result = Health if mode in ("not a number", "infinite result") else Status
    assert_refused(mode, StatusJob(home="/h"), result, progress=make_agent_callback(Ticker()))


@pytest.mark.parametrize("mode", PLANS)
def test_a_plan_that_does_not_fit_the_question_is_refused(mode):
    assert "plan" in assert_refused(mode, PlanJob("/h", BLOBS), Plan)


@pytest.mark.parametrize("mode", ENDLESS)
def test_a_job_ends_however_much_a_device_sends(mode):
    said = []
    assert_refused(mode, StatusJob(home="/h"), Status, progress=said.append, total_s=1.0)
    assert len(said) < 5000


def test_a_flood_of_answers_uses_little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for mode in ("many values", "endless line", "deep arrays"):
        assert_refused(mode, StatusJob(home="/h"), Status)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


FACTS = DeviceFacts(
    machine="aarch64",
    system="Linux",
    kernel="6.1",
    libc="glibc 2.36",
    python="3.11.2",
    pointer_bits=64,
    cpu="",
    cores=4,
    isa=(),
    memory_bytes=1 << 30,
    free_memory_bytes=1 << 29,
    free_disk_bytes=1 << 33,
    governor=None,
    temperature_c=None,
    load_1min=None,
    runtimes=(),
)


@pytest.mark.parametrize(
    "claimed",
    [
        {"python": "three"},
        {"python": "3"},
        {"python": "3.99999999999"},
        {"python": "\u0663.11"},
        {"machine": "../../etc"},
        {"machine": ""},
        {"cores": 0},
        {"cores": 1 << 40},
        {"pointer_bits": 65},
        {"free_disk_bytes": -1},
    ],
)
def test_impossible_facts_are_refused(claimed):
    job = ProbeJob("/h")
    whole = json.loads(json.dumps(encode(FACTS)))
    assert read_result(DeviceFacts, whole, job) == FACTS
    with pytest.raises(ValueError, match=r"cores|bits|count|is no"):
        read_result(DeviceFacts, whole | claimed, job)


@pytest.mark.parametrize("libc", ["glibc 2.9999999999", "glibc 99999999.1", "glibc 2", "musl 1.2"])
def test_an_impossible_libc_is_refused(libc):
    with pytest.raises(DeviceError, match="no runtime is built for its libc"):
        read_device_python("dev", replace(FACTS, libc=libc))


@pytest.mark.parametrize(
    "claimed",
    [
        {"n": 9},
        {"correct": 9},
        {"correct": -1},
        {"correct": 3},
        {"hits": "e0e0"},
        {"hits": "zz"},
        {"predictions": [1, 2]},
        {"metric": "top5"},
    ],
)
def test_an_inconsistent_tally_is_refused(claimed):
    column = Column("label", "/h/y", 0, "int64", (3,))
    job = ScoreJob(ModelRef("/h/m", "onnxruntime"), Samples((), label=column), "top1")
    whole = {"metric": "top1", "n": 3, "correct": 2, "hits": "c0", "predictions": [0, 1, 2]}
    assert read_result(Tally, whole, job).correct == 2
    with pytest.raises(ValueError, match=r"inconsistent|bitmap|the metric is|covers"):
        read_result(Tally, whole | claimed, job)


@pytest.mark.parametrize(
    "greeting", ['{"home": 5}', '{"home": "relative"}', '{"home": ["/h"]}', '{"other": 1}']
)
def test_a_greeting_with_wrong_types_causes_one_line(greeting):
    class Greeter(LocalTransport):
        def open(self, command):
            return super().open('echo \'{"edgekit": ' + greeting + "}'")

    transport = Greeter()
    try:
        with pytest.raises(DeviceError, match="invalid answer of the agent") as caught:
            Session(transport).start()
        assert caught.value.message.isprintable()
    finally:
        transport.close()


def test_the_limits_of_an_answer_grow_with_the_work_only():
    def bounds(rows):
        column = Column("label", "/h/y", 0, "int64", (rows,))
        return bounds_of(
            ScoreJob(ModelRef("/h/m", "onnxruntime"), Samples((), label=column), "top1")
        )

    assert bounds_of(PlanJob("/h", BLOBS)).total_s < bounds_of(StatusJob("/h")).total_s <= 3600
    assert bounds(10).total_s < bounds(1000).total_s
    assert bounds(1_000_000).line_bytes < 64 << 20
    assert bounds_of(StatusJob("/h")).line_bytes <= 1 << 20
