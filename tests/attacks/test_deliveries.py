"""The benchmark of broken deliveries finds every fault, and some of its cases pass."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.deliveries.judge import Delivery, DeviceState, faults_of, faults_of_next
from benchmarks.deliveries.kinds import KINDS
from benchmarks.deliveries.push import run_case
from benchmarks.deliveries.site import Site
from tests.builders.servers import SSHD

pytestmark = pytest.mark.slow

KNOWN = {name: {"model.onnx": name * 2, "manifest.json": name * 3} for name in "abcn"}


def state(current, previous, **more):
    releases = {n: KNOWN[n] | {"release.json": "r"} for n in (current, previous) if n}
    empty = {"watch": None, "went_back": (), "leftovers": (), "objects": ()}
    return DeviceState(current=current, previous=previous, releases=releases, **empty | more)


WATCH = {"release": "n", "previous": "b"}
OLD, NEW, WAITS = state("b", "a"), state("n", "b"), state("n", "b", watch=WATCH)
RETURNED = state("b", "n", went_back=("b",))


def delivery(code, at_exit, after, **more):
    return Delivery(
        code=code, new=("n",), known=KNOWN, before=OLD, at_exit=at_exit, after=after, **more
    )


def damage(seen):
    return replace(seen, releases={**seen.releases, seen.current: {"model.onnx": "other"}})


@pytest.mark.parametrize(
    ("code", "at_exit", "after"),
    [(0, NEW, NEW), (4, OLD, OLD), (4, RETURNED, RETURNED), (5, WAITS, RETURNED), (5, OLD, NEW)],
)
def test_a_kept_promise_is_not_a_fault(code, at_exit, after):
    assert faults_of(delivery(code, at_exit, after)) == []


@pytest.mark.parametrize(
    ("code", "at_exit", "after", "says"),
    [
        (0, NEW, RETURNED, "exit code 0, yet after it serves b"),
        (0, WAITS, WAITS, "exit code 0, yet at exit the release waits"),
        (0, OLD, OLD, "exit code 0, yet at exit it serves b"),
        (1, OLD, OLD, "exit code 1"),
        (4, NEW, NEW, "exit code 4, yet at exit it serves n"),
        (4, OLD, NEW, "exit code 4, yet after it serves n"),
        (5, WAITS, WAITS, "neither confirmed nor"),
        (None, OLD, damage(OLD), "b is not whole"),
        (None, OLD, damage(NEW), "n is not whole"),
        (None, OLD, state("c", "b"), "neither old nor new"),
        (None, OLD, state(None, None), "neither old nor new"),
        (None, OLD, state("n", "n"), "previous is the served release n"),
        (None, OLD, state("n", "a"), "previous is a, not b"),
        (None, OLD, state("b", "n"), "previous is n, not a"),
        (4, OLD, state("b", "a", went_back=("b",)), "previous is a, not n"),
    ],
)
def test_a_broken_promise_is_a_fault(code, at_exit, after, says):
    assert any(says in fault for fault in faults_of(delivery(code, at_exit, after)))


def test_an_unknown_state_of_a_device_that_answers_is_a_fault():
    assert faults_of(delivery(5, OLD, OLD, can_be_unknown=False))


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (OLD, "pushed was n"),
        (state("n", "a"), "previous is a, not b"),
        (WAITS, "waits"),
        (damage(NEW), "not whole"),
        (replace(NEW, leftovers=("x",)), "left over: x"),
        (replace(NEW, objects=("o",)), "no release needs"),
        (replace(NEW, releases={**NEW.releases, "c": KNOWN["c"]}), "kept without need: c"),
    ],
)
def test_a_wrong_state_after_the_next_push_is_a_fault(seen, says):
    assert faults_of_next(KNOWN, OLD, "n", NEW) == []
    assert any(says in fault for fault in faults_of_next(KNOWN, OLD, "n", seen))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not Path(SSHD).exists():
        pytest.skip("no OpenSSH server on this machine")
    before = dict(os.environ)
    with Site(tmp_path_factory.mktemp("site")).run_servers() as running:
        yield running
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("kind", "template"), [("answer lost", "old form"), ("host killed", "one"), ("resumed", "two")]
)
def test_a_broken_push_keeps_every_promise(site, kind, template):
    result = run_case(site, kind, KINDS[kind], template, 1)
    assert (bool(result["broke"]), result["faults"]) == (True, [])
