"""Run of a recipe on one random graph, with an independent comparison of every output."""

from __future__ import annotations

import math
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.compatibility_case import load_runner, output_errors
from edgekit.compression.recipe_parser import parse_settings
from edgekit.errors import PassRefused, UserError
from edgekit.pipeline.apply import ApplyResult, apply
from edgekit.progress import ignore_progress
from tests.builders.exported.kinds import Exported

SINGLE: dict[str, tuple[str, ...]] = {
    "clean": ("clean",),
    "quantize-static": ("quantize-static",),
    "quantize-dynamic": ("quantize-dynamic",),
    "quantize-weights": ("quantize-weights bits=4",),
    "prune-weights": ("prune-weights",),
    "prune-channels": ("prune-channels remove=0.3",),
    "low-rank": ("low-rank",),
    "float16": ("float16",),
    "to-tflite": ("to-tflite",),
}
CHAINS: dict[str, tuple[str, ...]] = {
    "quantize-static, to-tflite": ("quantize-static", "to-tflite"),
    "quantize-dynamic, to-tflite": ("quantize-dynamic", "to-tflite"),
    "quantize-weights, quantize-static": ("quantize-weights bits=4", "quantize-static"),
    "quantize-weights, to-tflite": ("quantize-weights bits=4", "to-tflite"),
    "prune-channels, quantize-static": ("prune-channels remove=0.3", "quantize-static"),
    "low-rank, quantize-static, to-tflite": ("low-rank", "quantize-static", "to-tflite"),
    "float16, to-tflite": ("float16", "to-tflite"),
    "to-tflite, to-onnx": ("to-tflite", "to-onnx"),
}
_CHAINS_EACH = 2
# A pass reports its error on the same samples, from a subset of the entries.
_FURTHER, _ROUNDING = 1.3, 1e-4
_HALF_ROUNDING = 3e-3
# With this many float weights a pass must find something, or name the layer with a reason.
_MANY = 1024
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}
_QUANTIZING = {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM"}
_CLOSED = "cannot be read"
_NOTHING = ("nothing to", "no layer can be factorized")
_NONE = ("no Conv", "no MatMul", "no LSTM", "no weights")
# "NAME (OPERATOR, 2 x 3) is too small: 6 entries, fewer than 1024"
_TOO_SMALL = re.compile(r"\((?:\w+, )?([\d x]+)\)(?:: each)? is too small[^:]*: (\d+) \D+ (\d+)")
_LARGEST = re.compile(r"the largest float32 tensor, .*, has (\d+) entries")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Outcome of a recipe on a graph: "ok", "refused" or "fault"; ``text`` is the reason.

    ``error`` is the error of the worst output of the last step, ``said`` the error that the pass
    reported.
    """

    kind: str
    seed: int
    recipe: str
    status: str
    text: str = ""
    error: float | None = None
    said: float | None = None


def recipes(seed: int) -> dict[str, tuple[str, ...]]:
    """Select every single pass, and some of the chains depending on the seed."""
    names = [name for n, name in enumerate(CHAINS) if (n - seed) % len(CHAINS) < _CHAINS_EACH]
    return SINGLE | {name: CHAINS[name] for name in names}


def write(graph: Exported, folder: Path) -> Path:
    """Write the model and its samples, as a user would have them."""
    path = folder / "model.onnx"
    path.write_bytes(graph.proto.SerializeToString())
    np.savez(folder / "samples.npz", **graph.samples)
    return path


def run_recipe(graph: Exported, recipe: str, steps: Sequence[str], folder: Path) -> Case:
    """Run a recipe and return its outcome, also for exceptions."""
    known = {"kind": graph.kind, "seed": graph.seed, "recipe": recipe}
    current = folder / "model.onnx"
    found: tuple[float, float] | None = None
    for step in steps:
        name, *settings = step.split()
        target = folder / f"{step.replace(' ', '-')}{'.tflite' if name == 'to-tflite' else '.onnx'}"
        target = target.with_stem(f"{current.stem}-{target.stem}")
        try:
            applied = _apply(name, settings, current, target, folder)
        except (PassRefused, UserError) as refusal:
            text = f"{name}: {refusal.message}"
            if "\n" in refusal.message or (why := _contradiction(refusal.message, current)):
                return Case(**known, status="fault", text=f"wrong refusal ({why}): {text}")
            return Case(**known, status="refused", text=text)
        except Exception as error:  # noqa: BLE001 - every exception is a fault
            return Case(**known, status="fault", text=f"{name}: {_describe_exception(error)}")
        try:
            found = _errors(current, target, graph, applied)
        except Exception as error:  # noqa: BLE001 - as above
            return Case(
                **known,
                status="fault",
                text=f"{name}: the result fails: {_describe_exception(error)}",
            )
        if not found[0] <= _FURTHER * found[1] + _rounding(graph):
            text = f"{name}: has the error {found[0]:.3g}, the pass reported {found[1]:.3g}"
            return Case(**known, status="fault", text=text, error=found[0], said=found[1])
        current = target
    error, said = found or (0.0, 0.0)
    return Case(**known, status="ok", error=error, said=said)


def _apply(name: str, settings: list[str], source: Path, target: Path, folder: Path) -> ApplyResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = parse_settings(name, settings, where="")
        return apply(step, source, target, data="samples.npz", folder=folder, tick=ignore_progress)


def _rounding(graph: Exported) -> float:
    return _HALF_ROUNDING if graph.kind == "float16" else _ROUNDING


def _errors(
    before: Path, after: Path, graph: Exported, applied: ApplyResult
) -> tuple[float, float]:
    """Measure the error of the worst output; also return the error that the pass reported."""
    if applied.agreement is None:
        return 0.0, 0.0
    made = load_runner(after)
    feeds = list(_feeds(graph))
    results = [made(feed) for feed in feeds]
    # Between operators onnxruntime rounds to 16 bits, and ties to either 8-bit integer, as it
    # optimizes; both are right.
    forms = (False, True) if graph.kind == "float16" or _is_quantized(before) else (False,)
    worst = applied.agreement.worst
    said = worst[1] if worst else 0.0
    found = []
    for optimized in forms:
        exact = load_runner(before, optimized=optimized)
        errors = output_errors([(exact(f), r) for f, r in zip(feeds, results, strict=True)])
        found.append(max((e for e, is_float in errors.values() if is_float), default=0.0))
    return min(found), said


def _is_quantized(path: Path) -> bool:
    """Return whether a file is an ONNX model with 8-bit tensors."""
    if path.suffix != ".onnx":
        return False
    return any(node.op_type in _QUANTIZING for node in onnx.load(path).graph.node)


def _feeds(graph: Exported) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(graph.samples.values())))
    for row in range(count):
        yield {name: array[row : row + 1] for name, array in graph.samples.items()}


def _describe_exception(error: Exception) -> str:
    """Describe an exception and its origin in one line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "edgekit" in f.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}: {first[:300]}"


