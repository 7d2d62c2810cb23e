"""Batches for learning: samples changed at random, with the teacher's values for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.augmentation import (
    Augmentation,
    choose_augmentation,
)
from edgekit.compression.distillation.sample_pool import SamplePool
from edgekit.compression.distillation.value_session import ValueSession
from edgekit.training.learning.targets import Targets

Arrays = Mapping[str, NDArray[np.generic]]
Part = tuple[Arrays, Arrays]  # inputs, and the teacher's values for them

_TRIED = 64


class Lessons:
    """Source of batches for learning; a batch depends on the seed and its number alone.

    Args:
        pool: samples to draw from.
        teacher: of the values.
        augmentation: random changes of the samples, if any.
        batch: samples in a batch.
        seed: of every random choice.
    """

    def __init__(
        self,
        pool: SamplePool,
        teacher: ValueSession,
        *,
        augmentation: Augmentation | None,
        batch: int,
        seed: int,
    ) -> None:
        self._pool, self._teacher = pool, teacher
        self._augmentation = augmentation
        self._batch, self._seed = batch, seed

    def draw(self, number: int) -> list[Part]:
        """Return the batch of a number, in as many runs as the model demands."""
        rng = np.random.default_rng((self._seed, number))
        parts = self._pool.draw(self._batch, rng)
        if self._augmentation is not None:
            parts = [self._augmentation.apply(part, rng) for part in parts]
        return self.answer(parts)

    def answer(self, parts: Sequence[Arrays]) -> list[Part]:
        """Return runs with the teacher's values for them."""
        return [(part, self._teacher.compute(part)) for part in parts]


def find_augmentation(
    pool: SamplePool, teacher: ValueSession, targets: Targets, *, fixed: Collection[str], seed: int
) -> Augmentation:
    """Choose the random changes of samples that leave most of the teacher's answers the same.

    Args:
        pool: samples to try them on.
        teacher: of the values.
        targets: what counts as an answer.
        fixed: inputs that are never changed, such as states.
        seed: of every random choice.
    """
    rng = np.random.default_rng(seed)
    parts = pool.draw(min(_TRIED, max(pool.count // 2, 1)), rng)
    batch = parts[0]
    wanted = teacher.compute(batch)
    return choose_augmentation(
        batch,
        axes=pool.axes,
        constants={*pool.constants, *fixed},
        seed=seed,
        agree=lambda changed: _compute_agreement(targets, wanted, teacher.compute(changed)),
    )


def _compute_agreement(targets: Targets, before: Arrays, after: Arrays) -> float:
    """Compute how much of a teacher's answers stays the same, from 0 to 1."""
    shares = []
    for target in targets.outputs:
        old, new = (np.asarray(v[target.wanted], np.float64) for v in (before, after))
        if target.kind == "values":
            error = np.sqrt(np.nanmean(np.square(np.clip(new - old, -1e6, 1e6))) / target.spread)
            shares.append(max(1 - float(error), 0.0))
        else:
            shares.append(float((old.argmax(-1) == new.argmax(-1)).mean()))
    return sum(shares) / len(shares)
