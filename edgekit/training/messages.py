"""Messages of TensorFlow's libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence_tensorflow() -> Iterator[None]:
    """Silence the messages that TensorFlow's libraries write to stderr as they load (no GPU).

    They write them before they read ``TF_CPP_MIN_LOG_LEVEL``, which is set for later messages.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
