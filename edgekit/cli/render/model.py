"""Formatting of a model and its prunable structure as text for a terminal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from edgekit.bundle.results import MIB
from edgekit.data.input_settings import Feeding
from edgekit.inspection.prunable import FixedReason, PrunablePart, PrunableStructure
from edgekit.inspection.summary import Inspection
from edgekit.model import Origin
from edgekit.onnx_graph.cost import Cost
from edgekit.reporting.text_tables import format_size, format_table

# Largest number of rows and reasons; --json lists them all.
_SHOWN_PARTS, _SHOWN_REASONS = 40, 6
_LONGEST = 56


def format_inspection(seen: Inspection) -> str:
    """Format the facts of a model and its obstacles on the device."""
    lines = [f"{seen.model.display_name}: {seen.model.format}, {format_size(seen.bytes)}"]
    if seen.model.origin:
        lines += _format_origin(seen.model.origin)
    lines += [f"  input   {spec}" for spec in seen.model.signature.inputs]
    lines += [f"  output  {spec}" for spec in seen.model.signature.outputs]
    lines += _format_cost(seen, seen.cost) if seen.cost else [f"  operators unknown: {seen.unread}"]
    if seen.device:
        lines += _format_obstacles(seen)
    if seen.prunable:
        lines += ["", *_iter_prunable_lines(seen.prunable)]
    return "\n".join(lines)


def _format_cost(seen: Inspection, cost: Cost) -> list[str]:
    more = (
        f" (without {len(cost.unknown)} nodes of unknown shape or inside If, Loop or Scan)"
        if cost.unknown
        else ""
    )
    opset = "" if cost.opset is None else f"opset {cost.opset}, "
    return [
        f"  {opset}{cost.parameters:,} parameters, {cost.macs:,} MACs{more}",
        f"  peak activations {format_size(cost.peak_activation_bytes)} (one sample, in file order)",
        *_format_free_dims(seen),
        f"  operators: {', '.join(f'{name} {n}' for name, n in cost.ops.items())}",
    ]


def _format_origin(origin: Origin) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    by = f"{origin.tool} ({versions})" if versions else origin.tool
    return [f"  converted by {by}", *(f"  {n}" for n in origin.notes)]


def _format_free_dims(seen: Inspection) -> list[str]:
    free = {name for _, _, name in Feeding().iter_free_axes(seen.model.signature)}
    names = sorted(free - seen.dims.keys())
    if not names:
        return []
    return [
        f"  free dimensions counted as 1: {', '.join(names)} (set them with --dims "
        f"{names[0]}=SIZE, or [model] dims in edgekit.toml)"
    ]


def _format_obstacles(seen: Inspection) -> list[str]:
    lines = [f"  {seen.device}: {o.what}; {o.fix}" for o in seen.obstacles]
    limit = seen.model_mib_limit
    if not lines and limit is not None and seen.bytes > limit * MIB:
        lines.append(
            f"  {seen.device}: {format_size(seen.bytes)}, the limit is {limit:g} MiB; compress "
            "it with 'edgekit build'"
        )
    if not lines and seen.cost is None and not seen.custom:
        return [f"  {seen.device}: has a runtime for this format; the operators were not checked"]
    if not lines and seen.crosses:
        return [f"  {seen.device}: runs .tflite files only; every operator can be converted"]
    if not lines and seen.custom:
        return [
            f"  {seen.device}: every builtin operator can run there; the custom operators "
            f"{', '.join(seen.custom)} must be built into the runtime there (they are in the one "
            "here)"
        ]
    opset = seen.cost is not None and seen.cost.opset is not None
    whole = "every operator and the opset" if opset else "every operator"
    return lines or [f"  {seen.device}: {whole} can run there"]


def _iter_prunable_lines(found: PrunableStructure) -> Iterator[str]:
    """Yield lines on the prunable structure, the savings, and the reasons why the rest stays."""
    if not found.parts:
        yield f"nothing can be pruned: {found.refused}"
        return
    rows = _build_rows(found)
    yield from format_table([_HEAD, *rows[:_SHOWN_PARTS]]).splitlines()
    if len(rows) > _SHOWN_PARTS:
        yield f"and {len(rows) - _SHOWN_PARTS} more rows (all with --json)"
    yield ""
    inputs = ", ".join(f"{name} {list(shape)}" for name, shape in found.sizes.items())
    yield f"The model needs {found.macs:,} MACs for the inputs {inputs}."
    most = _format_percent(found.macs - found.least_macs, found.macs)
    yield f"Pruning can remove at most {most} of them, as one group of each row must remain."
    yield from (_format_fixed_reason(reason) for reason in found.fixed[:_SHOWN_REASONS])
    if len(found.fixed) > _SHOWN_REASONS:
        yield f"and {len(found.fixed) - _SHOWN_REASONS} more reasons (all with --json)"


_HEAD = ("prunable part", "groups", "", "kind", "layers", "MACs", "", "parameters")


def _build_rows(found: PrunableStructure) -> list[list[str]]:
    """Build one row for all parts that differ only in numbers in their names."""
    alike: dict[object, list[PrunablePart]] = defaultdict(list)
    for part in found.parts:
        alike[replace(part, name=re.sub(r"\d+", "", part.name))].append(part)
    return [_build_row(found, parts[0], len(parts) - 1) for parts in alike.values()]


def _build_row(found: PrunableStructure, part: PrunablePart, others: int) -> list[str]:
    return [
        _shorten(part.name) + (f" and {others} similar" if others else ""),
        str(part.groups),
        "" if part.kind == "layers" else f"x {part.width}",
        part.kind,
        str(part.layers),
        f"{part.macs:,}",
        _format_percent(part.macs, found.macs),
        f"{part.parameters:,}",
    ]


def _shorten(name: str) -> str:
    """Return the end of a long name, as many names begin alike."""
    return name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}"


def _format_percent(part: int, whole: int) -> str:
    """Format a percentage, rounded down: an incomplete part is below 100 %."""
    return f"{1000 * part // whole / 10:.1f} %" if whole else "0.0 %"


def _format_fixed_reason(reason: FixedReason) -> str:
    others = {1: "", 2: ", and so does 1 more layer"}.get(
        reason.layers, f", and so do {reason.layers - 1} more layers"
    )
    return f"{_shorten(reason.example)} keeps its channels (reason: {reason.reason}){others}."
