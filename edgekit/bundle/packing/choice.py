"""Choice of the cheapest encoding of each tensor: by rule, as numbers, or left in the frame."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.packing.numbers import (
    Form,
    Words,
    count_symbols,
    count_zero_bits,
    find_center,
    read_words,
)
from edgekit.bundle.packing.slices import Slices, find_slices
from edgekit.bundle.packing.tables import estimate_bits
from edgekit.bundle.packing.tensors import StoredTensor
from edgekit_agent.packing.unpack import COPY, FILL, PRODUCT, Tell, multiply_scales

_FLOAT = 1
_WIDTHS = {_FLOAT: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 10: 16, 12: 32, 16: 16, 17: 8, 21: 4, 22: 4}
_FLOATS = (_FLOAT, 10, 16)
# A gap in the frame costs some bytes, so that smaller tensors save nothing.
_LEAST_BYTES = 12
_SAMPLE = 1 << 18
_CHANCE = 4
# With fewer zeros an encoding around zero is not tried: another center saves a bit or two for all
# other numbers.
_MANY_ZEROS = 0.04


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Tensor encoded as distances from a center; kinds of slices may have their own tables."""

    form: Form
    center: int
    words: Words
    slices: Slices | None = None

    @property
    def kinds(self) -> range:
        """Return the kinds of slices; one if the tensor is not sliced."""
        return range(1 if self.slices is None else max(self.slices.kinds) + 1)

    def part(self, kinds: Sequence[int]) -> Words:
        """Return the words of all slices of these kinds, in file order."""
        return self.words if self.slices is None else self.slices.part(self.words, kinds)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Tensor that repeats a word, or is computed from tensors a number of places before it."""

    kind: int
    arguments: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChosenTensor:
    """Tensor that leaves a gap in the frame, and the encoding that fills it."""

    tensor: StoredTensor
    filling: Numbers | Rule


def ignore_progress(done: int, total: int) -> None:
    """Ignore progress."""
    del done, total


def choose_encodings(
    data: bytes, tensors: Sequence[StoredTensor], tell: Tell = ignore_progress
) -> list[ChosenTensor]:
    """Choose the encodings of the tensors that are not left in the frame, in file order.

    Args:
        data: the file.
        tensors: positions of the tensors in it.
        tell: called with the number of bytes done and in total.
    """
    seen, total = 0, sum(tensor.size for tensor in tensors)
    known = _KnownTensors()
    chosen: list[ChosenTensor] = []
    for tensor in tensors:
        tell(seen, total)
        seen += tensor.size
        raw = data[tensor.start : tensor.start + tensor.size]
        filling = known.rule(raw, tensor, len(chosen)) or _choose_numbers(raw, tensor)
        if filling is not None:
            known.add(raw, tensor, len(chosen))
            chosen.append(ChosenTensor(tensor=tensor, filling=filling))
    return chosen


class _KnownTensors:
    """Tensors encoded so far, from which a later one may be computed."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._floats: dict[int, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)

    def add(self, raw: bytes, tensor: StoredTensor, place: int) -> None:
        """Record a tensor by its place among the chosen ones."""
        self._places.setdefault(raw, place)
        if tensor.data_type == _FLOAT:
            self._floats[tensor.size].append((place, np.frombuffer(raw, "<f4")))

    def rule(self, raw: bytes, tensor: StoredTensor, place: int) -> Rule | None:
        """Find a rule that yields the tensor at ``place``; ``None`` if there is none."""
        if tensor.size < _LEAST_BYTES:
            return None
        word = _find_repeated_word(raw, max(1, _WIDTHS.get(tensor.data_type, 64) // 8))
        if word is not None:
            return Rule(kind=FILL, arguments=tuple(word))
        if raw in self._places:
            return Rule(kind=COPY, arguments=(place - self._places[raw],))
        return self._find_product(raw, place) if tensor.data_type == _FLOAT else None

    def _find_product(self, raw: bytes, place: int) -> Rule | None:
        wanted = np.frombuffer(raw, "<f4")
        for at, left in reversed(self._floats[len(raw)]):
            for factor_at, factor in reversed(self._floats[4]):
                first = multiply_scales(left[:1], factor)
                if abs(first[0] - wanted[0]) > 1e-6 * abs(wanted[0]):
                    continue
                if multiply_scales(left, factor).tobytes() == raw:
                    return Rule(kind=PRODUCT, arguments=(place - at, place - factor_at))
        return None


def _find_repeated_word(raw: bytes, step: int) -> bytes | None:
    word = raw[:step]
    return word if len(raw) % step == 0 and raw == word * (len(raw) // step) else None


def _choose_numbers(raw: bytes, tensor: StoredTensor) -> Numbers | None:
    """Find the cheapest encoding of a tensor as numbers; ``None`` if deflating it is cheaper."""
    if tensor.data_type not in _WIDTHS or tensor.size == 0:
        return None
    # Such a small tensor is worth a gap only as a factor of other scales.
    if tensor.size < _LEAST_BYTES and tensor.data_type != _FLOAT:
        return None
    ways = [n for n in _iter_encodings(raw, tensor.data_type) if n is not None]
    if not ways:
        return None
    costs = [estimate_bits(n.form, count_symbols(n.words, n.form, n.center)) / 8 for n in ways]
    best = int(np.argmin(costs))
    # The margin: other tensors may share its table, and deflating finds repetitions as well.
    if tensor.size >= 1 << 10 and 0.9 * costs[best] > _estimate_deflated_bytes(raw):
        return None
    slices = find_slices(ways[best].words, ways[best].form, tensor.dims)
    return replace(ways[best], slices=slices)


def _iter_encodings(raw: bytes, data_type: int) -> Iterator[Numbers | None]:
    width = _WIDTHS[data_type]
    if data_type in _FLOATS:
        yield _encode_floats(raw, width)
        yield _encode_around_zero(raw, width)
        return
    yield _encode_around_center(raw, Form(width=width))
    if width <= 8:
        yield _encode_around_center(raw, Form(width=width, centered=True))
    if width == 8:
        # Two numbers of 4 bits in a byte look like noise as a number of 8.
        yield _encode_around_center(raw, Form(width=4, centered=True))


def _encode_floats(raw: bytes, width: int) -> Numbers | None:
    form = Form(width=width, rotated=True)
    if len(raw) % (width // 8):
        return None
    words = read_words(raw, form)
    shift = count_zero_bits(words, form)
    single = len(words) == 1
    # A few trailing zero bits come by chance, and would only add a group.
    shift = shift if shift > _CHANCE and not single else min(shift, 1)
    return _encode_around_center(
        raw, Form(width=width, rotated=True, shift=shift, centered=not single)
    )


def _encode_around_zero(raw: bytes, width: int) -> Numbers | None:
    """Encode floats with many zeros around zero, so that each zero is a symbol without low bits."""
    form = Form(width=width, rotated=True)
    if len(raw) % (width // 8):
        return None
    words = read_words(raw, form)
    if np.count_nonzero(words) > (1 - _MANY_ZEROS) * len(words):
        return None
    return Numbers(form=replace(form, shift=count_zero_bits(words, form)), center=0, words=words)


def _encode_around_center(raw: bytes, form: Form) -> Numbers | None:
    if len(raw) % max(1, form.width // 8):
        return None
    words = read_words(raw, form)
    return Numbers(form=form, center=find_center(words, form), words=words)


def _estimate_deflated_bytes(raw: bytes) -> float:
    sample = raw[:_SAMPLE]
    return len(zlib.compress(sample, 6)) * len(raw) / len(sample)
