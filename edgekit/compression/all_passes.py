"""All passes: edgekit's own, and those that plugins offer as entry points ``edgekit.passes``."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from functools import cache

from pydantic import TypeAdapter

from edgekit.compression.pass_specs import PASSES, TENSORFLOW, PassSpec, Promise
from edgekit.config.plugins import Plugin, load_plugins, warn_of_plugin
from edgekit.errors import first_line
from edgekit.old_names import OLD_PASSES
from edgekit.pass_settings import PruneChannels
from edgekit.recipe import Step

GROUP = "edgekit.passes"

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_BY_GRADIENTS = ("fisher", "taylor")


def find_pass(name: str) -> PassSpec | None:
    """Return the pass of a name; plugins are loaded only if edgekit has no such pass itself."""
    return PASSES.get(name) or _load_plugin_passes().get(name)


def get_pass(name: str) -> PassSpec:
    """Return the pass of a name that is known to exist.

    Raises:
        KeyError: There is no such pass.
    """
    spec = find_pass(name)
    if spec is None:
        raise KeyError(name)
    return spec


def list_pass_names() -> list[str]:
    """List the names of all passes, those of plugins last."""
    return [*PASSES, *_load_plugin_passes()]


def get_tools(step: Step) -> tuple[str, ...]:
    """Return the packages whose versions decide the bytes of a step's result."""
    tools = get_pass(step.name).tools
    learned = isinstance(step.settings, PruneChannels) and step.settings.score in _BY_GRADIENTS
    return (*tools, TENSORFLOW) if learned else tools


@cache
def _load_plugin_passes() -> dict[str, PassSpec]:
    """Load the passes of plugins; those that cannot be used are left out with a warning."""
    passes: dict[str, PassSpec] = {}
    for plugin in load_plugins(GROUP):
        fault = _find_name_fault(plugin.name, passes) or _find_spec_fault(plugin.value)
        if fault:
            warn_of_plugin(plugin, fault)
        else:
            passes[plugin.name] = _add_origin(typing.cast("PassSpec", plugin.value), plugin)
    return passes


def _add_origin(spec: PassSpec, plugin: Plugin) -> PassSpec:
    """Return a pass that names its plugin, whose version decides the results as well."""
    return dataclasses.replace(spec, plugin=plugin.origin, tools=(*spec.tools, plugin.distribution))


def _find_name_fault(name: str, others: dict[str, PassSpec]) -> str:
    if name in PASSES or name in OLD_PASSES:
        return "edgekit has a pass of that name"
    if name in others:
        return f"{others[name].plugin} has a pass of that name"
    if not _NAME.fullmatch(name):
        return "its name must be lower-case letters, digits and hyphens"
    return ""


def _find_spec_fault(spec: object) -> str:
    """Return why an object is not the entry of a pass; empty if it is one."""
    if not isinstance(spec, PassSpec):
        return f"it must be an edgekit.PassSpec, not {type(spec).__name__}"
    function = spec.function
    faults = {
        "function: must be callable, or 'module:function'": callable(function)
        or (isinstance(function, str) and re.fullmatch(r"[\w.]+:\w+", function)),
        "summary: must be one line of text": isinstance(spec.summary, str)
        and spec.summary.strip()
        and spec.summary.isprintable(),
        "version: must be a whole number": type(spec.version) is int,
        "formats: must be onnx, tflite or both": spec.formats
        and set(spec.formats) <= {"onnx", "tflite"},
        "tools: must be names of distributions": isinstance(spec.tools, tuple)
        and all(isinstance(tool, str) for tool in spec.tools),
        "promise: must be an edgekit.Promise": isinstance(spec.promise, Promise),
    }
    found = [fault for fault, holds in faults.items() if not holds]
    return found[0] if found else _find_settings_fault(spec.settings, spec.asks)


def _find_settings_fault(kind: object, asks: str) -> str:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return "settings: must be a frozen dataclass"
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return f"settings: {kind.__name__} must be frozen"
    try:
        for hint in typing.get_type_hints(kind, include_extras=True).values():
            TypeAdapter(hint)
        json.dumps(dataclasses.asdict(kind()))
    except Exception as error:  # noqa: BLE001 - any fault of foreign code
        return f"settings: {kind.__name__} needs types, and defaults of plain data: " + first_line(
            error
        )
    if asks and asks not in {field.name for field in dataclasses.fields(kind)}:
        return f"asks: {kind.__name__} has no setting {asks!r}"
    return ""
