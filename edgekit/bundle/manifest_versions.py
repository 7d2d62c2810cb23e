"""Schema versions of manifests: names of earlier versions, and refusal of later ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from edgekit.errors import UserError

SchemaVersion = Literal[1, 2]
SCHEMA_VERSION: SchemaVersion = 2
# The file of golden samples in bundles of schema version 1.
OLD_GOLDEN_SAMPLES = "canaries.npz"
# Fields of schema version 1 that had other names.
_OLD_FIELDS = {"canaries": "golden_samples", "forms": "variants"}


def use_present_fields(values: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return the values of a manifest with the fields of schema version 1 under present names."""
    if not isinstance(values, dict) or values.get("schema_version", 1) != 1:
        return values
    renamed = {_OLD_FIELDS.get(key, key): value for key, value in values.items()}
    return {"golden_samples": OLD_GOLDEN_SAMPLES, **renamed, "schema_version": 1}


def check_schema_version(path: Path, values: Any) -> None:  # noqa: ANN401 - any JSON value
    """Refuse a manifest that a later edgekit wrote.

    Raises:
        UserError: its schema version is unknown.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: built by a later edgekit (manifest schema version {version}; this edgekit "
            f"reads up to {SCHEMA_VERSION}): upgrade edgekit on this machine"
        )
