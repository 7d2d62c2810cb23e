"""Ways in which the link of a push breaks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from benchmarks.deliveries.links import STAGES, act_at_stage
from benchmarks.deliveries.push import Case

LATE_STAGES = ("staging", "laid", "watched", "switched")
LATER_S = (0.0, 0.0, 0.0, 0.01, 0.05, 0.2)


@contextlib.contextmanager
def cut_upwards(case: Case) -> Iterator[None]:
    """Cut the link after a number of bytes to the device."""
    at = int(case.total() * case.rng.uniform(0.0, 1.05))
    link = case.link(cut_after=at, comes_back=comes_back(case))
    yield
    if link.broken:
        case.happens(f"after {at} bytes up")
    link.stop()


@contextlib.contextmanager
def cut_downwards(case: Case) -> Iterator[None]:
    """Cut the link after a number of bytes from the device."""
    at = int(case.rng.uniform(500, 8000))
    link = case.link(down_after=at, comes_back=comes_back(case))
    yield
    if link.broken:
        case.happens(f"after {at} bytes down")
    link.stop()


@contextlib.contextmanager
def cut_at_stage(case: Case) -> Iterator[None]:
    """Cut the link when the install reaches a stage."""
    stage, later_s = moment(case, STAGES)
    link = case.link(comes_back=comes_back(case))
    with act_at_stage(lambda: case.home.reached(stage), link.break_now, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"at {stage} + {later_s} s")
    link.stop()


@contextlib.contextmanager
def lose_answer(case: Case) -> Iterator[None]:
    """Hold back the answer of the install, and cut the link once the device has switched."""
    link = case.link(comes_back=comes_back(case))
    with (
        act_at_stage(lambda: case.home.reached("laid"), link.holds.set),
        act_at_stage(lambda: case.home.reached("switched"), _release(link.holds, link.break_now)),
    ):
        yield
    if link.broken:
        case.happens("the answer was lost")
    link.stop()


@contextlib.contextmanager
def lose_confirmation(case: Case) -> Iterator[None]:
    """Cut the link when the release is live and waits for its confirmation."""
    case.watch_s = case.watch_s or 3.0
    link = case.link(comes_back=comes_back(case), breaks=case.rng.choice((1, 1, 2)))
    later_s = case.rng.choice((0.0, 0.02, 0.05, 0.1, 0.2))
    with act_at_stage(
        lambda: case.home.reached("switched"), link.break_now, later_s=later_s
    ) as acted:
        yield
    if acted.is_set():
        case.happens(f"switched + {later_s} s")
    link.stop()


@contextlib.contextmanager
def cut_again(case: Case) -> Iterator[None]:
    """Cut the link during the install, and the next one, by which the device is asked again."""
    case.can_be_unknown = True
    stage, later_s = moment(case, LATE_STAGES)
    link = case.link(breaks=2, down_after=None)

    def break_both() -> None:
        link.break_now()
        link.down_after = int(case.rng.uniform(300, 6000))

    with act_at_stage(lambda: case.home.reached(stage), break_both, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"at {stage} + {later_s} s, {link.broken} times")
    link.stop()


@contextlib.contextmanager
def fall_silent(case: Case) -> Iterator[None]:
    """Stop all traffic of the link from a stage on, without closing it."""
    case.patience_s = 4.0
    stage, later_s = moment(case, STAGES)
    link = case.link(falls_silent=True, comes_back=comes_back(case))
    with act_at_stage(lambda: case.home.reached(stage), link.break_now, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"silent at {stage} + {later_s} s")
    link.stop()


def comes_back(case: Case) -> bool:
    """Choose whether the device can be reached again."""
    does = case.rng.random() < 0.65
    case.can_be_unknown = case.can_be_unknown or not does
    return does


def moment(case: Case, stages: tuple[str, ...]) -> tuple[str, float]:
    """Choose a stage, and how much later something happens."""
    stages = stages if case.watch_s else tuple(s for s in stages if s != "watched")
    # Late stages are more critical and get a higher weight.
    late = [stage for stage in stages if stage in LATE_STAGES]
    return case.rng.choice([*stages, *late, *late]), case.rng.choice(LATER_S)


def _release(event: threading.Event, act: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        act()
        event.clear()

    return both
