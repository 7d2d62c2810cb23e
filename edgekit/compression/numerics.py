"""Types and bounds of numbers that the passes share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
# Below this a size is zero, and a divisor is not divided by.
TINY = 1e-30
