"""JSON form of jobs and results.

A job goes in as one JSON line ``{"job": KIND, "settings": {...}, "protocol": "1.1"}``; out come
lines of ``{"progress": {...}}`` and in the end one ``{"result": {...}}`` or ``{"error": {...}}``,
each with the ``protocol`` of the agent.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from typing import Any, Dict, List, Type, TypeVar

from edgekit_agent.protocol import FIRST, PROTOCOL, Version, encode_old, get_old_name

T = TypeVar("T")

_MOST_INT = 2**63 - 1

# Type of each kind of job. Names, not imports: a worker needs one of them alone.
JOBS: Dict[str, str] = {
    "probe": "edgekit_agent.jobs:ProbeJob",
    "bench": "edgekit_agent.worker_jobs:BenchJob",
    "score": "edgekit_agent.worker_jobs:ScoreJob",
    "health": "edgekit_agent.worker_jobs:HealthJob",
    "plan": "edgekit_agent.jobs:PlanJob",
    "receive": "edgekit_agent.jobs:ReceiveJob",
    "expand": "edgekit_agent.worker_jobs:ExpandJob",
    "forget": "edgekit_agent.jobs:ForgetJob",
    "runtime": "edgekit_agent.jobs:RuntimeJob",
    "admit": "edgekit_agent.jobs:AdmitJob",
    "trust": "edgekit_agent.jobs:TrustJob",
    "untrust": "edgekit_agent.jobs:UntrustJob",
    "install": "edgekit_agent.jobs:InstallJob",
    "confirm": "edgekit_agent.jobs:ConfirmJob",
    "rollback": "edgekit_agent.jobs:RollbackJob",
    "status": "edgekit_agent.jobs:StatusJob",
    "uninstall": "edgekit_agent.jobs:UninstallJob",
    "package-plan": "edgekit_agent.jobs:PackagePlanJob",
    "package": "edgekit_agent.jobs:PackageJob",
}


def get_job_type(kind: str) -> Type[Any]:
    """Import the type of a kind of job, which must be one of ``JOBS``."""
    module, name = JOBS[kind].split(":")
    found: Type[Any] = getattr(importlib.import_module(module), name)
    return found


def encode(record: Any, *, peer: Version = PROTOCOL) -> Dict[str, Any]:
    """Convert a record to the values that ``json.dumps`` takes.

    Args:
        record: the record.
        peer: the version of the side that reads it.
    """
    values: Dict[str, Any] = encode_old(record) if peer == FIRST else dataclasses.asdict(record)
    return values


def encode_job(job: Any, *, peer: Version = PROTOCOL) -> Dict[str, Any]:
    """Convert a job to a JSON object, without the fields that have their default value.

    Args:
        job: the job.
        peer: the version of the agent, which does not know the key ``protocol`` in version 1.0.
    """
    own = f"{type(job).__module__}:{type(job).__name__}"
    job_kind = next(kind for kind, name in JOBS.items() if name == own)
    settings = encode(job, peer=peer)
    for field in dataclasses.fields(job):
        if field.default is not dataclasses.MISSING and getattr(job, field.name) == field.default:
            settings.pop(get_old_name(field) if peer == FIRST else field.name, None)
    _drop_added(job, settings)
    message = {"job": job_kind, "settings": settings}
    return message if peer == FIRST else {**message, "protocol": str(PROTOCOL)}


def _drop_added(record: Any, values: Any) -> None:
    """Remove added fields that have their default value from a record and all records inside it."""
    if isinstance(record, tuple):
        for each, value in zip(record, values):
            _drop_added(each, value)
    if not dataclasses.is_dataclass(record):
        return
    for field in dataclasses.fields(record):
        inner = getattr(record, field.name)
        if field.metadata.get("added") and inner == field.default:
            values.pop(field.name, None)
        elif (key := field.name if field.name in values else get_old_name(field)) in values:
            _drop_added(inner, values[key])


def decode(cls: Type[T], value: Any, *, peer: Version = PROTOCOL) -> T:
    """Convert JSON values, as ``encode`` returns them, to a record of type ``cls``.

    Args:
        cls: type of the record.
        value: the values; fields may have their names of version 1.0.
        peer: the version of the side that sent them. Unknown fields of a newer one are ignored.

    Raises:
        ValueError: a field is missing, unknown or of another type; the text says where.
    """
    result: T = _Decoder(ignores_unknown=peer > PROTOCOL).decode(cls, value, cls.__name__)
    return result


@dataclasses.dataclass(frozen=True)
class _Decoder:
    """Conversion of JSON values to records, which ignores unknown fields or refuses them."""

    ignores_unknown: bool

    def decode(self, hint: Any, value: Any, path: str) -> Any:
        """Convert a value to the type of a hint."""
        if hint is Any:
            return value
        if dataclasses.is_dataclass(hint):
            return self._decode_record(hint, value, path)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Union:
            return None if value is None else self.decode(args[0], value, path)
        if origin is tuple:
            values = enumerate(_check_list(value, path))
            return tuple(self.decode(args[0], v, f"{path}[{i}]") for i, v in values)
        if origin is dict:
            if not isinstance(value, dict):
                raise ValueError(f"{path}: expected an object")
            return {k: self.decode(args[1], v, f"{path}.{k}") for k, v in value.items()}
        return _check_plain(hint, value, path)

    def _decode_record(self, cls: Any, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{path}: expected an object")
        hints = typing.get_type_hints(cls)
        value = _use_present_names(cls, value)
        unknown = sorted(set(value) - set(hints))
        if unknown and not self.ignores_unknown:
            raise ValueError(f"{path}: unknown field {unknown[0]}")
        required = {
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        missing = sorted(required - set(value))
        if missing:
            raise ValueError(f"{path}.{missing[0]}: missing")
        known = {k: v for k, v in value.items() if k in hints}
        return cls(**{k: self.decode(hints[k], v, f"{path}.{k}") for k, v in known.items()})


def _use_present_names(cls: Any, value: Dict[str, Any]) -> Dict[str, Any]:
    """Return the values with the fields of version 1.0 under their present names."""
    present = {get_old_name(f): f.name for f in dataclasses.fields(cls)}
    moved = {old: new for old, new in present.items() if old != new and new not in value}
    return {moved.get(key, key): each for key, each in value.items()}


def _check_plain(hint: Any, value: Any, path: str) -> Any:
    """Check a number, a text or a truth value, and return it."""
    if hint is float and type(value) is int and abs(value) <= _MOST_INT:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{path}: expected {hint.__name__}, got {type(value).__name__}")
    _check_number(value, path)
    return value


def _check_number(value: Any, path: str) -> None:
    """Refuse numbers that JSON cannot hold or that are too large for any field."""
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{path}: not a finite number")
    if type(value) is int and abs(value) > _MOST_INT:
        raise ValueError(f"{path}: the number is too large")


def _check_list(value: Any, path: str) -> List[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path}: expected an array")
    return list(value)
