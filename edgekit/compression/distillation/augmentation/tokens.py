"""Tokens that may change, and random tokens in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.changes import Rows, RowsFunction
from edgekit.compression.distillation.augmentation.input_kinds import Array
from edgekit.compression.distillation.augmentation.input_layouts import InputLayout

_LARGEST_SHARE = 0.15
# Where a mask is 0, tokens are padding if they have so few values.
_MOST_PADDING_VALUES = 2
# Fewer samples do not tell which tokens are special.
_LEAST_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class TokenPlaces:
    """Rules for the places of an input where tokens may change.

    Attributes:
        name: The input.
        masks: Inputs that are 0 at padding.
        padding: Tokens that fill the start or end of samples; looked at where there is no mask.
        special: Tokens that each sample holds once, for example its start.
    """

    name: str
    masks: tuple[str, ...]
    padding: Array
    special: Array

    def find_changeable(self, rows: Rows) -> NDArray[np.bool_]:
        """Return the places that hold neither padding nor special tokens."""
        tokens = rows[self.name]
        places = ~np.isin(tokens, self.special)
        for name in self.masks:
            places &= rows[name] != 0
        return places if self.masks else places & ~_find_padding(tokens, self.padding)


def find_token_places(layouts: Sequence[InputLayout], rows: Rows) -> list[TokenPlaces]:
    """Find the inputs of tokens, with their masks and special tokens."""
    masks = [each.name for each in layouts if each.kind == "mask"]
    return [
        TokenPlaces(
            name=each.name,
            masks=tuple(m for m in masks if _is_padding_mask(rows[m], rows[each.name])),
            padding=_find_padding_values(rows[each.name]),
            special=_find_special(rows[each.name]),
        )
        for each in layouts
        if each.kind == "tokens"
    ]


def replace_tokens(inputs: Sequence[TokenPlaces]) -> RowsFunction:
    """Return a function that puts random tokens of the samples in place of others."""

    def change(rows: Rows, rng: Generator, strength: float) -> dict[str, Array]:
        seed = int(rng.integers(2**32))
        return {
            each.name: _replace(
                rows[each.name],
                each.find_changeable(rows),
                np.random.default_rng(seed),
                _LARGEST_SHARE * strength,
            )
            for each in inputs
        }

    return change


def _replace(tokens: Array, free: NDArray[np.bool_], rng: Generator, share: float) -> Array:
    replaced = free & (rng.random(tokens.shape) < share)
    result = tokens.copy()
    result[replaced] = rng.choice(tokens[free], int(replaced.sum())) if replaced.any() else 0
    return result


def _is_padding_mask(mask: Array, tokens: Array) -> bool:
    """Return whether tokens are padding where the mask is 0; token types are no mask."""
    if mask.shape != tokens.shape:
        return False
    return np.unique(tokens[mask == 0]).size <= _MOST_PADDING_VALUES


def _find_padding_values(tokens: Array) -> Array:
    """Find the tokens that a sample repeats at its start or end."""
    starts = tokens[tokens[:, 0] == tokens[:, 1], 0]
    ends = tokens[tokens[:, -1] == tokens[:, -2], -1]
    return np.unique(np.concatenate([starts, ends]))


def _find_padding(tokens: Array, padding: Array) -> NDArray[np.bool_]:
    """Find the runs of padding at the start and end of samples."""
    at_end = _find_run(tokens[:, ::-1], padding)[:, ::-1]
    return at_end | _find_run(tokens, padding)


def _find_run(tokens: Array, padding: Array) -> NDArray[np.bool_]:
    same = (tokens == tokens[:, :1]) & np.isin(tokens[:, :1], padding)
    return np.logical_and.accumulate(same, axis=1)


def _find_special(tokens: Array) -> Array:
    """Find the tokens that each sample holds once."""
    if len(tokens) < _LEAST_SAMPLES:
        return tokens[:0, 0]
    candidates = np.unique(tokens[0])
    counts = (tokens[:, :, None] == candidates).sum(axis=1)
    special: Array = candidates[(counts == 1).all(axis=0)]
    return special
