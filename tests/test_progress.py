"""Progress lines: amount done, rate and remaining time."""

from __future__ import annotations

import io
import sys

import pytest

from edgekit import progress
from edgekit.progress import Pace, Ticker, format_duration, merge_rounds


class Clock:
    """A clock that tests set."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def listen(monkeypatch, stream):
    """To be called by the test itself: pytest puts its own stream there before."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_what_is_left_follows_the_pace_of_late_and_not_a_slow_start():
    pace = Pace(0.0)
    pace.add(0, 0.0)
    pace.add(1, 60.0)  # loading, say
    for second in range(61, 121):
        pace.add(second - 59, float(second))

    assert pace.remaining_s(101, 120.0) == pytest.approx(40, rel=0.05)


def test_without_progress_no_remaining_time_is_shown():
    pace = Pace(0.0)
    assert pace.remaining_s(100, 10.0) is None
    pace.add(0, 0.0)
    assert pace.remaining_s(100, 10.0) is None
    pace.add(5, 10.0)
    assert pace.remaining_s(0, 10.0) is None


def test_the_remaining_time_decreases_between_updates():
    pace = Pace(0.0)
    for second in range(11):
        pace.add(second, float(second))

    assert pace.remaining_s(20, 10.0) == pytest.approx(10)
    assert pace.remaining_s(20, 14.0) == pytest.approx(6)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59, "59 s"), (150, "2 min"), (4000, "1 h 7 min")]
)
def test_times_are_as_exact_as_anyone_needs(seconds, said):
    assert format_duration(seconds) == said


def test_a_log_gets_a_line_a_stage_one_after_two_seconds_and_one_every_half_minute(
    clock, monkeypatch
):
    log = listen(monkeypatch, io.StringIO())
    tick = Ticker()
    for n in range(200):
        tick("score", n, 200)
        clock.now += 0.5
    tick("timing", 0, 0)

    lines = log.getvalue().splitlines()
    assert lines[0] == "score"
    assert lines[-1] == "timing"
    assert lines[1:-1] == [
        "score 4/200 (about 2 min left)",
        "score 64/200 (about 1 min left)",
        "score 124/200 (about 38 s left)",
        "score 184/200 (about 8 s left)",
    ]


def test_a_terminal_shows_counts_at_once_and_the_time_that_is_left_after_two_seconds(
    clock, monkeypatch
):
    terminal = listen(monkeypatch, Terminal())
    tick = Ticker()
    tick("score", 0, 10)
    clock.now += 1
    tick("score", 1, 10)
    assert terminal.getvalue().endswith("score 1/10")
    clock.now += 3
    tick("score", 4, 10)
    assert terminal.getvalue().endswith("score 4/10 (about 6 s left)")


def test_a_stage_without_counts_says_how_long_it_has_taken(clock, monkeypatch):
    terminal = listen(monkeypatch, Terminal())
    tick = Ticker()
    tick("clean", 0, 0)
    clock.now += 5
    tick("clean", 0, 0)
    assert terminal.getvalue().endswith("clean (5 s so far)")


def test_bytes_are_shown_in_percent(clock, monkeypatch):
    terminal = listen(monkeypatch, Terminal())
    tick = Ticker()
    tick("receive", 0, 4 << 20)
    clock.now += 1
    tick("receive", 1 << 20, 4 << 20)
    assert terminal.getvalue().endswith("receive 25 %")


def test_a_line_that_is_too_long_keeps_its_end(clock, monkeypatch):
    terminal = listen(monkeypatch, Terminal())
    tick = Ticker()
    tick("x" * 200, 3, 10)
    line = terminal.getvalue().rpartition("\r\x1b[K")[2]
    assert len(line) == 78
    assert line.endswith("x 3/10")


def test_the_elapsed_time_is_shown_without_updates(monkeypatch):
    terminal = listen(monkeypatch, Terminal())
    monkeypatch.setattr(progress, "_REFRESH_S", 0.02)
    monkeypatch.setattr(progress, "_SHOWN_AFTER_S", 0.05)
    tick = Ticker()
    tick.start()
    tick("converting m.keras", 0, 0)
    for _ in range(200):
        if "so far" in terminal.getvalue():
            break
        progress.time.sleep(0.02)
    tick.clear()

    assert "converting m.keras (1 s so far)" in terminal.getvalue()
    ended = terminal.getvalue()
    assert ended.endswith("\r\x1b[K")
    progress.time.sleep(0.1)
    assert terminal.getvalue() == ended


def test_several_rounds_of_a_stage_count_as_one_whole():
    told = []
    count = merge_rounds(lambda done, total: told.append(100 * done / total), 3)
    for total in (2, 4, 1):
        for done in range(total):
            count(done + 1, total)

    whole = [0, 100 / 6, 100 / 3, *(100 / 3 + 25 / 3 * n for n in (1, 2, 3, 4)), 100]
    assert told == pytest.approx(whole, abs=0.01)


def test_a_log_of_a_command_that_ends_at_once_has_no_stage(clock, monkeypatch):
    log = listen(monkeypatch, io.StringIO())
    tick = Ticker()
    tick("reading the model", 0, 0)
    clock.now += 1
    tick.clear()
    assert log.getvalue() == ""
