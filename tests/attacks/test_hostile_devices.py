"""A hostile or broken device costs its own turn: one line, bounded time and memory."""

import resource
import shlex
import sys
import time
from pathlib import Path

import pytest

from edgekit.errors import DeviceError
from edgekit.progress import Ticker
from edgekit.remote.local import LocalTransport
from edgekit.remote.session import Session
from edgekit_agent.jobs import Blob, PlanJob, StatusJob
from edgekit_agent.results import Health, Plan, Status
from tests.attacks import hostile_agent

AGENT = Path(hostile_agent.__file__)
BLOBS = tuple(Blob(f"{i:064x}", 10, f"{i:064x}", 10, "raw") for i in range(3))
PLANS = ("empty plan", "long plan", "plan below", "plan beyond")
ENDLESS = ("endless progress", "slow progress", "slow bytes")
OTHERS = [mode for mode in hostile_agent.ANSWERS if mode not in (*PLANS, *ENDLESS)]


class HostileTransport(LocalTransport):
    """A device whose agent is a hostile one."""

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


def refused(mode, job, result, **more):
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
def test_an_answer_of_any_kind_is_an_answer_or_one_line(mode):
    result = Health if mode in ("not a number", "infinite result") else Status
    refused(mode, StatusJob(home="/h"), result, progress=Ticker().said)


@pytest.mark.parametrize("mode", PLANS)
def test_a_plan_that_does_not_fit_the_question_is_refused(mode):
    assert "plan" in refused(mode, PlanJob("/h", BLOBS), Plan)


@pytest.mark.parametrize("mode", ENDLESS)
def test_a_job_ends_however_much_a_device_says(mode):
    said = []
    refused(mode, StatusJob(home="/h"), Status, progress=said.append, total_s=1.0)
    assert len(said) < 5000


def test_a_flood_costs_little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for mode in ("many values", "endless line", "deep arrays"):
        refused(mode, StatusJob(home="/h"), Status)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
