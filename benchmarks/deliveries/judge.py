"""Rules for the state of a device after an interrupted delivery, and their check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Digests = Mapping[str, str]
DONE, DEVICE, UNKNOWN_STATE = 0, 4, 5
# Records and links that are no files of the bundle.
_OWN = ("release.json",)


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """State of a home at one moment, as read by ``deliveries.look``."""

    current: str | None
    previous: str | None
    releases: Mapping[str, Digests]
    watch: Mapping[str, Any] | None
    went_back: tuple[str, ...]
    leftovers: tuple[str, ...]
    objects: tuple[str, ...]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> DeviceState:
        """Build the state from the JSON document that was printed on the device."""
        lists = {name: tuple(found[name]) for name in ("went_back", "leftovers", "objects")}
        return cls(**{**found, **lists})

    @property
    def waits(self) -> bool:
        """Return whether the served release still waits for its confirmation."""
        return self.watch is not None and self.watch.get("release") == self.current


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Interrupted push and its traces.

    Attributes:
        code: Exit code for this host; None if the command itself was killed.
        new: Releases that were pushed; several if commands ran at the same time.
        known: Files of every bundle that was ever pushed.
        at_exit: State when the command ended; None if the device had no power then.
        after: State once the device had come to rest, after the end of a watch.
        can_go_back: Whether anything is left on the device to act on a watch.
    """

    code: int | None
    new: tuple[str, ...]
    known: Mapping[str, Digests]
    before: DeviceState
    at_exit: DeviceState | None
    after: DeviceState
    can_go_back: bool = True
    can_be_unknown: bool = True
    log_can_end: bool = False


def faults_of(delivery: Delivery) -> list[str]:
    """Return all violations of the rules in words; empty if there are none."""
    found = list(_wrong_code(delivery))
    for moment, seen in (("at exit", delivery.at_exit), ("after", delivery.after)):
        if seen is not None:
            found += [f"{moment}: {wrong}" for wrong in _not_whole(delivery, seen)]
    return [*found, *_wrong_previous(delivery), *_wrong_watch(delivery)]


def faults_of_next(
    known: Mapping[str, Digests], before: DeviceState, wanted: str, seen: DeviceState
) -> list[str]:
    """Check the device after the following ordinary push."""
    found = []
    if seen.current != wanted:
        found.append(f"it serves {seen.current}, pushed was {wanted}")
    expected = before.previous if before.current == wanted else before.current
    if seen.previous != expected:
        found.append(f"previous is {seen.previous}, not {expected}")
    if seen.watch is not None:
        found.append("the release waits for its confirmation still")
    found += _find_damage(known, seen)
    if before.current != wanted:  # else nothing was installed, and nothing tidied up
        found += _find_leftovers(known, seen)
    return [f"next push: {wrong}" for wrong in found]


def _find_leftovers(known: Mapping[str, Digests], seen: DeviceState) -> Iterator[str]:
    if seen.leftovers:
        yield f"left over: {', '.join(seen.leftovers)}"
    extra = set(seen.releases) - {seen.current, seen.previous}
    if extra:
        yield f"kept without need: {', '.join(sorted(extra))}"
    kept = {digest for name in (seen.current, seen.previous) for digest in _files(known, name)}
    if set(seen.objects) - kept:
        yield f"{len(set(seen.objects) - kept)} objects that no release needs"


def name_outcome(delivery: Delivery) -> str:
    """Name the release that is finally served: ``new``, ``old`` or ``nothing``."""
    if delivery.after.current in delivery.new:
        return "new"
    return "old" if delivery.after.current else "nothing"


def _wrong_code(delivery: Delivery) -> Iterator[str]:
    code, old = delivery.code, delivery.before.current
    if code not in (None, DONE, DEVICE, UNKNOWN_STATE):
        yield f"exit code {code}"
    if code == UNKNOWN_STATE and not delivery.can_be_unknown:
        yield "exit code 5, yet the device could be asked again"
    for moment, seen in (("at exit", delivery.at_exit), ("after", delivery.after)):
        if seen is None:
            continue
        if code == DONE and seen.current not in delivery.new:
            yield f"exit code 0, yet {moment} it serves {seen.current}"
        if code == DONE and seen.waits:
            yield f"exit code 0, yet {moment} the release waits for its confirmation"
        if code == DEVICE and seen.current != old:
            yield f"exit code 4, yet {moment} it serves {seen.current}"


def _not_whole(delivery: Delivery, seen: DeviceState) -> Iterator[str]:
    allowed = {delivery.before.current, *delivery.new}
    if seen.current not in allowed:
        yield f"it serves {seen.current}, neither old nor new"
    yield from _find_damage(delivery.known, seen)


def _find_damage(known: Mapping[str, Digests], seen: DeviceState) -> list[str]:
    found = []
    for name in {seen.current, seen.previous} - {None}:
        assert name is not None
        there = {k: v for k, v in seen.releases.get(name, {}).items() if k not in _OWN}
        if there != known.get(name):
            found.append(f"{name} is not whole: {sorted(there)}")
        if "release.json" not in seen.releases.get(name, {}):
            found.append(f"{name} has no record")
    return found


def _files(known: Mapping[str, Digests], name: str | None) -> Iterator[str]:
    return iter(known.get(name, {}).values()) if name else iter(())


def _wrong_previous(delivery: Delivery) -> Iterator[str]:
    before, after = delivery.before, delivery.after
    for seen in (delivery.at_exit, after):
        if seen is not None and seen.current is not None and seen.previous == seen.current:
            yield f"previous is the served release {seen.current}"
    returned = len(after.went_back) > len(before.went_back)
    if after.current in delivery.new and after.current != before.current:
        others = {name for name in delivery.new if name in after.releases} - {after.current}
        allowed = {before.current, *others} if len(delivery.new) > 1 else {before.current}
    elif returned:
        allowed = set(delivery.new)
    else:
        allowed = {before.previous, *(delivery.new if delivery.log_can_end else ())}
    if after.previous not in allowed:
        yield f"previous is {after.previous}, not {' or '.join(sorted(map(str, allowed)))}"


def _wrong_watch(delivery: Delivery) -> Iterator[str]:
    if delivery.can_go_back and delivery.after.waits:
        yield "the release was neither confirmed nor did the device go back"
