"""Small arrays stored in the cache, so that they are read and sent like columns of samples."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import mark_used
from edgekit_agent.files import write_atomic
from edgekit_agent.samples import Column


def store_array(name: str, value: NDArray[Any], cache: Path) -> Column:
    """Store an array in a file named by its content, and describe it as a column."""
    value = np.asarray(value, order="C")
    digest = hashlib.sha256(f"{value.dtype} {value.shape}".encode() + value.tobytes()).hexdigest()
    path = cache / "values" / digest
    if not path.exists() or path.read_bytes() != value.tobytes():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(str(path), value.tobytes())
    mark_used(path)
    return Column(name, str(path.resolve()), 0, value.dtype.name, value.shape)
