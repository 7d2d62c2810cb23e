"""Mixtures of two samples: mixup (Zhang 2018), CutMix (Yun 2019) and exchanged spans of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.changes import Change, Rows, RowsFunction
from edgekit.compression.distillation.augmentation.input_kinds import Array
from edgekit.compression.distillation.augmentation.input_layouts import InputLayout
from edgekit.compression.distillation.augmentation.masks import draw_bands
from edgekit.compression.distillation.augmentation.tokens import TokenPlaces

_SHARE = 0.4


def list_mixtures(layouts: Sequence[InputLayout], tokens: Sequence[TokenPlaces]) -> list[Change]:
    """List the mixtures that change all inputs of a sample together."""
    numeric = [each for each in layouts if each.is_numeric]
    grids = [each for each in layouts if each.kind == "grid"]
    found = []
    if tokens and not numeric:
        found.append(_describe("spans of other samples", exchange_spans(tokens)))
    if grids and len(grids) == len(numeric) and not tokens:
        found.append(_describe("CutMix", paste_boxes(grids)))
    if numeric and not tokens:
        found.append(_describe("mixup", mix_pairs(numeric)))
    return found


def _describe(noun: str, function: RowsFunction) -> Change:
    return Change(noun=noun, share=_SHARE, function=function, is_adjustable=False)


def mix_pairs(layouts: Sequence[InputLayout]) -> RowsFunction:
    """Return a function that gives weighted means of two samples."""

    def mix(rows: Rows, rng: Generator, _: float) -> dict[str, Array]:
        partners = _draw_partners(rows, rng)
        weights = rng.random(len(partners))
        return {each.name: _mix(rows[each.name], each, partners, weights) for each in layouts}

    return mix


def paste_boxes(layouts: Sequence[InputLayout]) -> RowsFunction:
    """Return a function that pastes a rectangle of another sample, at the same place."""

    def paste(rows: Rows, rng: Generator, _: float) -> dict[str, Array]:
        partners = _draw_partners(rows, rng)
        side = np.sqrt(rng.random(len(partners)))
        seed = int(rng.integers(2**32))
        result = {}
        for each in layouts:
            values, same = rows[each.name], np.random.default_rng(seed)
            down = draw_bands(values.shape[-2], side, same)
            across = draw_bands(values.shape[-1], side, same)
            inside = down[:, None, :, None] & across[:, None, None, :]
            result[each.name] = np.where(inside, values[partners], values)
        return result

    return paste


def exchange_spans(tokens: Sequence[TokenPlaces]) -> RowsFunction:
    """Return a function that takes a span of tokens from another sample, at the same place."""

    def exchange(rows: Rows, rng: Generator, _: float) -> dict[str, Array]:
        partners = _draw_partners(rows, rng)
        shares, seed = rng.random(len(partners)), int(rng.integers(2**32))
        result = {}
        for each in tokens:
            values = rows[each.name]
            span = draw_bands(values.shape[1], shares, np.random.default_rng(seed))
            free = each.find_changeable(rows)
            result[each.name] = np.where(span & free & free[partners], values[partners], values)
        return result

    return exchange


def _draw_partners(rows: Rows, rng: Generator) -> NDArray[np.intp]:
    """Draw another sample for each sample; the sample itself if there is one alone."""
    order = rng.permutation(len(next(iter(rows.values()))))
    partners = np.empty_like(order)
    partners[order] = np.roll(order, 1)
    return partners


def _mix(
    values: Array, layout: InputLayout, partners: NDArray[np.intp], weights: NDArray[np.floating]
) -> Array:
    weight = weights.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
    others = values[partners]
    usable = layout.get_changeable(values) & np.isfinite(values) & np.isfinite(others)
    with np.errstate(invalid="ignore"):
        return np.where(usable, values + weight * (others - values), values)
