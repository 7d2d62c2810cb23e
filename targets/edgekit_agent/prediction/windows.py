"""Windows of a sound that comes in blocks of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.preprocess.settings import Audio


class Windows:
    """The values that no step has taken yet, after the last ones of the step before.

    Args:
        how: settings with a step.
    """

    def __init__(self, how: Audio) -> None:
        self._step = how.step or 1
        self._window = how.samples or self._step
        self._values: NDArray[np.float32] = np.zeros(self._window - self._step, np.float32)

    def add(self, block: NDArray[np.float32]) -> List[NDArray[np.float32]]:
        """Add a block; return the window of each step that is complete."""
        values = np.concatenate([self._values, block])
        steps = (len(values) - self._window) // self._step + 1
        windows = [
            values[place * self._step : place * self._step + self._window]
            for place in range(max(0, steps))
        ]
        self._values = values[len(windows) * self._step :]
        return windows
