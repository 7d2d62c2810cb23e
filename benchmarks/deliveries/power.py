"""Power cuts of emulated devices: at file operations of the agent, and at other moments."""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deliveries.command import Command, CommandResult
from benchmarks.deliveries.device import (
    BARE,
    READY,
    Device,
    connect_device,
    prepare_templates,
    thaw,
)
from benchmarks.deliveries.judge import (
    DONE,
    Delivery,
    DeviceState,
    Digests,
    faults_of,
    faults_of_next,
    name_outcome,
)
from benchmarks.deliveries.site import cache, files_of, release_of
from edgekit.bundle.bundle_file import Bundle
from edgekit.errors import EdgekitError
from edgekit.remote.confirmation import WatchTerms
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit_agent.jobs import StatusJob
from edgekit_agent.results import Status
from tests.builders.devices import home
from tests.builders.servers import make_bundle

Result = dict[str, Any]
_RELEASE = r".*/releases/[0-9a-f]{16}"
_MOST_S = 600.0
_DONE = "right after the end of the push"
# Number of the agent's file operations in a push to a device that has other releases.
_OPERATIONS = 60


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Moment of a power cut.

    Attributes:
        operation, place, nth: File operation of the agent.
        before: Whether to cut before it, not after it.
        by_watcher: Whether it is an operation of the process that goes back.
        later_s: Time for which the agent continues before the power is cut.
        watch_s: Time for which the release may wait for its confirmation; 0 = it is not watched.
        by_app: Whether an app is to confirm, and does not.
        can_be_confirmed: Whether the release may have been confirmed by then.
    """

    kind: str
    operation: str = ".*"
    place: str = ".*"
    nth: int = 1
    before: bool = False
    by_watcher: bool = False
    later_s: float | None = None
    watch_s: float = 600.0
    by_app: bool = False
    can_be_confirmed: bool = False
    template: str = READY


def _cut_at_switch(operation: str, place: str, *, before: bool = False, **how: Any) -> Cut:  # noqa: ANN401
    return Cut(
        kind="power cut at the switch", operation=operation, place=place, before=before, **how
    )


def _cut_going_back(operation: str, place: str, *, before: bool = False) -> Cut:
    return Cut(
        kind="power cut while going back",
        operation=operation,
        place=place,
        before=before,
        by_watcher=True,
        by_app=True,
        watch_s=5.0,
    )


# In the order of the steps: record, folder of the release, watch, links, tidying up, confirmation.
CUTS = (
    _cut_at_switch("replace", r".*/\.staging-[0-9a-f]+/release\.json", before=True),
    _cut_at_switch("rename", _RELEASE),
    _cut_at_switch("replace", r".*/watch\.json", before=True),
    _cut_at_switch("replace", r".*/watch\.json"),
    _cut_at_switch("replace", rf"{_RELEASE}/\.previous", before=True),
    _cut_at_switch("replace", rf"{_RELEASE}/\.previous", watch_s=0.0),
    _cut_at_switch("symlink", r".*/\.current\.[0-9a-f]+\.tmp"),
    _cut_at_switch("replace", r".*/current", before=True),
    _cut_at_switch("replace", r".*/current"),
    _cut_at_switch("replace", r".*/current", watch_s=0.0),
    _cut_at_switch("unlink", rf"{_RELEASE}/\.previous", before=True),
    _cut_at_switch("unlink", rf"{_RELEASE}/\.previous", watch_s=0.0),
    _cut_at_switch("rename", r".*/releases/\.staging-[0-9a-f]+"),
    _cut_at_switch("unlink", r".*/watch\.json", before=True),
    _cut_at_switch("unlink", r".*/watch\.json", can_be_confirmed=True),
    _cut_going_back("replace", r".*/current", before=True),
    _cut_going_back("replace", r".*/current"),
    _cut_going_back("unlink", r".*/watch\.json"),
    Cut(kind="power cut in the watch", operation="unlink", place=rf"{_RELEASE}/\.previous",
        later_s=8.0, by_app=True),
    Cut(kind="power cut with a runtime", operation="rename", place=r".*/runtimes/[^/.][^/]*",
        before=True, template=BARE),
    Cut(kind="power cut with a runtime", operation="rename", place=r".*/runtimes/[^/.][^/]*",
        template=BARE),
)  # fmt: skip


def cut_power(count: int, seed: int, done: Sequence[Result]) -> Iterator[Result]:
    """Cut the power ``count`` times, each time in the middle of a push."""
    scripts = Path(os.environ.get("EDGEKIT_DEVICES", ""))
    if not (scripts / "boot.sh").is_file():
        raise SystemExit("EDGEKIT_DEVICES names no folder with boot.sh: use --power-cuts 0")
    # An image of its own, with cron.
    os.environ.setdefault("DEVICE_HOME", str(home() / "deliveries"))
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        folder = Path(name)
        os.environ.setdefault("EDGEKIT_CACHE", str(folder / "cache"))
        os.environ["EDGEKIT_CONFIG"] = str(folder / "config")
        known = prepare_templates(scripts, folder)
        for number in range(len(done), count):
            yield _run_case(scripts, folder, known, cut_of(number, seed), seed + number)


def cut_of(number: int, seed: int) -> Cut:
    """Return one of the listed moments, or after these a random operation."""
    if number < len(CUTS):
        return CUTS[number]
    rng = random.Random(f"{seed} {number}")
    later_s = rng.choice((None, rng.uniform(0.0, 1.0)))
    return Cut(
        kind="power cut anywhere",
        nth=rng.randint(1, _OPERATIONS),
        later_s=later_s,
        watch_s=rng.choice((0.0, 600.0)),
        can_be_confirmed=True,
    )


def _run_case(
    scripts: Path, folder: Path, known: dict[str, Digests], cut: Cut, seed: int
) -> Result:
    started = time.monotonic()
    bundle = make_bundle(folder / f"bundle{seed}", seed=1000 + seed, arch="aarch64")
    known[release_of(bundle)] = files_of(bundle)
    with connect_device(thaw(scripts, cut.template)) as device:
        before = device.seen()
        place, ended = _push_until_cut(device, bundle, cut)
        device.boot()
        found, after = _judge(device, known, bundle, before, cut, ended)
    return {
        "kind": cut.kind,
        "seed": seed,
        "template": cut.template.removeprefix("edgekit-"),
        "watch_s": cut.watch_s,
        "broke": place,
        "codes": [ended.code],
        "outcome": name_outcome(after),
        "went_back": len(after.after.went_back) > len(before.went_back),
        "said": ended.said[:300],
        "faults": found,
        "seconds": round(time.monotonic() - started, 1),
    }


def _push_until_cut(device: Device, bundle: Bundle, cut: Cut) -> tuple[str, CommandResult]:
    """Push and cut the power; return where the cut was, and the result of the command."""
    device.aim(
        {
            "operation": cut.operation,
            "place": cut.place,
            "nth": cut.nth,
            "before": cut.before,
            "by_watcher": cut.by_watcher,
            "goes_on": cut.later_s is not None,
        }
    )
    listener = device.listen()
    more = ("--app-confirms",) if cut.by_app else ()
    command = Command("push", bundle.path, device.name, "--watch", f"{cut.watch_s:g}", *more)
    announced = _wait_for_operation(listener, command)
    if cut.later_s is not None:
        time.sleep(cut.later_s)
    device.cut_power()
    listener.kill()
    listener.wait()
    when = "before" if cut.before else f"{cut.later_s or 0:.1f} s after"
    return f"{when} {announced}" if announced else _DONE, command.wait()


def _wait_for_operation(listener: subprocess.Popen[str], command: Command) -> str:
    """Wait for the announcement of the selected operation; empty if the push ends without it."""
    assert listener.stdout is not None
    until = time.monotonic() + _MOST_S
    while time.monotonic() < until and not command.is_over():
        if select.select([listener.stdout], [], [], 0.05)[0]:
            return listener.stdout.readline().strip()
    return ""


def _judge(
    device: Device,
    known: dict[str, Digests],
    bundle: Bundle,
    before: DeviceState,
    cut: Cut,
    ended: CommandResult,
) -> tuple[list[str], Delivery]:
    after = device.settle()
    new = release_of(bundle)
    delivery = Delivery(
        code=ended.code,
        new=(new,),
        known=known,
        before=before,
        at_exit=None,
        after=after,
        log_can_end=cut.by_watcher,
    )
    found = faults_of(delivery)
    is_kept = after.current == new and ended.code != DONE
    if cut.watch_s and is_kept and not cut.can_be_confirmed and before.current is not None:
        found.append("it serves a release on after the power cut that nobody confirmed")
    with contextlib.ExitStack() as closing:
        try:
            session = closing.enter_context(open_session(device.name))
            if after.current not in (None, new):  # the push below checks the new one
                session.ask(StatusJob(home=session.home, check=after.current), Status)
            push(bundle, session, cache=cache() / "wheels", watch=WatchTerms(seconds=60.0))
        except EdgekitError as error:
            return [*found, f"after the power cut: {error}"], delivery
    return [*found, *faults_of_next(known, after, new, device.settle())], delivery
