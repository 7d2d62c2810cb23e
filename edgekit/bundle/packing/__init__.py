"""Lossless compression of model files for transfer: tensors entropy-coded, the rest deflated.

``edgekit_agent.packing.unpack`` describes the packed format and expands it to the same bytes.
"""

from __future__ import annotations

import lzma
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.packing.choice import (
    ChosenTensor,
    Numbers,
    Rule,
    choose_encodings,
    ignore_progress,
)
from edgekit.bundle.packing.numbers import Form, Words, count_symbols, iter_low_bits, to_symbols
from edgekit.bundle.packing.rans import Run, choose_lanes, encode_symbols
from edgekit.bundle.packing.tables import Table, group_tables, make_table
from edgekit.bundle.packing.tensors import find_onnx_tensors
from edgekit.bundle.packing.tflite_tensors import find_tflite_tensors
from edgekit.errors import EdgekitError
from edgekit_agent.limits import get_expansion_limit
from edgekit_agent.packing.unpack import (
    FILL,
    FIRST_GROUP,
    LZMA,
    MAGIC,
    SLICES,
    STORED,
    ZLIB,
    Tell,
    make_lzma_filter,
    unpack,
)

# Settings of lzma (lc, lp, pb), each the best one for some plan.
_LZMA_SETTINGS = ((3, 0, 0), (4, 0, 0), (2, 0, 0), (1, 0, 0), (0, 0, 0), (3, 0, 2), (0, 2, 2))
_TRIED_BYTES = 1 << 18
# Start and end of the phases in percent of the time, as measured with float and int8 files.
_CHOOSING, _SPLITTING, _CHECKING = (0, 30), (35, 70), (85, 100)
# A smaller saving is not worth the device's time to expand it.
_WORTH = 0.03


@dataclass(frozen=True, kw_only=True)
class TransferData:
    """Bytes that are transferred for a file, and their encoding."""

    encoding: Literal["raw", "packed"]
    data: bytes


def encode_for_transfer(data: bytes, tell: Tell = ignore_progress) -> TransferData:
    """Encode a file for transfer: packed, or raw if packing saves less than 3 % or expands too far.

    Args:
        data: the file.
        tell: called with the amount of work done and in total.
    """
    packed = pack(data, tell)
    if len(packed) > len(data) * (1 - _WORTH) or len(data) > get_expansion_limit(len(packed)):
        return TransferData(encoding="raw", data=data)
    return TransferData(encoding="packed", data=packed)


def pack(data: bytes, tell: Tell = ignore_progress) -> bytes:
    """Pack a file; the result expands to the same bytes, and may be larger than the file.

    Args:
        data: the file.
        tell: called with the amount of work done and in total.

    Raises:
        EdgekitError: the result does not expand to the same bytes, which is a fault of edgekit.
    """
    tensors = find_tflite_tensors(data) or find_onnx_tensors(data)
    chosen = choose_encodings(data, tensors, _make_phase(tell, *_CHOOSING))
    groups = _group_parts(chosen)
    plan = _compress_plan(_build_plan(data, chosen, groups))
    low = _pack_low_bits(groups, _make_phase(tell, *_SPLITTING))
    runs = [_make_run(group) for group in groups]
    lanes = choose_lanes(sum(len(symbols) for symbols, _ in runs))
    head = _encode_varints([plan.method, plan.size, len(plan.data), len(low), lanes])
    packed = MAGIC + head + plan.data + low + encode_symbols(runs, lanes)
    if unpack(packed, len(data), _make_phase(tell, *_CHECKING)) != data:
        raise EdgekitError("a packed file does not expand to the original file")
    return packed


