"""Names of passes and settings in earlier versions, which are accepted with a note."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OLD_PASSES: dict[str, str] = {
    "quantize": "quantize-static",
    "weights": "quantize-weights",
    "prune": "prune-weights",
    "tflite": "to-tflite",
    "onnx": "to-onnx",
}
OLD_SETTINGS: dict[str, dict[str, str]] = {"quantize-static": {"equalise": "equalize"}}


@dataclass(frozen=True)
class OldNames:
    """Collector of the old names that the user gave, with the new ones."""

    found: dict[str, str] = field(default_factory=dict)

    def resolve_pass(self, name: str) -> str:
        """Return the present name of a pass; an unknown name is returned as it is."""
        return self._resolve(OLD_PASSES, name)

    def resolve_setting(self, name: str, key: str) -> str:
        """Return the present name of a setting of a pass; an unknown one is returned as it is.

        Args:
            name: Present name of the pass.
            key: Name of the setting.
        """
        return self._resolve(OLD_SETTINGS.get(name, {}), key)

    def format_note(self) -> str:
        """Format the note for the user in one line; empty if no old name was given."""
        pairs = ", ".join(f"`{old}` is now `{new}`" for old, new in self.found.items())
        names = "names work" if len(self.found) > 1 else "name works"
        return f"{pairs}; the old {names} until the next release" if pairs else ""

    def _resolve(self, table: Mapping[str, str], name: str) -> str:
        new = table.get(name)
        if new is None:
            return name
        self.found[name] = new
        return new


def rename_stored_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step of a stored recipe, as ``Step.as_json`` wrote it, under the present names."""
    names = OldNames()
    name = step.get("name")
    settings = step.get("settings")
    renamed = dict(step)
    if isinstance(name, str):
        renamed["name"] = name = names.resolve_pass(name)
        if isinstance(settings, Mapping):
            renamed["settings"] = {
                names.resolve_setting(name, key): value for key, value in settings.items()
            }
    return renamed


def rename_stored_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored recipe with its steps under the present names."""
    steps = recipe.get("steps")
    if not isinstance(steps, (list, tuple)):
        return dict(recipe)
    renamed = [rename_stored_step(step) if isinstance(step, dict) else step for step in steps]
    return {**recipe, "steps": renamed}
