"""Expansion of a packed file to the exact bytes that it was packed from.

A packed file is ``MAGIC``, three sizes, and three parts: the deflated *plan*, the low bits of
numbers, and their entropy-coded high bits. The plan holds the *frame* (the file without its
tensors) and how to fill each gap in it: with numbers of a group, the product of two earlier
tensors, one repeated word, or a copy. ``edgekit.bundle.packing`` writes such files.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import zlib
from dataclasses import dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Tuple,
)

from edgekit_agent.failures import AgentError
from edgekit_agent.files import write_atomic
from edgekit_agent.packing.numbers import Group, LowBits, NumberReader, count_symbols
from edgekit_agent.packing.rans import Decoder, compute_frequencies
from edgekit_agent.packing.varints import Buffer, Varints
from edgekit_agent.wire import Progress
from edgekit_agent.worker_jobs import ExpandJob
from edgekit_agent.worker_results import ExpandResult

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"ekp1"
# Compression methods of the plan.
STORED, ZLIB, LZMA = range(3)
# Kinds of gap contents; from FIRST_GROUP on, numbers of a group.
PRODUCT, FILL, COPY, SLICES, FIRST_GROUP = range(5)
_MOST_GROUPS, _MOST_GAPS, _MOST_NUMBERS, _MOST_WORD = 1 << 16, 1 << 18, 1 << 22, 1 << 12
# Words are written in chunks of this many, so that little memory is needed beside the file.
_CHUNK = 1 << 20

Tell = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


@dataclass(frozen=True)
class Gap:
    """A tensor of ``size`` bytes that comes after ``before`` bytes of the frame."""

    before: int
    size: int
    filling: int
    arguments: Tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The frame, the groups and the gaps: all that is known before the numbers are decoded."""

    size: int
    frame: Buffer
    groups: Tuple[Group, ...]
    gaps: Tuple[Gap, ...]


def expand(job: ExpandJob, progress: Progress) -> ExpandResult:
    """Expand a packed blob to an object; the object is written completely or not at all.

    Raises:
        AgentError: ``corrupt``: the expanded bytes have another digest than the blob.
    """
    with open(job.part, "rb") as file:
        data = unpack(_map_file(file), job.blob.size, partial(progress, "expand"))
    if hashlib.sha256(data).hexdigest() != job.blob.digest:
        raise AgentError("corrupt", "does not match its digest")
    write_atomic(job.path, data)
    return ExpandResult(len(data))


def _map_file(file: BinaryIO) -> Buffer:
    """Map a file into memory, so that its pages can be dropped if memory is short."""
    if not os.fstat(file.fileno()).st_size:
        return b""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def unpack(data: Buffer, size: int, report: Optional[Tell] = None) -> bytearray:
    """Restore a packed file. It needs memory for the file and its plan.

    Args:
        data: the packed file.
        size: bytes of the file it was packed from; never more are written.
        report: called with the number of words decoded, and of all words.

    Raises:
        AgentError: ``corrupt``: it is no valid packed file. Only the digest of the result tells
            whether it is the right one.
    """
    try:
        return _unpack(data, size, report)
    except (ValueError, zlib.error) as error:
        raise AgentError("corrupt", f"cannot be unpacked: {error}") from error


def _unpack(data: Buffer, size: int, report: Optional[Tell]) -> bytearray:
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("the file header is missing")
    head = Varints(data, len(MAGIC))
    method, plan_size, packed_size, low_size, lanes = head.read_several(5)
    # The plan holds bytes of the file, or one or two numbers for each gap or symbol.
    if plan_size > size + (1 << 20):
        raise ValueError("the plan is larger than the file")
    plan = _read_plan(_inflate(method, head.take(packed_size), plan_size))
    if plan.size != size:
        raise ValueError(f"it expands to {plan.size} bytes, not {size}")
    low = head.take(low_size)
    return _FileBuilder(plan, low, Decoder(data[head.at :], lanes, report)).build()


def _inflate(method: int, packed: Buffer, size: int) -> Buffer:
    if method == STORED:
        plan: Buffer = packed
    elif method == ZLIB:
        plan = zlib.decompressobj(-15).decompress(packed, size + 1)
    elif method == LZMA:
        plan = _decompress_lzma(packed, size)
    else:
        raise ValueError(f"unknown method {method}")
    if len(plan) != size:
        raise ValueError("the plan has a wrong size")
    return plan