def _make_phase(tell: Tell, start: int, end: int) -> Tell:
    """Return a progress callback for the part of the work from ``start`` to ``end`` percent."""

    def report_part(done: int, total: int) -> None:
        tell(start + (end - start) * done // max(total, 1), 100)

    return report_part


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Words that are coded together: a tensor, or its slices of some kinds."""

    position: int  # of the tensor among the chosen ones
    numbers: Numbers
    kinds: tuple[int, ...]

    @property
    def words(self) -> Words:
        """Return the words in file order."""
        return self.numbers.part(self.kinds)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Parts that share a frequency table, in the order of the tensors."""

    form: Form
    table: Table
    parts: tuple[_Part, ...]


@dataclass(frozen=True, kw_only=True)
class _CompressedPlan:
    method: int
    size: int
    data: bytes


def _group_parts(chosen: Sequence[ChosenTensor]) -> list[_Group]:
    """Group the parts of the chosen tensors by the frequency table that they share."""
    by_form: dict[Form, list[_Part]] = defaultdict(list)
    for position, each in enumerate(chosen):
        numbers = each.filling
        if isinstance(numbers, Numbers):
            by_form[numbers.form] += [
                _Part(position=position, numbers=numbers, kinds=(kind,)) for kind in numbers.kinds
            ]
    return [group for form, parts in by_form.items() for group in _share_tables(form, parts)]


def _share_tables(form: Form, parts: Sequence[_Part]) -> Iterator[_Group]:
    bins = [count_symbols(part.words, form, part.numbers.center) for part in parts]
    for shared in group_tables(form, bins):
        together: dict[int, _Part] = {}
        for part in (parts[m] for m in sorted(shared.members)):
            known = together.get(part.position)
            kinds = (*known.kinds, *part.kinds) if known else part.kinds
            together[part.position] = replace(part, kinds=kinds)
        table = make_table(form, shared.bins)
        yield _Group(form=form, table=table, parts=tuple(together.values()))


def _build_plan(data: bytes, chosen: Sequence[ChosenTensor], groups: Sequence[_Group]) -> bytes:
    of = {
        (part.position, kind): number
        for number, group in enumerate(groups)
        for part in group.parts
        for kind in part.kinds
    }
    frame, befores, at = [], [], 0
    for each in chosen:
        start = each.tensor.start
        befores.append(start - at)
        frame.append(data[at:start])
        at = start + each.tensor.size
    frame.append(data[at:])
    outline = b"".join(frame)
    return b"".join(
        (
            _encode_varints([len(data), len(outline), len(groups), len(chosen)]),
            *(_encode_group(group) for group in groups),
            _encode_varints(befores),
            _encode_varints(each.tensor.size for each in chosen),
            _encode_varints(_encode_kind(each, i, of) for i, each in enumerate(chosen)),
            *(_encode_arguments(each, i, of) for i, each in enumerate(chosen)),
            outline,
        )
    )


def _encode_group(group: _Group) -> bytes:
    form, table = group.form, group.table
    flags = form.width.bit_length() - 3 | form.rotated << 2 | form.centered << 3
    head = [table.kept_bits | flags << 3, form.shift, table.steps, len(table.levels)]
    return _encode_varints([*head, *table.levels])


def _encode_kind(each: ChosenTensor, position: int, of: Mapping[tuple[int, int], int]) -> int:
    if isinstance(each.filling, Rule):
        return each.filling.kind
    return SLICES if each.filling.slices else FIRST_GROUP + of[position, 0]


def _encode_arguments(
    each: ChosenTensor, position: int, of: Mapping[tuple[int, int], int]
) -> bytes:
    filling = each.filling
    if isinstance(filling, Rule):
        if filling.kind == FILL:
            return _encode_varints([len(filling.arguments)]) + bytes(filling.arguments)
        return _encode_varints(filling.arguments)
    if filling.slices is None:
        return _encode_varints([_encode_zigzag(filling.center)]) if filling.form.centered else b""
    slices = filling.slices
    groups = (of[position, kind] for kind in slices.kinds)
    return _encode_varints([len(slices.kinds), slices.inner, *groups])


def _encode_zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _encode_varints(values: Iterable[int]) -> bytes:
    out = bytearray()
    for value in values:
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def _compress_plan(plan: bytes) -> _CompressedPlan:
    ways = [_CompressedPlan(method=STORED, size=len(plan), data=plan)]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zipped = packer.compress(plan) + packer.flush()
    ways.append(_CompressedPlan(method=ZLIB, size=len(plan), data=zipped))
    settings = _LZMA_SETTINGS if len(plan) < _TRIED_BYTES else _LZMA_SETTINGS[:1]
    for lc, lp, pb in settings:
        filters = [make_lzma_filter(lc, lp, pb) | {"preset": 9}]
        body = lzma.compress(plan, lzma.FORMAT_RAW, filters=filters)
        coded = bytes([lc + 9 * (lp + 5 * pb)]) + body
        ways.append(_CompressedPlan(method=LZMA, size=len(plan), data=coded))
    return min(ways, key=lambda way: len(way.data))


def _make_run(group: _Group) -> Run:
    kept_bits = group.table.kept_bits
    parts = [to_symbols(p.words, group.form, p.numbers.center, kept_bits) for p in group.parts]
    return np.concatenate(parts), group.table.counts


def _pack_low_bits(groups: Sequence[_Group], tell: Tell) -> bytes:
    packed, rest = [], np.zeros(0, np.uint8)
    parts = [(group, part) for group in groups for part in group.parts]
    for number, (group, part) in enumerate(parts):
        tell(number, len(parts))
        for bits in _iter_low_bits(group, part):
            bits = np.concatenate([rest, bits])
            whole = len(bits) // 8 * 8
            packed.append(np.packbits(bits[:whole], bitorder="little").tobytes())
            rest = bits[whole:]
    return b"".join([*packed, np.packbits(rest, bitorder="little").tobytes()])


def _iter_low_bits(group: _Group, part: _Part) -> Iterator[NDArray[np.uint8]]:
    table = group.table
    center = part.numbers.center
    return iter_low_bits(part.words, group.form, center, table.kept_bits, len(table.levels))
