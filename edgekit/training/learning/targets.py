"""Values that a student has to match, with the loss of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LossKind = Literal["logits", "probabilities", "values"]


@dataclass(frozen=True, kw_only=True)
class OutputTarget:
    """A value near the outputs that the student has to match.

    Attributes:
        name: of the value in the student.
        wanted: name of the value in the teacher.
        kind: ``logits`` and ``probabilities`` are compared along the last axis by their divergence
            (Kullback and Leibler 1951), ``values`` by their squared error.
        spread: variance of the teacher's value, by which squared errors are divided.
        weight: factor of the loss.
    """

    name: str
    wanted: str
    kind: LossKind
    spread: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FeatureTarget:
    """An inner value that the student has to match.

    Attributes:
        name: of the value in the student.
        wanted: name of the value in the teacher.
        axis: of the channels.
        channels: the teacher's channel for each of the student's; ``None`` for all of them.
        spread: variance of these channels in the teacher.
        widths: channels of student and teacher where a linear map from the first to the second is
            learned as well (Romero 2015); ``None`` = the value itself has to match.
    """

    name: str
    wanted: str
    axis: int
    channels: tuple[int, ...] | None
    spread: float
    widths: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Targets:
    """All values that a student has to match.

    Attributes:
        outputs: values near the outputs.
        features: inner values.
        feature_weight: factor of the mean loss of the features.
    """

    outputs: tuple[OutputTarget, ...]
    features: tuple[FeatureTarget, ...] = ()
    feature_weight: float = 0.3

    @property
    def teacher_values(self) -> tuple[str, ...]:
        """Return the names of the teacher's values."""
        names = [o.wanted for o in self.outputs] + [f.wanted for f in self.features]
        return tuple(dict.fromkeys(names))

    @property
    def student_values(self) -> tuple[str, ...]:
        """Return the names of the student's values."""
        names = [o.name for o in self.outputs] + [f.name for f in self.features]
        return tuple(dict.fromkeys(names))
