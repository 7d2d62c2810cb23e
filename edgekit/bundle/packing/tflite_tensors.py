"""Positions of the raw bytes of tensors in a .tflite file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.bundle.packing.tensors import StoredTensor

_MAGIC = b"TFL3"
# TensorType of TFLite -> onnx.TensorProto.DataType.
_TYPES = {0: 1, 1: 10, 2: 6, 3: 2, 4: 7, 7: 5, 9: 3, 16: 4, 17: 22}
# Field numbers in the tables of the schema.
_SUBGRAPHS, _BUFFERS = 2, 4
_TENSORS = 0
_SHAPE, _TYPE, _BUFFER = 0, 1, 2
_DATA = 0


def find_tflite_tensors(data: bytes) -> list[StoredTensor]:
    """Find the tensors of a .tflite file, in file order; empty if the bytes are no such file."""
    if data[4:8] != _MAGIC:
        return []
    try:
        found = {tensor.start: tensor for tensor in _iter_tensors(data)}
    except (struct.error, IndexError, ValueError):  # packed like any other bytes
        return []
    return _drop_overlaps(sorted(found.values(), key=lambda tensor: tensor.start))


def _drop_overlaps(tensors: list[StoredTensor]) -> list[StoredTensor]:
    """Drop the tensors that overlap one before them."""
    kept: list[StoredTensor] = []
    for tensor in tensors:
        if not kept or tensor.start >= kept[-1].start + kept[-1].size:
            kept.append(tensor)
    return kept


@dataclass(frozen=True)
class _Table:
    """Table of a FlatBuffer. Source: flatbuffers.dev, "Internals"."""

    data: bytes
    at: int

    def find_field(self, place: int) -> int | None:
        """Return the position of a field's value; ``None`` if it has its default."""
        vtable = self.at - _read_number(self.data, self.at, "<i")
        slot = 4 + 2 * place
        if slot + 2 > _read_number(self.data, vtable, "<H"):
            return None
        offset = _read_number(self.data, vtable + slot, "<H")
        return self.at + offset if offset else None

    def vector(self, place: int) -> tuple[int, int]:
        """Return start and length of a vector field; 0, 0 if there is none."""
        at = self.find_field(place)
        if at is None:
            return 0, 0
        start = at + _read_number(self.data, at, "<I")
        return start + 4, _read_number(self.data, start, "<I")

    def iter_tables(self, place: int) -> Iterator[_Table]:
        """Yield the tables of a vector field."""
        start, count = self.vector(place)
        for at in range(start, start + 4 * count, 4):
            yield _Table(self.data, at + _read_number(self.data, at, "<I"))


def _read_number(data: bytes, at: int, form: str) -> int:
    if at < 0:
        raise ValueError("an offset points outside")
    return int(struct.unpack_from(form, data, at)[0])


def _iter_tensors(data: bytes) -> Iterator[StoredTensor]:
    model = _Table(data, _read_number(data, 0, "<I"))
    buffers = [buffer.vector(_DATA) for buffer in model.iter_tables(_BUFFERS)]
    for graph in model.iter_tables(_SUBGRAPHS):
        for tensor in graph.iter_tables(_TENSORS):
            place = tensor.find_field(_BUFFER)
            start, size = buffers[_read_number(data, place, "<I") if place else 0]
            if size and start + size <= len(data):
                yield StoredTensor(
                    start=start,
                    size=size,
                    data_type=_read_type(tensor),
                    dims=tuple(_iter_sizes(tensor)),
                )


def _read_type(tensor: _Table) -> int:
    at = tensor.find_field(_TYPE)
    return _TYPES.get(tensor.data[at] if at is not None else 0, 0)


def _iter_sizes(tensor: _Table) -> Iterator[int]:
    start, count = tensor.vector(_SHAPE)
    for at in range(start, start + 4 * count, 4):
        yield _read_number(tensor.data, at, "<i")
