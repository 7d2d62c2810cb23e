"""Checkpoints of learning, from which an interrupted run continues."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.tflite.ir import Array
from edgekit_agent.files import open_atomic

_FILE = "learning.npz"
_LEAST_FACTS = 2
_STATE, _BEST = "state/", "best/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of learning after a step.

    Attributes:
        step: number of steps done.
        steps: number of steps planned.
        state: everything that the next steps depend on, by name.
        best: learned tensors of the best student so far, by name.
        best_facts: its loss of the outputs, its agreement (NaN without scores), and its losses.
    """

    step: int
    steps: int
    state: Mapping[str, Array]
    best: Mapping[str, Array]
    best_facts: tuple[float, ...]

    def write(self, folder: Path) -> None:
        """Write the checkpoint to a folder, in place of an earlier one; whole or not at all."""
        facts = np.array([self.step, self.steps, *self.best_facts], np.float64)
        arrays = {_STATE + name: value for name, value in self.state.items()}
        arrays |= {_BEST + name: value for name, value in self.best.items()}
        folder.mkdir(parents=True, exist_ok=True)
        with open_atomic(str(folder / _FILE)) as file:
            np.savez(file, facts=facts, **arrays)  # type: ignore[arg-type]


def read_checkpoint(folder: Path | None) -> Checkpoint | None:
    """Return the checkpoint of a folder; ``None`` if there is none that can be read."""
    if folder is None or not (folder / _FILE).is_file():
        return None
    try:
        with (folder / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            step, steps, *facts = stored["facts"].tolist()
            if len(facts) < _LEAST_FACTS:
                return None
            return Checkpoint(
                step=int(step),
                steps=int(steps),
                state={n.removeprefix(_STATE): stored[n] for n in stored if n.startswith(_STATE)},
                best={n.removeprefix(_BEST): stored[n] for n in stored if n.startswith(_BEST)},
                best_facts=tuple(facts),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # of another version, or damaged: learning starts again
