"""Crashes of a pass: a report that names the fault and holds nothing of the user's own."""

from __future__ import annotations

import errno
import hashlib
import json
import linecache
import platform
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from edgekit import __version__
from edgekit.errors import EdgekitError, PassCrash, first_line
from edgekit.graphs.lite_file import lite_ops
from edgekit.graphs.onnx_file import load_structure
from edgekit.model import Model, TensorSpec
from edgekit.recipe import Step
from edgekit_agent.files import write_whole

_PACKAGES = ("onnx", "onnxruntime", "numpy", "ai-edge-litert")
# What the machine has run out of is no fault of a pass, and no other candidate fares better.
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT)
# Folders of a path; the name of the file after them stays.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^/\\:'\"\n]+[/\\])+(?=[^\s/\\])")
_MOST_CHARACTERS = 2000


def is_crash(error: Exception) -> bool:
    """Whether an exception is one that nobody expected.

    Failures with a message for the user are not, nor is a machine out of memory or disk.
    """
    if isinstance(error, (EdgekitError, MemoryError)):
        return False
    return not (isinstance(error, OSError) and error.errno in _EXHAUSTED)


def crash_of(doing: str, error: Exception, *, steps: Iterable[Step], model: Model) -> PassCrash:
    """The failure that stands for an unexpected exception, with its report.

    Args:
        doing: the pass that ran, or another stage of the build.
        error: the exception.
        steps: what ran, with settings.
        model: what it ran on.
    """
    said = _anonymous(first_line(error))
    message = f"{doing} crashed: {type(error).__name__}{f': {said}' if said else ''}"
    parts = (
        ["What failed", f"  {message}"],
        ["Steps", *(f"  {json.dumps(step.as_json())}" for step in steps)],
        ["Versions", *(f"  {line}" for line in _versions())],
        ["Model, without weights and names", *(f"  {line}" for line in _graph(model))],
        ["Traceback", *_traceback(error)],
    )
    return PassCrash(message, report="\n\n".join("\n".join(part) for part in parts) + "\n")


def write_crash(crash: PassCrash, root: Path) -> Path:
    """Write the report of a crash below a folder; the same crash has the same file."""
    text = crash.report.encode("utf-8", "backslashreplace")
    path = root / "crashes" / f"{hashlib.sha256(text).hexdigest()[:16]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(str(path), text)
    return path


def how_to_report(path: Path) -> str:
    """One line on what to do with the report of a crash."""
    return f"a fault of edgekit: please report it with {path} (no weights, no data)"


# ---------------------------------------------------------------- parts of the report


def _versions() -> Iterator[str]:
    yield f"edgekit {__version__}"
    yield f"python {platform.python_version()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"
    yield platform.platform()


def _graph(model: Model) -> Iterator[str]:
    yield f"{model.format}, {model.bytes} bytes"
    for side, specs in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        yield from (f"{side} {_spec(spec)}" for spec in specs)
    try:
        yield from _lite(model) if model.format == "tflite" else _onnx(load_structure(model.path))
    except Exception as error:  # noqa: BLE001 - the report of a crash must not crash itself
        yield f"operators unknown: {type(error).__name__}: {_anonymous(first_line(error))}"


def _spec(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if d is None else str(d) for d in spec.shape)}]"


def _lite(model: Model) -> Iterator[str]:
    yield from _counted("operators", lite_ops(model.path))


def _onnx(proto: ModelProto) -> Iterator[str]:
    opsets = (f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import)
    yield f"opsets: {', '.join(opsets)}; ir {proto.ir_version}"
    graphs = list(_graphs(proto.graph))
    yield from _counted("operators", Counter(n.op_type for g in graphs for n in g.node))
    yield from _counted("stored", Counter(_stored(t) for g in graphs for t in g.initializer))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.type == AttributeProto.GRAPH:
            yield from _graphs(attribute.g)


def _stored(tensor: TensorProto) -> str:
    kind = TensorProto.DataType.Name(tensor.data_type).lower()
    return f"{kind}[{', '.join(map(str, tensor.dims))}]"


def _counted(title: str, counts: Counter[str]) -> Iterator[str]:
    if counts:
        yield f"{title}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}"


def _traceback(error: BaseException) -> Iterator[str]:
    """The frames with shortened paths, that of the cause first."""
    if error.__cause__ is not None:
        yield from _traceback(error.__cause__)
        yield "  which led to"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {_place(frame.filename)}:{frame.lineno} in {frame.name}"
        yield f"    {linecache.getline(frame.filename, frame.lineno or 0).strip()}"
    yield f"  {type(error).__name__}: {_anonymous(str(error))}"


def _place(path: str) -> str:
    """A source file from its package on; others by their name alone."""
    parts = Path(path).parts
    for mark in ("site-packages", "dist-packages"):
        if mark in parts:
            return "/".join(parts[parts.index(mark) + 1 :])
    own = Path(__file__).parents[2]
    inside = Path(path).is_relative_to(own)
    return str(Path(path).relative_to(own)) if inside else Path(path).name


def _anonymous(text: str) -> str:
    """A message without the folders of the paths in it."""
    return _FOLDERS.sub("", text)[:_MOST_CHARACTERS]
