"""Pack a file for its journey: tensors entropy-coded, the rest deflated; expanded to equal bytes.

``edgekit_agent.unpacking`` says what a packed file looks like and expands it.
"""

from __future__ import annotations

import lzma
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.packing.choice import Chosen, Numbers, Rule, choose
from edgekit.packing.numbers import Form, bins_of, low_bits_of, symbols_of
from edgekit.packing.rans import Run, encode, lanes_for
from edgekit.packing.tables import Shared, Table, make_table, shared_tables
from edgekit.packing.tensors import stored_tensors
from edgekit_agent.unpacking import (
    FILL,
    FIRST_GROUP,
    LZMA,
    MAGIC,
    STORED,
    ZLIB,
    lzma_filter,
    unpack,
)

# Settings of lzma (lc, lp, pb) that have been best for some plan or other.
_LZMA_SETTINGS = ((3, 0, 0), (4, 0, 0), (2, 0, 0), (1, 0, 0), (0, 0, 0), (3, 0, 2), (0, 2, 2))
_TRIED_BYTES = 1 << 18
# Less than this is not worth the device's time.
_WORTH = 0.03


@dataclass(frozen=True, kw_only=True)
class Travelling:
    """The bytes that are sent for a file, and how they stand for it."""

    encoding: Literal["raw", "packed"]
    data: bytes


def travelling(data: bytes) -> Travelling:
    """A file as it is sent: packed, or as it is where that saves next to nothing."""
    packed = pack(data)
    if len(packed) > len(data) * (1 - _WORTH):
        return Travelling(encoding="raw", data=data)
    return Travelling(encoding="packed", data=packed)


def pack(data: bytes) -> bytes:
    """A packed file that expands to exactly these bytes; larger than they where nothing is won.

    Raises:
        EdgekitError: it does not expand to them, which is our fault.
    """
    chosen = choose(data, stored_tensors(data))
    groups = _groups(chosen)
    plan = _deflated(_plan(data, chosen, groups))
    low = _low_bits(chosen, groups)
    runs = [_run(chosen, group, table) for group, table in groups]
    lanes = lanes_for(sum(len(symbols) for symbols, _ in runs))
    head = _varints([plan.method, plan.size, len(plan.data), len(low), lanes])
    packed = MAGIC + head + plan.data + low + encode(runs, lanes)
    if unpack(packed, len(data)) != data:
        raise EdgekitError("a packed file does not expand to what it was packed from")
    return packed


Group = tuple[Shared, Table]


@dataclass(frozen=True, kw_only=True)
class _Deflated:
    method: int
    size: int
    data: bytes


def _groups(chosen: Sequence[Chosen]) -> list[Group]:
    """Which chosen tensors share which table; ``members`` are positions in ``chosen``."""
    by_form: dict[Form, list[tuple[int, Numbers]]] = defaultdict(list)
    for position, each in enumerate(chosen):
        if isinstance(each.filling, Numbers):
            by_form[each.filling.form].append((position, each.filling))
    groups = []
    for form, members in by_form.items():
        bins = [bins_of(n.words, n.form, n.centre) for _, n in members]
        for shared in shared_tables(form, bins):
            shared.members = sorted(members[m][0] for m in shared.members)
            groups.append((shared, make_table(form, shared.bins)))
    return groups


def _plan(data: bytes, chosen: Sequence[Chosen], groups: Sequence[Group]) -> bytes:
    kinds = {m: FIRST_GROUP + g for g, (shared, _) in enumerate(groups) for m in shared.members}
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
            _varints(_kind(each, kinds.get(i, 0)) for i, each in enumerate(chosen)),
            *(_arguments(each) for each in chosen),
            outline,
        )
    )


def _described(group: Group) -> bytes:
    form, table = group[0].form, group[1]
    flags = form.width.bit_length() - 3 | form.rotated << 2 | form.centred << 3
    head = [table.kept | flags << 3, form.shift, table.steps, len(table.levels)]
    return _varints([*head, *table.levels])


def _kind(each: Chosen, group: int) -> int:
    return each.filling.kind if isinstance(each.filling, Rule) else group


def _arguments(each: Chosen) -> bytes:
    filling = each.filling
    if isinstance(filling, Numbers):
        return _varints([_zigzag(filling.centre)]) if filling.form.centred else b""
    if filling.kind == FILL:
        return _varints([len(filling.arguments)]) + bytes(filling.arguments)
    return _varints(filling.arguments)


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


def _members(chosen: Sequence[Chosen], group: Group) -> Iterable[Numbers]:
    fillings = (chosen[m].filling for m in group[0].members)
    return (f for f in fillings if isinstance(f, Numbers))


def _run(chosen: Sequence[Chosen], shared: Shared, table: Table) -> Run:
    parts = [
        symbols_of(n.words, n.form, n.centre, table.kept) for n in _members(chosen, (shared, table))
    ]
    return np.concatenate(parts), table.counts


def _low_bits(chosen: Sequence[Chosen], groups: Sequence[Group]) -> bytes:
    parts = [
        bits
        for group in groups
        for n in _members(chosen, group)
        for bits in low_bits_of(n.words, n.form, n.centre, group[1].kept)
    ]
    return np.packbits(np.concatenate(parts), bitorder="little").tobytes() if parts else b""
