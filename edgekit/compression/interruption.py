"""Ctrl-C during a pass, also where a library makes another error of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def keep_interruption() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the end of the block if there was one in it.

    Libraries drop it (in callbacks of the garbage collector) or turn it into an error of their own
    (TensorFlow: ``SystemError``). Only Python's own handler is replaced, and only on the main
    thread, as no other gets the signal.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupted:
        raise KeyboardInterrupt
