"""Changes that fit each kind of input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.compression.distillation.augmentation.changes import (
    Change,
    InputFunction,
    change_each,
)
from edgekit.compression.distillation.augmentation.input_layouts import InputLayout
from edgekit.compression.distillation.augmentation.intensity import (
    add_noise,
    change_brightness,
    change_color,
    change_contrast,
    change_gain,
)
from edgekit.compression.distillation.augmentation.masks import cut_out, mask_along
from edgekit.compression.distillation.augmentation.resampling import (
    flip_horizontally,
    shift_along,
    zoom,
)
from edgekit.compression.distillation.augmentation.tables import add_column_noise, exchange_columns
from edgekit.compression.distillation.augmentation.tokens import TokenPlaces, replace_tokens

# Returns the change as it is used, at a strength that fits, or nothing.
Check = Callable[[Change], list[Change]]
Proposal = tuple[str, float, InputFunction]

_IMAGE: Sequence[Proposal] = (
    ("shifts", 0.6, shift_along(-2, -1)),
    ("zoom", 0.3, zoom),
    ("brightness", 0.3, change_brightness),
    ("contrast", 0.3, change_contrast),
)
_COLOR: Proposal = ("color", 0.3, change_color)
_CUTOUT: Proposal = ("cutout", 0.3, cut_out)
_SPECTROGRAM: Sequence[Proposal] = (
    ("shifts along the first axis", 0.5, shift_along(-2)),
    ("shifts along the second axis", 0.5, shift_along(-1)),
    ("gain", 0.3, change_brightness),
    ("contrast", 0.3, change_contrast),
    ("noise", 0.3, add_noise),
    ("masks along the first axis", 0.3, mask_along(-2)),
    ("masks along the second axis", 0.3, mask_along(-1)),
)
_SIGNAL: Sequence[Proposal] = (
    ("shifts in time", 0.6, shift_along(-1)),
    ("gain", 0.5, change_gain),
    ("noise", 0.5, add_noise),
)
_VALUES: Sequence[Proposal] = (
    ("noise", 0.6, add_column_noise),
    ("columns of other samples", 0.3, exchange_columns),
)


def choose_changes(
    layouts: Sequence[InputLayout], tokens: Sequence[TokenPlaces], check: Check
) -> list[Change]:
    """Choose the changes of all inputs, in the order in which they are applied.

    Inputs of one kind and size change together, for example the two images of a stereo camera.
    """
    kept = []
    for group in _group(layouts):
        kind = group[0].kind
        if kind == "grid":
            kept += _choose_grid_changes(group, check)
        elif kind in ("signal", "values"):
            kept += _check_all(_SIGNAL if kind == "signal" else _VALUES, group, check)
    if tokens:
        kept += check(Change(noun="random tokens", share=0.7, function=replace_tokens(tokens)))
    return kept


def _group(layouts: Sequence[InputLayout]) -> list[list[InputLayout]]:
    groups: dict[object, list[InputLayout]] = {}
    for each in layouts:
        groups.setdefault((each.kind, each.sizes), []).append(each)
    return list(groups.values())


def _choose_grid_changes(group: Sequence[InputLayout], check: Check) -> list[Change]:
    """Choose the changes of images, or of spectrograms.

    A grid of one channel is treated as a spectrogram where flips alter the answers.
    """
    flips = check(
        Change(
            noun="horizontal flips",
            share=0.5,
            function=change_each(group, flip_horizontally),
            is_adjustable=False,
        )
    )
    channels = group[0].sizes[0]
    if channels == 1 and not flips:
        return _check_all(_SPECTROGRAM, group, check)
    proposals = [*_IMAGE, *([_COLOR] if channels > 2 else []), _CUTOUT]
    return [*flips, *_check_all(proposals, group, check)]


def _check_all(
    proposals: Sequence[Proposal], group: Sequence[InputLayout], check: Check
) -> list[Change]:
    return [
        each
        for noun, share, function in proposals
        for each in check(Change(noun=noun, share=share, function=change_each(group, function)))
    ]
