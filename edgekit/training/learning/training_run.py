"""Learning of a student from start to end, with checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgekit.progress import Tick
from edgekit.tflite.ir import Array
from edgekit.training.learning.checkpoint import Checkpoint, read_checkpoint
from edgekit.training.learning.delayed_interruption import delay_interruption
from edgekit.training.learning.learner import Learner, Progress
from edgekit.training.learning.targets import Targets

Part = tuple[Mapping[str, Array], Mapping[str, Array]]

_WARM_UP = 0.05  # share of the steps
_MEASUREMENTS = 20  # of the held-out samples, evenly spread over the steps
_PATIENCE = 6  # measurements without a better student, in the second half, that end learning
# Steps that are timed, after those in which TensorFlow prepares the graph.
_UNTIMED, _TIMED = 2, 3
_LEAST_STEPS = 20
# Rates of students with float weights alone and with integer weights, and the number of steps from
# which on they are used in full.
_FLOAT_RATE, _INTEGER_RATE, _LONG_RUN = 1e-2, 3e-3, 2000
_MOST_GROWTH = 1.01  # of the packed bits of weights with few bits
# Seconds between checkpoints, and the largest share of the time that they may take.
_EVERY_S, _SHARE = 15.0, 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Number and size of the steps of learning.

    Attributes:
        rate: largest change of a weight in a step, relative to the RMS of its tensor; 0 = one that
            suits the weights, smaller for few steps, as the first steps at a high rate do damage
            that takes many steps to repair, and for small batches.
        batch_share: size of a batch, relative to that for which the rates are meant.
        steps: number of steps; 0 = as many as fit into ``seconds``, at most ``most_steps``.
        most_steps: number of steps after which a few samples teach nothing more.
        seconds: expected time.
    """

    rate: float
    batch_share: float
    steps: int
    most_steps: int
    seconds: float

    def choose_rate(self, steps: int, *, integers: bool) -> float:
        """Return the rate for a number of steps of a student with or without integer weights."""
        full_rate = _INTEGER_RATE if integers else _FLOAT_RATE
        return self.rate or full_rate * math.sqrt(min(1.0, steps / _LONG_RUN) * self.batch_share)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of learning: the best student, or ``None`` if none is better than the first."""

    proto: ModelProto | None
    notes: tuple[str, ...]


@dataclass(kw_only=True)
class _State:
    """State of learning: the steps done and planned, and the best student so far."""

    step: int
    steps: int
    best: Mapping[str, Array]
    least: Progress


class TrainingRun:
    """Learning of one student.

    Args:
        proto: the student.
        targets: values to match.
        limits: number and size of the steps.
        draw: returns the batch of a step.
        held: samples that are not learned from, on which the best student is chosen; if empty, the
            last one is taken.
        resume: folder for checkpoints; ``None`` = none.
        tick: progress callback.
    """

    def __init__(
        self,
        proto: ModelProto,
        targets: Targets,
        *,
        limits: Limits,
        draw: Callable[[int], Sequence[Part]],
        held: Sequence[Part],
        resume: Path | None,
        tick: Tick,
    ) -> None:
        self._limits = limits
        self._draw, self._held = draw, held
        self._resume, self._tick = resume, tick
        self._learner = Learner(proto, targets)
        self._stage = "learning"
        self._faults: tuple[str, ...] = ()
        # An interruption inside a step leaves a state that no checkpoint may hold.
        self._is_between_steps = True

    def train(self) -> Outcome:
        """Let the student learn, from the last checkpoint on if there is one.

        Raises:
            PassRefused: an operator of the student has no gradient.
        """
        self._tick("learning: preparing", 0, 0)
        first = self._measure()
        state = self._start(first)
        try:
            self._learn(state, first)
        except BaseException:
            if self._is_between_steps:
                self._write(state)
            raise
        outcome = self._finish(state, first)
        return replace(outcome, notes=(*outcome.notes, *self._faults))

    def _start(self, first: Progress) -> _State:
        """Return the state of the last checkpoint, or that of a new run."""
        found = read_checkpoint(self._resume)
        if found is not None and self._restore(found):
            outputs, agreement, *losses = found.best_facts
            known = None if math.isnan(agreement) else agreement
            least = Progress(outputs=outputs, losses=tuple(losses), agreement=known)
            return _State(step=found.step, steps=found.steps, best=found.best, least=least)
        steps = self._limits.steps or self._estimate_steps()
        best = self._learner.read_average()
        return _State(step=0, steps=steps, best=best, least=replace(first, losses=()))

    def _learn(self, state: _State, first: Progress) -> None:
        """Do the remaining steps, and keep the best student."""
        every = max(state.steps // _MEASUREMENTS, 1)
        worse, written, pause = 0, time.monotonic(), _EVERY_S
        while state.step < state.steps and worse < _PATIENCE:
            number = state.step + 1
            rate = self._get_rate(number, state.steps)
            self._is_between_steps = False
            with delay_interruption():
                self._learner.learn(self._draw(number), rate=rate, number=number)
                if number % every == 0 or number == state.steps:
                    now = self._measure()
                    worse += number > state.steps // 2
                    if self._is_better(now, number, state):
                        state.best, state.least, worse = self._learner.read_average(), now, 0
                    self._stage = _describe(first, now)
                state.step = number
                self._is_between_steps = True
            self._tick(self._stage, number, state.steps)
            if time.monotonic() - written > pause:
                begun = time.monotonic()
                self._write(state)
                written = time.monotonic()
                pause = max(_EVERY_S, (written - begun) / _SHARE)

    def _is_better(self, now: Progress, number: int, state: _State) -> bool:
        """Return whether the student after a step is the best one so far.

        Students of the first half do not count: the rate is still high, and a few held-out samples
        would favor one by chance.
        """
        if number <= state.steps // 2 or now.growth > _MOST_GROWTH:
            return False
        return not self._held or now.loss < state.least.loss

    def _finish(self, state: _State, first: Progress) -> Outcome:
        if self._held and not state.least.losses:
            told = (
                f"learning for {_count_steps(state.step)} gave no student with finite outputs and "
                "the same packed size"
            )
            return Outcome(proto=None, notes=(told,))
        if self._held and state.least.is_worse(first):
            told = f"learning for {_count_steps(state.step)} did not help on held-out samples"
            return Outcome(proto=None, notes=(told,))
        told = f"learned in {_count_steps(state.step)}"
        if self._held:
            told += f"; on held-out samples the {_compare(first, state.least)}"
        return Outcome(proto=self._learner.write(state.best), notes=(told,))

    def _measure(self) -> Progress:
        if not self._held:
            return Progress(outputs=math.inf, losses=(), agreement=None)
        return self._learner.measure(self._held)

    def _get_rate(self, step: int, steps: int) -> float:
        """Return the rate of a step: a linear warm-up, then half a cosine down to 0.

        Source: Loshchilov and Hutter, SGDR, ICLR 2017.
        """
        warm = max(round(_WARM_UP * steps), 1)
        rate = self._limits.choose_rate(steps, integers=self._learner.has_integers)
        if step <= warm:
            return rate * step / warm
        done = (step - warm) / (steps - warm + 1)
        return rate * 0.5 * (1 + math.cos(math.pi * done))

    def _estimate_steps(self) -> int:
        """Return the number of steps that fit into the time, two digits of it.

        The timed steps change nothing, as their rate is 0.
        """
        state = self._learner.read_state()
        times = []
        for number in range(1, _UNTIMED + _TIMED + 1):
            start = time.monotonic()
            self._learner.learn(self._draw(number), rate=0.0, number=number)
            times.append(time.monotonic() - start)
        self._learner.restore_state(state)
        fitting = self._limits.seconds / max(min(times[_UNTIMED:]), 1e-4)
        fitting = min(fitting, self._limits.most_steps)
        scale = 10 ** max(int(math.log10(max(fitting, 1))) - 1, 0)
        return max(int(fitting // scale * scale), _LEAST_STEPS)

    def _write(self, state: _State) -> None:
        """Write a checkpoint; on a full disk, learning goes on without any."""
        if self._resume is None or not state.step:
            return
        try:
            self._write_to(self._resume, state)
        except OSError as error:
            self._resume = None
            self._faults = (f"checkpoints of learning cannot be written: {error.strerror}",)

    def _write_to(self, folder: Path, state: _State) -> None:
        least = state.least
        agreement = math.nan if least.agreement is None else least.agreement
        Checkpoint(
            step=state.step,
            steps=state.steps,
            state=self._learner.read_state(),
            best=state.best,
            best_facts=(least.outputs, agreement, *least.losses),
        ).write(folder)

    def _restore(self, found: Checkpoint) -> bool:
        """Continue from a checkpoint; return whether it is one of this student."""
        before = self._learner.read_state()
        try:
            self._learner.restore_state(found.state)
        except (KeyError, ValueError):
            self._learner.restore_state(before)
            return False
        return set(found.best) == set(self._learner.read_average())


def _count_steps(count: int) -> str:
    return f"{count:,} step{'s' if count != 1 else ''}"


def _describe(first: Progress, now: Progress) -> str:
    """Return the stage with how far the student has come on held-out samples."""
    return f"learning, {_compare(first, now)}" if first.losses else "learning"


def _compare(first: Progress, now: Progress) -> str:
    if first.agreement is not None and now.agreement is not None:
        return f"agreement {100 * first.agreement:.1f} -> {100 * now.agreement:.1f} %"
    return f"output error {np.sqrt(first.outputs):.3g} -> {np.sqrt(now.outputs):.3g}"
