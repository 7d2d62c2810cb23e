"""edgekit.lock: names, versions and digests of an app's wheels, for each platform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.bounded_reading import read_regular
from edgekit.config.profile import validate
from edgekit.errors import UserError, reason
from edgekit_agent import strictjson

LOCK_FILE = "edgekit.lock"
_MOST_BYTES = 4 << 20


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LockedWheel(_Table):
    """A wheel: the names of its package and of its file, and the sha256 of the file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    version: Annotated[str, Field(min_length=1, max_length=100)]
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+!-]{1,200}\.whl$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Lock(_Table):
    """Content of edgekit.lock: the wheels of each platform, by its label."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    platforms: dict[str, tuple[LockedWheel, ...]] = {}

    def get(self, label: str) -> tuple[LockedWheel, ...]:
        """Return the wheels of a platform; none if it is not locked."""
        return self.platforms.get(label, ())


def read_lock(path: Path) -> Lock:
    """Read edgekit.lock; empty if there is none.

    Raises:
        UserError: The file is damaged.
    """
    hint = "delete it to choose the versions again"
    try:
        values = strictjson.loads(read_regular(path, _MOST_BYTES))
    except FileNotFoundError:
        return Lock()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}", hint=hint) from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a lock file", hint=hint)
    return validate(Lock, values, where=str(path))


def encode_lock(platforms: Mapping[str, tuple[LockedWheel, ...]]) -> bytes:
    """Return the bytes of edgekit.lock, the same for the same wheels."""
    listed = {
        label: [wheel.model_dump() for wheel in sorted(platforms[label], key=lambda w: w.name)]
        for label in sorted(platforms)
    }
    return json.dumps({"schema": 1, "platforms": listed}, indent=1).encode() + b"\n"