def _contradiction(message: str, path: Path) -> str:
    """Return the reason why a refusal is wrong for a graph; empty if it may be right."""
    if _CLOSED in message:
        return "the graph runs"
    for shape, entries, least in _TOO_SMALL.findall(message):
        if not math.prod(map(int, shape.split(" x "))) == int(entries) < int(least):
            return f"{shape} is not less than {least}"
    if not message.startswith((*_NOTHING, *_NONE)) or path.suffix != ".onnx":
        return ""
    graph = onnx.load(path).graph
    if (told := _LARGEST.search(message)) and (most := _most_entries(graph)) > int(told[1]):
        return f"a tensor has {most} entries"
    denies = message.startswith(_NONE)  # otherwise a named layer stays for a reason
    found = [x for x in _large_layers(graph) if (x.split()[0] in message) == denies]
    return f"{found[0]} has many weights" if found and not told else ""


def _most_entries(graph: onnx.GraphProto) -> int:
    """Count the entries of the largest stored float32 tensor of the main graph."""
    sizes = [math.prod(w.dims) for w in graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    return max(sizes, default=0)


def _large_layers(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the layers of the graph and its inner graphs with many stored weights."""
    sizes = {w.name: int(np.prod(w.dims)) for w in graph.initializer if w.data_type in (1, 10)}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            value = numpy_helper.to_array(node.attribute[0].t)
            sizes[node.output[0]] = value.size if value.dtype.kind == "f" else 0
        if node.op_type in _LAYERS and any(sizes.get(n, 0) >= _MANY for n in node.input):
            yield f"{node.op_type} {node.name}"
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _large_layers(attribute.g)
