"""JSON form of jobs and results.

A job goes in as one JSON line ``{"job": KIND, "settings": {...}}``; out come lines of
``{"progress": {...}}`` and in the end one ``{"result": {...}}`` or ``{"error": {...}}``.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Dict, List, Type, TypeVar

from edgekit_agent.jobs import (
    AdmitJob,
    BenchJob,
    ConfirmJob,
    ExpandJob,
    ForgetJob,
    HealthJob,
    InstallJob,
    PlanJob,
    ProbeJob,
    ReceiveJob,
    RollbackJob,
    RuntimeJob,
    ScoreJob,
    StatusJob,
    TrustJob,
    UntrustJob,
)

T = TypeVar("T")

_MOST_INT = 2**63 - 1

JOBS: Dict[str, Type[Any]] = {
    "probe": ProbeJob,
    "bench": BenchJob,
    "score": ScoreJob,
    "health": HealthJob,
    "plan": PlanJob,
    "receive": ReceiveJob,
    "expand": ExpandJob,
    "forget": ForgetJob,
    "runtime": RuntimeJob,
    "admit": AdmitJob,
    "trust": TrustJob,
    "untrust": UntrustJob,
    "install": InstallJob,
    "confirm": ConfirmJob,
    "rollback": RollbackJob,
    "status": StatusJob,
}


def encode(record: Any) -> Dict[str, Any]:
    """Convert a record to the values that ``json.dumps`` takes."""
    return dataclasses.asdict(record)


def encode_job(job: Any) -> Dict[str, Any]:
    """Convert a job to a JSON object, without the fields that have their default value."""
    job_kind = next(job_kind for job_kind, cls in JOBS.items() if type(job) is cls)
    settings = encode(job)
    for field in dataclasses.fields(job):
        if field.default is not dataclasses.MISSING and getattr(job, field.name) == field.default:
            del settings[field.name]
    return {"job": job_kind, "settings": settings}


def decode(cls: Type[T], value: Any) -> T:
    """Convert JSON values, as ``encode`` returns them, to a record of type ``cls``.

    Raises:
        ValueError: a field is missing, unknown or of another type; the text says where.
    """
    result: T = _decode(cls, value, cls.__name__)
    return result


def _decode(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _decode_record(hint, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return None if value is None else _decode(args[0], value, path)
    if origin is tuple:
        return tuple(
            _decode(args[0], v, f"{path}[{i}]") for i, v in enumerate(_check_list(value, path))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{path}: expected an object")
        return {k: _decode(args[1], v, f"{path}.{k}") for k, v in value.items()}
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


def _decode_record(cls: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{path}: unknown field {unknown[0]}")
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise ValueError(f"{path}.{missing[0]}: missing")
    return cls(**{k: _decode(hints[k], v, f"{path}.{k}") for k, v in value.items()})
