"""JSON from outside: finite, bounded numbers, bounded size and nesting, no repeated keys."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO, Dict, List, Tuple

# Signed 64-bit integers are below this number and have at most 19 digits.
_LARGEST, _MOST_DIGITS = 1 << 63, 19


def loads(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON whose numbers all fit in 64 bits.

    ``json`` accepts ``NaN``, ``Infinity``, ``1e999`` and longer integers, but these can neither be
    compared with a limit nor written again as JSON. Of a repeated key, one parser keeps the first
    value and another the last, so that the two would read different documents.

    Raises:
        ValueError: not JSON, a number is not finite or too large, a key is repeated in an object,
            or values are nested too deeply.
    """
    try:
        return json.loads(
            data,
            object_pairs_hook=_build_object,
            parse_constant=_refuse_number,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except RecursionError as error:
        raise ValueError("the values are nested too deeply") from error


def load(file: BinaryIO, most_bytes: int) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a file of at most ``most_bytes`` bytes.

    Raises:
        ValueError: see ``loads``; or the file is larger.
    """
    data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
    return loads(data)


def _build_object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members: Dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the key {name[:40]!r} is repeated")
        members[name] = value
    return members


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _parse_int(text: str) -> int:
    value = int(text) if len(text) <= _MOST_DIGITS + 1 else _LARGEST
    if abs(value) >= _LARGEST:
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is not a valid JSON number")
