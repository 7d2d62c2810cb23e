"""Lossless compression of model files for transfer: tensors entropy-coded, the rest deflated.

``edgekit_agent.unpacking`` describes the packed format and expands it to the same bytes.
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

from edgekit.errors import EdgekitError
from edgekit.packing.choice import Chosen, Numbers, Rule, choose, quiet
from edgekit.packing.lite import lite_tensors
from edgekit.packing.numbers import Form, Words, bins_of, low_bits_of, symbols_of
from edgekit.packing.rans import Run, encode, lanes_for
from edgekit.packing.tables import Table, make_table, shared_tables
from edgekit.packing.tensors import stored_tensors
from edgekit_agent.limits import most_expanded
from edgekit_agent.unpacking import (
    FILL,
    FIRST_GROUP,
    LZMA,
    MAGIC,
    SLICES,
    STORED,
    ZLIB,
    Tell,
    lzma_filter,
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
class Travelling:
    """Bytes that are transferred for a file, and their encoding."""

    encoding: Literal["raw", "packed"]
    data: bytes


def travelling(data: bytes, tell: Tell = quiet) -> Travelling:
    """Encode a file for transfer: packed, or raw if packing saves less than 3 % or expands too far.

    Args:
        data: the file.
        tell: called with the amount of work done and in total.
    """
    packed = pack(data, tell)
    if len(packed) > len(data) * (1 - _WORTH) or len(data) > most_expanded(len(packed)):
        return Travelling(encoding="raw", data=data)
    return Travelling(encoding="packed", data=packed)


def pack(data: bytes, tell: Tell = quiet) -> bytes:
    """Pack a file; the result expands to the same bytes, and may be larger than the file.

    Args:
        data: the file.
        tell: called with the amount of work done and in total.

    Raises:
        EdgekitError: the result does not expand to the same bytes, which is a fault of edgekit.
    """
    tensors = lite_tensors(data) or stored_tensors(data)
    chosen = choose(data, tensors, _phase(tell, *_CHOOSING))
    groups = _groups(chosen)
    plan = _deflated(_plan(data, chosen, groups))
    low = _low_bits(groups, _phase(tell, *_SPLITTING))
    runs = [_run(group) for group in groups]
    lanes = lanes_for(sum(len(symbols) for symbols, _ in runs))
    head = _varints([plan.method, plan.size, len(plan.data), len(low), lanes])
    packed = MAGIC + head + plan.data + low + encode(runs, lanes)
    if unpack(packed, len(data), _phase(tell, *_CHECKING)) != data:
        raise EdgekitError("a packed file does not expand to what it was packed from")
    return packed


def _phase(tell: Tell, start: int, end: int) -> Tell:
    """Return a progress callback for the part of the work from ``start`` to ``end`` percent."""

    def told(done: int, total: int) -> None:
        tell(start + (end - start) * done // max(total, 1), 100)

    return told


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
class _Deflated:
    method: int
    size: int
    data: bytes


def _groups(chosen: Sequence[Chosen]) -> list[_Group]:
    """Group the parts of the chosen tensors by the frequency table that they share."""
    by_form: dict[Form, list[_Part]] = defaultdict(list)
    for position, each in enumerate(chosen):
        numbers = each.filling
        if isinstance(numbers, Numbers):
            by_form[numbers.form] += [
                _Part(position=position, numbers=numbers, kinds=(kind,)) for kind in numbers.kinds
            ]
    return [group for form, parts in by_form.items() for group in _shared(form, parts)]


def _shared(form: Form, parts: Sequence[_Part]) -> Iterator[_Group]:
    bins = [bins_of(part.words, form, part.numbers.centre) for part in parts]
    for shared in shared_tables(form, bins):
        together: dict[int, _Part] = {}
        for part in (parts[m] for m in sorted(shared.members)):
            known = together.get(part.position)
            kinds = (*known.kinds, *part.kinds) if known else part.kinds
            together[part.position] = replace(part, kinds=kinds)
        table = make_table(form, shared.bins)
        yield _Group(form=form, table=table, parts=tuple(together.values()))


def _plan(data: bytes, chosen: Sequence[Chosen], groups: Sequence[_Group]) -> bytes:
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
            _varints([len(data), len(outline), len(groups), len(chosen)]),
            *(_described(group) for group in groups),
            _varints(befores),
            _varints(each.tensor.size for each in chosen),
            _varints(_kind(each, i, of) for i, each in enumerate(chosen)),
            *(_arguments(each, i, of) for i, each in enumerate(chosen)),
            outline,
        )
    )


def _described(group: _Group) -> bytes:
    form, table = group.form, group.table
    flags = form.width.bit_length() - 3 | form.rotated << 2 | form.centred << 3
    head = [table.kept | flags << 3, form.shift, table.steps, len(table.levels)]
    return _varints([*head, *table.levels])


def _kind(each: Chosen, position: int, of: Mapping[tuple[int, int], int]) -> int:
    if isinstance(each.filling, Rule):
        return each.filling.kind
    return SLICES if each.filling.slices else FIRST_GROUP + of[position, 0]


def _arguments(each: Chosen, position: int, of: Mapping[tuple[int, int], int]) -> bytes:
    filling = each.filling
    if isinstance(filling, Rule):
        if filling.kind == FILL:
            return _varints([len(filling.arguments)]) + bytes(filling.arguments)
        return _varints(filling.arguments)
    if filling.slices is None:
        return _varints([_zigzag(filling.centre)]) if filling.form.centred else b""
    slices = filling.slices
    groups = (of[position, kind] for kind in slices.kinds)
    return _varints([len(slices.kinds), slices.inner, *groups])


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varints(values: Iterable[int]) -> bytes:
    out = bytearray()
    for value in values:
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def _deflated(plan: bytes) -> _Deflated:
    ways = [_Deflated(method=STORED, size=len(plan), data=plan)]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zipped = packer.compress(plan) + packer.flush()
    ways.append(_Deflated(method=ZLIB, size=len(plan), data=zipped))
    settings = _LZMA_SETTINGS if len(plan) < _TRIED_BYTES else _LZMA_SETTINGS[:1]
    for lc, lp, pb in settings:
        filters = [lzma_filter(lc, lp, pb) | {"preset": 9}]
        body = lzma.compress(plan, lzma.FORMAT_RAW, filters=filters)
        coded = bytes([lc + 9 * (lp + 5 * pb)]) + body
        ways.append(_Deflated(method=LZMA, size=len(plan), data=coded))
    return min(ways, key=lambda way: len(way.data))


def _run(group: _Group) -> Run:
    kept = group.table.kept
    parts = [symbols_of(p.words, group.form, p.numbers.centre, kept) for p in group.parts]
    return np.concatenate(parts), group.table.counts


def _low_bits(groups: Sequence[_Group], tell: Tell) -> bytes:
    packed, rest = [], np.zeros(0, np.uint8)
    parts = [(group, part) for group in groups for part in group.parts]
    for number, (group, part) in enumerate(parts):
        tell(number, len(parts))
        for bits in _lacking(group, part):
            bits = np.concatenate([rest, bits])
            whole = len(bits) // 8 * 8
            packed.append(np.packbits(bits[:whole], bitorder="little").tobytes())
            rest = bits[whole:]
    return b"".join([*packed, np.packbits(rest, bitorder="little").tobytes()])


def _lacking(group: _Group, part: _Part) -> Iterator[NDArray[np.uint8]]:
    table = group.table
    centre = part.numbers.centre
    return low_bits_of(part.words, group.form, centre, table.kept, len(table.levels))
