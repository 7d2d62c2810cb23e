"""Messages exchanged with the page in the browser: JSON with arrays behind it.

A message is the length of its JSON text (uint32, little-endian), the text, and the bytes of the
arrays, each at a multiple of eight bytes. The text lists the arrays in ``arrays``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DeviceError
from edgekit_agent import strictjson

# Arrays begin at multiples of this, as typed arrays of JavaScript demand.
_ALIGNMENT = 8
_MOST_TEXT_BYTES = 1 << 22
DTYPES = frozenset(
    {
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Message:
    """Facts and named arrays."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def encode_message(message: Message) -> bytes:
    """Return the bytes of a message."""
    listed, pieces, offset = [], [], 0
    for name, values in message.arrays.items():
        data = np.ascontiguousarray(values).tobytes()
        listed.append(
            {
                "name": name,
                "dtype": values.dtype.name,
                "shape": values.shape,
                "offset": offset,
                "bytes": len(data),
            }
        )
        padding = -len(data) % _ALIGNMENT
        pieces += [data, bytes(padding)]
        offset += len(data) + padding
    text = json.dumps({**message.facts, "arrays": listed}).encode()
    text += b" " * (-(len(text) + 4) % _ALIGNMENT)
    return b"".join([struct.pack("<I", len(text)), text, *pieces])


def decode_message(data: bytes) -> Message:
    """Read a message of the page.

    Raises:
        DeviceError: The bytes are not a message.
    """
    try:
        (size,) = struct.unpack_from("<I", data)
        if size > min(len(data) - 4, _MOST_TEXT_BYTES):
            raise ValueError("too short")
        facts = strictjson.loads(data[4 : 4 + size])
        listed = facts.pop("arrays")
        body = memoryview(data)[4 + size :]
        arrays = {str(each["name"]): _read_array(each, body) for each in listed}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise DeviceError(f"web: invalid answer of the page: {error}") from error
    return Message(facts=facts, arrays=arrays)


def _read_array(listed: Mapping[str, Any], body: memoryview) -> NDArray[Any]:
    if listed["dtype"] not in DTYPES:
        raise ValueError(f"unknown type {listed['dtype']!r}")
    offset, size = int(listed["offset"]), int(listed["bytes"])
    if not 0 <= offset <= offset + size <= len(body):
        raise ValueError(f"array {listed['name']!r} is cut off")
    flat = np.frombuffer(body[offset : offset + size], np.dtype(listed["dtype"]))
    return flat.reshape([int(dim) for dim in listed["shape"]])
