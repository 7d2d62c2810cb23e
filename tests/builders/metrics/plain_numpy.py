"""Digests computed by numpy without the instructions that only some processors have."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest


def compute_plain_digests(module: str) -> list[str]:
    """Compute the ``DIGESTS`` of a test module by its ``compute_digest`` in such a process."""
    core = np._core._multiarray_umath
    chosen = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    if not chosen:
        pytest.skip("numpy uses no other instructions on this processor than on all of its kind")
    code = f"from {module} import *; print(*map(compute_digest, DIGESTS))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(chosen)},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.split()
