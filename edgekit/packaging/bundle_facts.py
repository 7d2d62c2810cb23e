"""Facts of a bundle that decide how an app feeds its model and shows its answers."""

from __future__ import annotations

import itertools
import math

from edgekit.bundle.bundle_file import Bundle
from edgekit.errors import UserError
from edgekit.packaging.app_settings import InputKind
from edgekit_agent import strictjson
from edgekit_agent.model_settings import ModelSettings, parse_manifest

_INPUTS: dict[str, InputKind] = {"image": "image", "audio": "audio", "text": "text", "row": "form"}
# A form with more fields than this helps nobody.
_MOST_FIELDS = 200


def read_settings(bundle: Bundle) -> ModelSettings:
    """Read how a bundle's model is fed and how its outputs are read, as the device reads it.

    Raises:
        UserError: The manifest is damaged.
    """
    try:
        return parse_manifest(strictjson.loads(bundle.manifest_bytes))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{bundle.path}: damaged manifest: {error}", hint="build again") from error


def get_input_kind(bundle: Bundle) -> InputKind:
    """Return what the user of an app gives to a model."""
    return _INPUTS[read_settings(bundle).input_kind]


def get_answer(bundle: Bundle) -> str:
    """Return the kind of a model's answer, such as ``class``."""
    return read_settings(bundle).answer.kind


def describe_accuracy(bundle: Bundle) -> str:
    """Return the accuracy that the build measured, in words; empty if it measured none."""
    compared = bundle.manifest.verdict.get("comparison") or {}
    value, samples = compared.get("after"), compared.get("n")
    if not isinstance(value, int | float) or not samples:
        return ""
    shown = f"{100 * value:.1f} %" if compared.get("unit") == "points" else f"{value:.4g}"
    return f"{bundle.manifest.metric}: {shown} on {samples} samples"


def list_form_fields(bundle: Bundle) -> dict[str, tuple[str | int, ...]]:
    """Return the numbers of a row that a model takes: the path of each in the row, by its name.

    Numbers without a name get that of their input and their place in it, such as ``x[0][2]``.
    """
    settings = read_settings(bundle)
    if settings.fields:
        return {name: (name,) for each in settings.fields for name in each.fields}
    found: dict[str, tuple[str | int, ...]] = {}
    for tensor in settings.sample_inputs:
        axis = (settings.feeding.axes or {}).get(tensor.name, 0)
        sizes = [size for place, size in enumerate(tensor.shape) if place != axis]
        fixed = [size for size in sizes if isinstance(size, int)]
        if len(fixed) < len(sizes) or len(found) + math.prod(fixed) > _MOST_FIELDS:
            return {}
        for place in itertools.product(*map(range, fixed)):
            found[tensor.name + "".join(f"[{i}]" for i in place)] = (tensor.name, *place)
    return found