def _decompress_lzma(packed: Buffer, size: int) -> bytes:
    import lzma  # some systems build their Python without it

    if not packed:
        raise ValueError("the plan is missing")
    settings = packed[0]
    filters = [make_lzma_filter(settings % 9, settings // 9 % 5, settings // 45)]
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        return decoder.decompress(packed[1:], size + 1)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error


def make_lzma_filter(lc: int, lp: int, pb: int) -> Dict[str, int]:
    """Return the LZMA filter of a plan, in the terms of the module ``lzma``."""
    import lzma

    if lc + lp > 4 or pb > 4:
        raise ValueError("the settings of the plan are out of range")
    return {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": 1 << 22}


def _read_plan(data: Buffer) -> Plan:
    numbers = Varints(memoryview(data), most=_MOST_NUMBERS)
    size, frame_size, group_count, gap_count = (numbers.next() for _ in range(4))
    if group_count > _MOST_GROUPS or gap_count > _MOST_GAPS:
        raise ValueError("the plan has too many groups or tensors")
    groups = tuple(_read_group(numbers) for _ in range(group_count))
    befores, sizes, fillings = (numbers.read_several(gap_count) for _ in range(3))
    gaps = tuple(
        Gap(before, length, filling, _read_arguments(numbers, filling, groups))
        for before, length, filling in zip(befores, sizes, fillings)
    )
    frame = numbers.take(frame_size)
    if numbers.at != len(data):
        raise ValueError("the plan has trailing bytes")
    if sum(befores) > frame_size or frame_size + sum(sizes) != size:
        raise ValueError("the sizes of the parts are inconsistent")
    return Plan(size, frame, groups, gaps)


def _read_group(numbers: Varints) -> Group:
    form, shift, steps, symbols = (numbers.next() for _ in range(4))
    kept_bits, rest = form & 7, form >> 3
    width = 4 << (rest & 3)
    if steps not in (1, 2, 4, 8) or shift >= width:
        raise ValueError("a group is out of range")
    counts = compute_frequencies(numbers.read_several(symbols), steps)
    if symbols > count_symbols(width, kept_bits):
        raise ValueError("a group has too many symbols")
    return Group(width, bool(rest & 4), shift, bool(rest & 8), kept_bits, counts)


def _read_arguments(numbers: Varints, filling: int, groups: Tuple[Group, ...]) -> Tuple[int, ...]:
    if filling == PRODUCT:
        return (numbers.next(), numbers.next())
    if filling == COPY:
        return (numbers.next(),)
    if filling == FILL:
        return tuple(numbers.take(min(numbers.next(), _MOST_WORD + 1)))
    if filling == SLICES:
        slices, inner = numbers.next(), numbers.next()
        return (slices, inner, *numbers.read_several(slices))
    if filling - FIRST_GROUP >= len(groups):
        raise ValueError("a tensor refers to an unknown group")
    return (numbers.read_signed(),) if groups[filling - FIRST_GROUP].centered else ()


class _FileBuilder:
    """A builder of the file from its frame and its tensors."""

    def __init__(self, plan: Plan, low: Buffer, decoder: Decoder) -> None:
        self._plan = plan
        self._out = bytearray(plan.size)
        self._starts = self._lay_frame()
        self._low = LowBits(low)
        self._decoder = decoder

    def build(self) -> bytearray:
        """Fill all gaps and return the complete file."""
        for number, group in enumerate(self._plan.groups):
            self._fill_numbers(number, group)
        for index, gap in enumerate(self._plan.gaps):
            if gap.filling in (PRODUCT, FILL, COPY):
                self._fill_derived(index, gap)
        if not (self._low.at_end() and self._decoder.at_end()):
            raise ValueError("it has trailing bytes")
        return self._out

    def _lay_frame(self) -> List[int]:
        """Copy the frame into the file; return the offset of each gap."""
        frame, frame_offset, offset, starts = self._plan.frame, 0, 0, []
        for gap in self._plan.gaps:
            self._out[offset : offset + gap.before] = frame[
                frame_offset : frame_offset + gap.before
            ]
            frame_offset, offset = frame_offset + gap.before, offset + gap.before
            starts.append(offset)
            offset += gap.size
        self._out[offset:] = frame[frame_offset:]
        return starts

    def _view_gap(self, index: int, dtype: str = "u1") -> np.ndarray[Any, Any]:
        """Return the bytes of a gap as an array of words that shares the memory of the file."""
        import numpy as np

        size, step = self._plan.gaps[index].size, np.dtype(dtype).itemsize
        if size % step:
            raise ValueError("the size of a tensor is not a whole number of words")
        return np.frombuffer(self._out, dtype, size // step, self._starts[index])

    def _fill_numbers(self, number: int, group: Group) -> None:
        per_word = 2 if group.width == 4 else 1
        targets = list(self._iter_targets(number, group))
        total = per_word * sum(shape[0] * shape[1] * shape[2] for _, shape, _, _ in targets)
        symbols, reader = (
            _Symbols(self._decoder, total, group.counts),
            NumberReader(group, self._low),
        )
        for tensor, shape, slices, center in targets:
            for piece_slice, words in _iter_pieces(shape, slices):
                decoded = reader.words(symbols.take(per_word * words), center)
                tensor[piece_slice] = decoded.reshape(tensor[piece_slice].shape)

    def _iter_targets(self, number: int, group: Group) -> Iterator[_Target]:
        for index, gap in enumerate(self._plan.gaps):
            if gap.filling == FIRST_GROUP + number:
                words = self._view_gap(index, _get_dtype(group)).reshape(1, 1, -1)
                yield words, words.shape, [0], gap.arguments[0] if group.centered else 0
            elif gap.filling == SLICES and number in gap.arguments[2:]:
                words, mine = self._select_slices(index, gap, number, group)
                yield words, (words.shape[0], len(mine), words.shape[2]), mine, 0

    def _select_slices(
        self, index: int, gap: Gap, number: int, group: Group
    ) -> Tuple[np.ndarray[Any, Any], List[int]]:
        """Return a tensor cut along an axis, and the indices of the slices that one group fills."""
        words, (slices, inner) = self._view_gap(index, _get_dtype(group)), gap.arguments[:2]
        if group.width == 4 or group.centered or not 0 < slices * inner <= gap.size:
            raise ValueError("a tensor cannot be split into slices")
        mine = [position for position, other in enumerate(gap.arguments[2:]) if other == number]
        return words.reshape(-1, slices, inner), mine

    def _fill_derived(self, index: int, gap: Gap) -> None:
        """Fill a gap that repeats one word, copies another gap, or is the product of two."""
        import numpy as np

        if gap.filling == FILL:
            word = np.array(gap.arguments, np.uint8)
            if not 0 < word.size <= _MOST_WORD or gap.size % word.size:
                raise ValueError("the size of a tensor is not a whole number of words")
            self._view_gap(index).reshape(-1, word.size)[:] = word
            return
        if not all(0 < back <= index for back in gap.arguments):
            raise ValueError("a tensor refers to a later one")
        if gap.filling == COPY:
            self._view_gap(index)[:] = self._view_gap(index - gap.arguments[0])
            return
        left, right = (self._view_gap(index - back, "<f4") for back in gap.arguments)
        target, count = self._view_gap(index, "<f4"), max(len(left), len(right))
        if len(target) != count:
            raise ValueError("a matrix product has a wrong size")
        for start in range(0, count, _CHUNK):
            parts = (
                side[start : start + _CHUNK] if len(side) > 1 else side for side in (left, right)
            )
            target[start : start + _CHUNK] = multiply_scales(*parts)


_Target = Tuple[Any, Tuple[int, ...], List[int], int]
"""A tensor of three axes, the shape of the part to fill, its places along axis 1, the center."""


class _Symbols:
    """Symbols of a group, decoded a chunk at a time."""

    def __init__(self, decoder: Decoder, total: int, counts: Tuple[int, ...]) -> None:
        import numpy as np

        self._decoder, self._left, self._counts = decoder, total, counts
        self._held: np.ndarray[Any, Any] = np.empty(0, np.uint8)
        # Each run starts at the decoder's first lane, so a chunk is a multiple of the lanes.
        self._chunk = max(1, _CHUNK // decoder.lanes) * decoder.lanes

    def take(self, count: int) -> np.ndarray[Any, Any]:
        """Return the next ``count`` symbols."""
        import numpy as np

        parts = [self._held[:count]]
        self._held, missing = self._held[count:], count - len(parts[0])
        while missing:
            decoded = self._decoder.take(min(self._chunk, self._left), self._counts)
            self._left -= len(decoded)
            parts.append(decoded[:missing])
            self._held, missing = decoded[missing:], max(0, missing - len(decoded))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _iter_pieces(shape: Tuple[int, ...], mine: List[int]) -> Iterator[Tuple[Any, int]]:
    """Yield index and word count of each piece of a group's part of a tensor, in file order."""
    outer, _, inner = shape
    row = len(mine) * inner
    if row <= _CHUNK:
        step = max(1, _CHUNK // max(row, 1))
        for begin in range(0, outer, step):
            rows = min(step, outer - begin)
            yield (slice(begin, begin + rows), mine), rows * row
        return
    for begin in range(outer):
        for index in mine:
            for start in range(0, inner, _CHUNK):
                count = min(_CHUNK, inner - start)
                yield (begin, index, slice(start, start + count)), count


def multiply_scales(
    left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Compute the scales of a bias: weight scales times input scale, or the least normal number."""
    import numpy as np

    with np.errstate(all="ignore"):
        scales: np.ndarray[Any, Any] = np.maximum(left * right, np.finfo(np.float32).tiny)
        return scales


def _get_dtype(group: Group) -> str:
    return f"<u{max(1, group.width // 8)}"
