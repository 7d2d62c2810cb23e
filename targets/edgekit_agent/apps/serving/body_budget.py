"""Limit of the bytes of all bodies that a server holds in memory at a time."""

from __future__ import annotations

import contextlib
import threading
from typing import Iterator


class BodyBudget:
    """A number of bytes that all requests share, so that many clients cannot fill the memory.

    Args:
        most_bytes: the largest number of bytes.
    """

    def __init__(self, most_bytes: int) -> None:
        self._lock, self._left = threading.Lock(), most_bytes

    @contextlib.contextmanager
    def hold_bytes(self) -> Iterator[HeldBytes]:
        """Yield the bytes of one request, which are given back at the end of the block."""
        held = HeldBytes(self)
        try:
            yield held
        finally:
            self.take(-held.count)

    def take(self, count: int) -> bool:
        """Take bytes, or give back a negative number of them; return whether there were enough."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True


class HeldBytes:
    """Bytes that one request holds."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget, self.count = budget, 0

    def add(self, count: int) -> bool:
        """Hold more bytes; return whether there were enough."""
        is_taken = self._budget.take(count)
        self.count += count if is_taken else 0
        return is_taken
