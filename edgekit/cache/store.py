"""Cache of models and measurements: objects by digest, facts by key."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgekit.cache.integrity import mark_used, read_entry, seal_entry
from edgekit.errors import UserError
from edgekit_agent.files import fsync_folder, sha256_of, temporary_name, write_atomic

T = TypeVar("T")

_LOCK = "in-use"


def get_default_root() -> Path:
    """Return ``EDGEKIT_CACHE``, else ``edgekit`` in the user's cache folder."""
    if own := os.environ.get("EDGEKIT_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


@dataclass(frozen=True)
class Store:
    """Folder of objects and facts, each written completely and reproducible."""

    root: Path

    def put(self, path: Path) -> Path:
        """Move a file into the store and return its path, named by the sha256 of its bytes."""
        digest = sha256_of(str(path))
        target = self._get_object_path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(temporary_name(str(target)))
        shutil.move(path, staged)
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(target)
        fsync_folder(str(target.parent))
        return target

    def get(self, digest: str) -> Path | None:
        """Return the path of an object by its digest; ``None`` if it is absent or damaged."""
        path = self._get_object_path(digest)
        if not path.is_file():
            return None
        if sha256_of(str(path)) != digest:
            path.unlink()
            return None
        mark_used(path)
        return path

    def remember(self, kind: str, key: str, facts: dict[str, Any]) -> None:
        """Store facts under a key."""
        path = self._get_facts_path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(facts).encode()
        write_atomic(str(path), seal_entry(f"{kind}/{key}", data))

    def forget(self, kind: str, key: str) -> None:
        """Remove the facts under a key, if there are any."""
        self._get_facts_path(kind, key).unlink(missing_ok=True)

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """Read the facts under a key; ``None`` if there are none that this user sealed."""
        path = self._get_facts_path(kind, key)
        try:
            data = read_entry(f"{kind}/{key}", path.read_bytes())
        except FileNotFoundError:
            return None
        if data is None:
            return None
        mark_used(path)
        facts = json.loads(data)
        return facts if isinstance(facts, dict) else None

    def recall_as(self, kind: str, key: str, read: Callable[[dict[str, Any]], T]) -> T | None:
        """Read facts and convert them by ``read``; ``None`` if absent or of another version."""
        facts = self.recall(kind, key)
        try:
            return None if facts is None else read(facts)
        except (KeyError, TypeError, ValueError):
            return None  # the caller computes it again and overwrites it

    @contextmanager
    def lock_shared(self) -> Iterator[None]:
        """Lock the cache against removals by ``edgekit cache``."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a temporary folder on the file system of the store, removed at the end."""
        parent = self.root / "scratch"
        parent.mkdir(parents=True, exist_ok=True)
        with self.lock_shared(), tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)

    @contextmanager
    def checkpoints(self, key: str) -> Iterator[Path | None]:
        """Open the folder of checkpoints of a job; it outlives an interruption, and nothing else.

        ``None`` if another process works on the same job.
        """
        folder = self.root / "checkpoints" / key
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            folder.mkdir(exist_ok=True)  # the process that had the lock may have removed it
            try:
                yield folder
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)

    def _get_object_path(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _get_facts_path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / f"{key}.json"


@contextmanager
def lock_exclusively(root: Path) -> Iterator[None]:
    """Lock the cache against every other process of edgekit.

    Raises:
        UserError: Another process uses it.
    """
    if not root.is_dir():
        yield
        return
    with (root / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{root}: another edgekit command is using the cache",
                hint="run the command again when the other one is finished",
            ) from None
        yield
