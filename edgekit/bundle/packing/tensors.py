"""Positions of the raw bytes of tensors in an .onnx file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgekit_agent.packing.varints import Varints

# Field numbers of onnx.proto that hold a message, and its kind.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DIMS, _DATA_TYPE, _FLOAT_DATA, _RAW_DATA = 1, 2, 4, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Position of a tensor in a file: ``size`` bytes from ``start``, little-endian, in C order.

    ``data_type`` is a number of ``onnx.TensorProto.DataType``.
    """

    start: int
    size: int
    data_type: int
    dims: tuple[int, ...]


def find_onnx_tensors(data: bytes) -> list[StoredTensor]:
    """Find the tensors of an .onnx file, in file order; empty if the bytes are no such file."""
    try:
        return sorted(_iter_tensors(data, 0, len(data), "model"), key=lambda tensor: tensor.start)
    except ValueError:  # other files are packed as well, but compress less
        return []


def _iter_tensors(data: bytes, start: int, end: int, kind: str) -> Iterator[StoredTensor]:
    if kind == "tensor":
        yield from _iter_tensor(data, start, end)
        return
    for number, wire, at, stop in _iter_fields(data, start, end):
        inner = _INSIDE[kind].get(number)
        if inner is not None and wire == _BYTES:
            yield from _iter_tensors(data, at, stop, inner)


def _iter_tensor(data: bytes, start: int, end: int) -> Iterator[StoredTensor]:
    dims: list[int] = []
    data_type, place = 0, None
    for number, wire, at, stop in _iter_fields(data, start, end):
        if number == _DIMS:
            dims += _read_numbers(data, at, stop)
        elif number == _DATA_TYPE and wire == _VARINT:
            data_type = Varints(data, at).next()
        elif number in (_FLOAT_DATA, _RAW_DATA) and wire == _BYTES:
            place = (at, stop)
    if place is not None:
        yield StoredTensor(
            start=place[0], size=place[1] - place[0], data_type=data_type, dims=tuple(dims)
        )


def _read_numbers(data: bytes, at: int, stop: int) -> list[int]:
    reader, found = Varints(data, at), []
    while reader.at < stop:
        found.append(reader.next())
    return found


def _iter_fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, start and end of each field of a message.

    Source: protobuf.dev, "Encoding".
    """
    reader = Varints(data, start)
    while reader.at < end:
        tag = reader.next()
        at = reader.at
        if tag & 7 == _VARINT:
            reader.next()
        elif tag & 7 == _BYTES:
            size = reader.next()
            at = reader.at
            reader.at += size
        elif tag & 7 in (_FIXED64, _FIXED32):
            reader.at += 8 if tag & 7 == _FIXED64 else 4
        else:
            raise ValueError("not a protobuf message")
        if reader.at > end:
            raise ValueError("a field is truncated")
        yield tag >> 3, tag & 7, at, reader.at
