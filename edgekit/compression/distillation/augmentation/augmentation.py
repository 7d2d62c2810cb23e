"""Choice of random changes for the inputs of a model, by the answers of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from edgekit.compression.distillation.augmentation.change_lists import choose_changes
from edgekit.compression.distillation.augmentation.changes import Change, Rows
from edgekit.compression.distillation.augmentation.input_kinds import Array
from edgekit.compression.distillation.augmentation.input_layouts import InputLayout, find_layouts
from edgekit.compression.distillation.augmentation.mixing import list_mixtures
from edgekit.compression.distillation.augmentation.tokens import find_token_places

# Returns the share of samples, 0 to 1, whose answer is that for the unchanged samples.
Agree = Callable[[Mapping[str, Array]], float]

_LEAST_AGREEMENT = 0.7
_WEAKER = 0.5
_UNCHANGED = 0.2


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of samples.

    Attributes:
        layouts: Inputs that have a value for each sample.
        changes: The changes, in the order in which they are applied.
        dropped: Changes that alter the answers of the model too often, in plain words.
    """

    layouts: Sequence[InputLayout]
    changes: Sequence[Change]
    dropped: Sequence[str]

    @property
    def description(self) -> str:
        """Return the changes in plain words, for example "shifts, horizontal flips, mixup"."""
        return ", ".join(dict.fromkeys(each.noun for each in self.changes)) or "no changes"

    def apply(self, batch: Mapping[str, Array], rng: Generator) -> dict[str, Array]:
        """Change samples at random; about one in five stays whole.

        Shapes, dtypes and the order of inputs stay; ``batch`` itself is not changed.
        """
        if not self.changes:
            return dict(batch)
        rows = _to_rows(batch, self.layouts)
        allowed = rng.random(len(next(iter(rows.values())))) >= _UNCHANGED
        for change in self.changes:
            change.apply_to_some(rows, rng, allowed)
        return _from_rows(rows, batch, self.layouts)


def choose_augmentation(
    batch: Mapping[str, Array],
    *,
    axes: Mapping[str, int],
    constants: Collection[str],
    seed: int,
    agree: Agree,
) -> Augmentation:
    """Choose the changes under which a teacher gives the same answers.

    Each change is tried alone on all samples, and again with half its strength if too many answers
    differ. Mixtures of samples are not tried, as their answers differ by design.

    Args:
        batch: Up to 64 samples by input.
        axes: Sample axis by input; 0 if not given, negative where a sample is a whole input.
        constants: Inputs that never change: constants and states.
        seed: Seed of every random choice.
        agree: Share of samples, 0 to 1, whose answer stays the same with the changed inputs.
    """
    layouts = find_layouts(batch, axes, constants)
    rows = _to_rows(batch, layouts)
    tokens = find_token_places(layouts, rows)
    dropped: list[str] = []

    def check(change: Change) -> list[Change]:
        strengths = (1.0, _WEAKER) if change.is_adjustable else (1.0,)
        for each in (replace(change, strength=strength) for strength in strengths):
            changed = each.apply_to_all(rows, np.random.default_rng(seed))
            if agree(_from_rows(changed, batch, layouts)) >= _LEAST_AGREEMENT:
                return [each]
        dropped.append(change.noun)
        return []

    kept = choose_changes(layouts, tokens, check)
    mixtures = list_mixtures(layouts, tokens)
    return Augmentation(layouts=layouts, changes=[*kept, *mixtures], dropped=dropped)


def _to_rows(batch: Mapping[str, Array], layouts: Sequence[InputLayout]) -> dict[str, Array]:
    return {each.name: each.to_rows(np.asarray(batch[each.name])) for each in layouts}


def _from_rows(
    rows: Rows, batch: Mapping[str, Array], layouts: Sequence[InputLayout]
) -> dict[str, Array]:
    """Convert rows to inputs; inputs that do not change are those of the batch."""
    changed = {
        each.name: each.from_rows(rows[each.name], np.asarray(batch[each.name]))
        for each in layouts
        if each.is_numeric or each.kind == "tokens"
    }
    return {**batch, **changed}
