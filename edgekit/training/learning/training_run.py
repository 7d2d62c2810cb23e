"""The learning of a student from start to end, with checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgekit.progress import Tick
from edgekit.tflite.ir import Array
from edgekit.training.learning.checkpoint import Checkpoint, read_checkpoint
from edgekit.training.learning.learner import Learner, Progress
from edgekit.training.learning.targets import Targets

Part = tuple[Mapping[str, Array], Mapping[str, Array]]

_WARM_UP = 0.05  # share of the steps
_MEASUREMENTS = 20  # of the held-out samples, evenly spread over the steps
_PATIENCE = 6  # measurements without a better student, in the second half, that end learning
# Steps that are timed, after those in which TensorFlow prepares the graph.
_UNTIMED, _TIMED = 2, 3
_LEAST_STEPS = 20
_MOST_GROWTH = 1.01  # of the packed bits of weights with few bits
# Seconds between checkpoints, and the largest share of the time that they may take.
_EVERY_S, _SHARE = 15.0, 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how fast a student learns.

    Attributes:
        rate: largest change of a weight in a step, relative to the RMS of its tensor.
        steps: number of steps; 0 = as many as fit into ``seconds``.
        seconds: expected time.
    """

    rate: float
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of learning: the best student, or ``None`` if none is better than the first."""

    proto: ModelProto | None
    notes: tuple[str, ...]


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

    def train(self) -> Outcome:
        """Let the student learn, from the last checkpoint on if there is one.

        Raises:
            PassRefused: an operator of the student has no gradient.
        """
        self._tick("learning: preparing", 0, 0)
        first = self._measure()
        step, steps, best, least = 0, self._limits.steps, self._learner.read_average(), first
        found = read_checkpoint(self._resume)
        if found is not None and self._restore(found):
            step, steps, best = found.step, found.steps, dict(found.best)
            outputs, loss, agreement = found.best_facts
            known = None if math.isnan(agreement) else agreement
            least = Progress(outputs=outputs, loss=loss, agreement=known)
        if not steps:
            steps = self._estimate_steps()
        every = max(steps // _MEASUREMENTS, 1)
        worse, written, slow = 0, time.monotonic(), _EVERY_S
        while step < steps and worse < _PATIENCE:
            step += 1
            self._learner.learn(self._draw(step), rate=self._get_rate(step, steps), number=step)
            self._tick(self._stage, step, steps)
            if step % every == 0 or step == steps:
                now = self._measure()
                worse += step > steps // 2
                if not self._held or (now.loss < least.loss and now.growth <= _MOST_GROWTH):
                    best, least, worse = self._learner.read_average(), now, 0
                self._stage = _describe(first, now)
            if self._resume is not None and time.monotonic() - written > slow:
                begun = time.monotonic()
                self._write(step, steps, best, least)
                written = time.monotonic()
                slow = max(_EVERY_S, (written - begun) / _SHARE)
        return self._finish(first, least, best, step)

    def _finish(
        self, first: Progress, least: Progress, best: Mapping[str, Array], steps: int
    ) -> Outcome:
        if self._held and least.loss >= first.loss:
            return Outcome(
                proto=None,
                notes=(f"learning for {steps:,} steps did not help on held-out samples",),
            )
        told = f"learned in {steps:,} steps"
        if self._held:
            told += f"; on held-out samples the {_compare(first, least)}"
        return Outcome(proto=self._learner.write(best), notes=(told,))

    def _measure(self) -> Progress:
        if not self._held:
            return Progress(outputs=math.inf, loss=math.inf, agreement=None)
        return self._learner.measure(self._held)

    def _get_rate(self, step: int, steps: int) -> float:
        """Return the rate of a step: a linear warm-up, then half a cosine down to 0.

        Source: Loshchilov and Hutter, SGDR, ICLR 2017.
        """
        warm = max(round(_WARM_UP * steps), 1)
        if step <= warm:
            return self._limits.rate * step / warm
        done = (step - warm) / (steps - warm + 1)
        return self._limits.rate * 0.5 * (1 + math.cos(math.pi * done))

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
        scale = 10 ** max(int(math.log10(max(fitting, 1))) - 1, 0)
        return max(int(fitting // scale * scale), _LEAST_STEPS)

    def _write(self, step: int, steps: int, best: Mapping[str, Array], least: Progress) -> None:
        assert self._resume is not None
        agreement = math.nan if least.agreement is None else least.agreement
        Checkpoint(
            step=step,
            steps=steps,
            state=self._learner.read_state(),
            best=best,
            best_facts=(least.outputs, least.loss, agreement),
        ).write(self._resume)

    def _restore(self, found: Checkpoint) -> bool:
        """Continue from a checkpoint; return whether it is one of this student."""
        before = self._learner.read_state()
        try:
            self._learner.restore_state(found.state)
        except (KeyError, ValueError):
            self._learner.restore_state(before)
            return False
        return set(found.best) == set(self._learner.read_average())


def _describe(first: Progress, now: Progress) -> str:
    """Return the stage with how far the student has come on held-out samples."""
    return f"learning, {_compare(first, now)}" if math.isfinite(first.loss) else "learning"


def _compare(first: Progress, now: Progress) -> str:
    if first.agreement is not None and now.agreement is not None:
        return f"agreement {100 * first.agreement:.1f} -> {100 * now.agreement:.1f} %"
    return f"output error {np.sqrt(first.outputs):.3g} -> {np.sqrt(now.outputs):.3g}"
