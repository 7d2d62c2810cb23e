"""Broken pushes to devices on this machine: one case, from its preparation to the next push."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.deliveries.command import PATIENCE_S, Command, CommandResult
from benchmarks.deliveries.judge import (
    DEVICE,
    DONE,
    Delivery,
    DeviceState,
    faults_of,
    faults_of_next,
    name_outcome,
)
from benchmarks.deliveries.links import BreakingLink, Home
from benchmarks.deliveries.site import Site, release_of
from edgekit.bundle.bundle_file import Bundle
from edgekit.remote.agent_file import pack_agent

Result = dict[str, Any]


@dataclass(kw_only=True)
class Case:
    """Push that is going to be interrupted.

    Attributes:
        broke: What interrupted it; empty if it completed unharmed.
        process: The running command.
    """

    site: Site
    rng: random.Random
    home: Home
    bundle: Bundle
    watch_s: float
    before: DeviceState
    hosts: tuple[str, ...] = ("dev",)
    patience_s: float = PATIENCE_S
    process: Command | None = None
    broke: str = ""
    can_be_unknown: bool = False
    can_go_back: bool = True
    others: list[Bundle] = field(default_factory=list)

    def total(self) -> int:
        """Estimate the number of bytes sent to the device."""
        agent = not any((self.home.path / "agent").glob("*.pyz"))
        files = sum(file.bytes for file in self.bundle.manifest.files)
        return files + 8000 + (len(pack_agent().data) if agent else 0)

    def happens(self, what: str) -> None:
        """Record the event that interrupted the push."""
        self.broke = self.broke or what

    def link(self, host: str = "dev", **how: Any) -> BreakingLink:  # noqa: ANN401
        """Put a breaking link before a device."""
        link = BreakingLink(self.site.devices[host].port, **how)
        link.start()
        self.site.connect({host: link.port})
        return link


Breaker = Callable[[Case], contextlib.AbstractContextManager[object]]


def run_case(site: Site, kind: str, breaker: Breaker, template: str, seed: int) -> Result:
    """Break one push; check the device then, after it came to rest, and after the next push."""
    started = time.monotonic()
    rng = random.Random(f"{kind} {seed}")
    site.reset("dev", template)
    bundle = site.bundle(
        rng,
        signed=template == "signed",
        wrong=kind == "unhealthy",
        low_bits=rng.random() < 0.2 and kind != "unhealthy",
    )
    if rng.random() < 0.3 and template not in ("empty", "bare"):
        _forget_agent(site)
    before = site.seen("dev")
    case = Case(
        site=site,
        rng=rng,
        home=Home(
            path=site.devices["dev"].edgekit_home,
            new=release_of(bundle),
            releases_before=frozenset(before.releases),
        ),
        bundle=bundle,
        watch_s=rng.choice((0.0, 3.0, 3.0, 600.0)),
        before=before,
    )
    ended, at_exit = _break(case, breaker)
    result = _judge(case, ended, at_exit)
    return {
        "kind": kind,
        "seed": seed,
        "template": template,
        "watch_s": case.watch_s,
        **result,
        "seconds": round(time.monotonic() - started, 1),
    }


def _forget_agent(site: Site) -> None:
    for path in (site.devices["dev"].edgekit_home / "agent").glob("*.pyz"):
        path.unlink()


def _break(case: Case, breaker: Breaker) -> tuple[list[CommandResult], DeviceState]:
    with breaker(case):
        bundles = [case.bundle, *case.others]
        processes = [
            case.site.start(each, *case.hosts, watch_s=case.watch_s, patience_s=case.patience_s)
            for each in bundles
        ]
        case.process = processes[0]
        ended = [process.wait() for process in processes]
        at_exit = case.site.seen("dev")
    case.site.connect({})
    return ended, at_exit


def _judge(case: Case, ended: list[CommandResult], at_exit: DeviceState) -> Result:
    site = case.site
    site.settle("dev", case.watch_s)
    after = site.seen("dev")
    new = [release_of(each) for each in (case.bundle, *case.others)]
    codes = [each.codes.get("dev", each.code) for each in ended]
    delivery = Delivery(
        code=_code_of_both(codes) if len(codes) > 1 else codes[0],
        new=tuple(new),
        known=site.known,
        before=case.before,
        at_exit=at_exit,
        after=after,
        can_go_back=case.can_go_back and case.watch_s <= 10,
        can_be_unknown=case.can_be_unknown,
    )
    found = faults_of(delivery)
    found += [each.said for each in ended if each.said.startswith(("traceback", "no end"))]
    if len(codes) > 1:
        found += [
            f"exit code 4, yet it serves {name}"
            for name, code in zip(new, codes, strict=True)
            if code == DEVICE and after.current == name
        ]
    if len(case.hosts) > 1:
        found += _faults_of_other(case, ended[0])
    unhealthy = site.health("dev")
    found += [unhealthy] if unhealthy else []
    found += _next_push(case, after)
    return {
        "broke": case.broke,
        "codes": codes,
        "outcome": name_outcome(delivery),
        "went_back": len(after.went_back) > len(case.before.went_back),
        "said": ended[0].said[:300],
        "faults": found,
    }


def _code_of_both(codes: list[int | None]) -> int | None:
    """Combine the codes of two simultaneous pushes to one device; a completed one decides."""
    return DONE if DONE in codes else next((code for code in codes if code is not None), None)


def _faults_of_other(case: Case, ended: CommandResult) -> list[str]:
    """Check the device whose push was not disturbed."""
    seen = case.site.seen("dev2")
    found = [] if seen.current == case.home.new else ["the other device was not served"]
    if ended.codes.get("dev2") != DONE:
        found.append(f"the other device has exit code {ended.codes.get('dev2')}")
    if ended.code != max(ended.codes.values()):
        found.append(f"exit code {ended.code} for {dict(ended.codes)}")
    return found


def _next_push(case: Case, after: DeviceState) -> list[str]:
    site = case.site
    bundle = case.bundle
    if case.broke.startswith("unhealthy") or (case.others and after.current != case.home.new):
        bundle = site.bundle(case.rng, signed=case.bundle.signature is not None)
    failure = site.push_again(bundle, "dev", case.rng.choice((0.0, 60.0)))
    if failure:
        return [f"the next push {failure[:300]}"]
    site.settle("dev", 0.0)
    found = faults_of_next(site.known, after, release_of(bundle), site.seen("dev"))
    unhealthy = site.health("dev")
    return [*found, *([f"next push: {unhealthy}"] if unhealthy else [])]
