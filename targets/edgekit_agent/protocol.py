"""Version of the protocol between host and agent, and fields that had another name before.

Both sides state their version in every message; a message without one is of version 1.0. Two sides
work together if their major versions are equal and their minor versions differ by at most 1: fields
that only the newer side knows are ignored, and absent fields have their defaults.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Dict

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})", re.ASCII)


@dataclass(frozen=True, order=True)
class Version:
    """A version of the protocol."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def works_with(self, other: Version) -> bool:
        """Return whether two sides of these versions work together."""
        return self.major == other.major and abs(self.minor - other.minor) <= 1


FIRST = Version(1, 0)  # messages did not state it
PROTOCOL = Version(1, 1)


def read_version(message: Dict[str, Any]) -> Version:
    """Return the version that a message states in ``protocol``; 1.0 if it states none.

    Raises:
        ValueError: it is not a version.
    """
    if "protocol" not in message:
        return FIRST
    found = _VERSION.fullmatch(str(message["protocol"]))
    if found is None:
        raise ValueError(f"protocol: {str(message['protocol'])[:40]!r} is not a version")
    return Version(int(found.group(1)), int(found.group(2)))


def mark_old_name(old: str) -> Dict[str, str]:
    """Return the metadata of a field whose name was ``old`` in version 1.0, also in files."""
    return {"old": old}


def mark_added() -> Dict[str, bool]:
    """Return the metadata of a field that agents of version 1.0, and early ones of 1.1, lack.

    A job does not state it at its default value, so that such an agent takes the job; nothing that
    is sent to a side of version 1.0 states it.
    """
    return {"added": True}


def get_old_name(field: dataclasses.Field[Any]) -> str:
    """Return the name of a field in version 1.0."""
    return str(field.metadata.get("old", field.name))


def encode_old(value: Any) -> Any:  # noqa: ANN401 - any value that JSON holds
    """Convert a record, and all records inside it, to JSON values with the names of version 1.0."""
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if "added" not in f.metadata]
        return {get_old_name(f): encode_old(getattr(value, f.name)) for f in fields}
    if isinstance(value, (list, tuple)):
        return [encode_old(each) for each in value]
    if isinstance(value, dict):
        return {key: encode_old(each) for key, each in value.items()}
    return value
