"""Reports of crashed passes, without weights, data or paths of the user."""

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

from edgekit.errors import EdgekitError, PassCrash, first_line
from edgekit.model import Model, TensorSpec
from edgekit.onnx_graph.io import load_structure
from edgekit.recipe import Step
from edgekit.tflite.weight_stats import count_tflite_ops
from edgekit.version import __version__
from edgekit_agent.files import write_atomic

_PACKAGES = ("onnx", "onnxruntime", "numpy", "ai-edge-litert")
# A full disk or quota is not a fault of a pass, and stops every other candidate too.
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT)
# Folders of a path, without the file name after them.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^/\\:'\"\n]+[/\\])+(?=[^\s/\\])")
_MOST_CHARACTERS = 2000


def is_crash(error: BaseException) -> bool:
    """Return whether an exception is a fault of edgekit.

    Errors with a message for the user are no crash, nor is a machine out of memory or disk space.
    """
    if isinstance(error, (EdgekitError, MemoryError)):
        return False
    return not (isinstance(error, OSError) and error.errno in _EXHAUSTED)


def build_crash(
    doing: str, error: BaseException, *, steps: Iterable[Step], model: Model, plugin: str = ""
) -> PassCrash:
    """Build the error for an unexpected exception, with its report.

    Args:
        doing: the pass that ran, or another stage of the build.
        error: the exception.
        steps: the steps that ran, with their settings.
        model: the model they ran on.
        plugin: the distribution that offers the pass, with its version.
    """
    reason = _strip_folders(first_line(error))
    message = f"{doing} crashed: {type(error).__name__}{f': {reason}' if reason else ''}"
    parts = (
        ["Failure", f"  {message}"],
        ["Steps", *(f"  {json.dumps(step.as_json())}" for step in steps)],
        ["Versions", *(f"  {line}" for line in _iter_versions(plugin))],
        ["Model (without weights and names)", *(f"  {line}" for line in _describe_model(model))],
        ["Traceback", *_iter_traceback(error)],
    )
    return PassCrash(
        message, report="\n\n".join("\n".join(part) for part in parts) + "\n", plugin=plugin
    )


def write_crash(crash: PassCrash, root: Path) -> Path:
    """Write the report of a crash below a folder, in a file named by its content."""
    text = crash.report.encode("utf-8", "backslashreplace")
    path = root / "crashes" / f"{hashlib.sha256(text).hexdigest()[:16]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(str(path), text)
    return path


def format_crash_hint(crash: PassCrash, path: Path) -> str:
    """Return one line that asks the user to report a crash."""
    whose = f"the plugin {crash.plugin}" if crash.plugin else "edgekit"
    return (
        f"this is a bug in {whose}; please report it and attach {path} (it contains no weights "
        "and no data)"
    )


# ---------------------------------------------------------------- parts of the report


def _iter_versions(plugin: str) -> Iterator[str]:
    yield f"edgekit {__version__}"
    if plugin:
        yield f"{plugin} (plugin)"
    yield f"python {platform.python_version()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"
    yield platform.platform()


def _describe_model(model: Model) -> Iterator[str]:
    yield f"{model.format}, {model.bytes} bytes"
    for side, specs in (("input", model.signature.inputs), ("output", model.signature.outputs)):
        yield from (f"{side} {_format_spec(spec)}" for spec in specs)
    try:
        yield from (
            _describe_lite(model)
            if model.format == "tflite"
            else _describe_onnx(load_structure(model.path))
        )
    except Exception as error:  # noqa: BLE001 - the report of a crash must not crash itself
        yield f"operators unknown: {type(error).__name__}: {_strip_folders(first_line(error))}"


def _format_spec(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if d is None else str(d) for d in spec.shape)}]"


def _describe_lite(model: Model) -> Iterator[str]:
    yield from _iter_count_line("operators", count_tflite_ops(model.path))


def _describe_onnx(proto: ModelProto) -> Iterator[str]:
    opsets = (f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import)
    yield f"opsets: {', '.join(opsets)}; ir {proto.ir_version}"
    graphs = list(_iter_graphs(proto.graph))
    yield from _iter_count_line("operators", Counter(n.op_type for g in graphs for n in g.node))
    yield from _iter_count_line(
        "stored", Counter(_describe_tensor(t) for g in graphs for t in g.initializer)
    )


def _iter_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for attribute in (a for node in graph.node for a in node.attribute):
        if attribute.type == AttributeProto.GRAPH:
            yield from _iter_graphs(attribute.g)


def _describe_tensor(tensor: TensorProto) -> str:
    kind = TensorProto.DataType.Name(tensor.data_type).lower()
    return f"{kind}[{', '.join(map(str, tensor.dims))}]"


def _iter_count_line(title: str, counts: Counter[str]) -> Iterator[str]:
    if counts:
        yield f"{title}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}"


def _iter_traceback(error: BaseException) -> Iterator[str]:
    """Yield the frames with shortened paths, the cause first."""
    if error.__cause__ is not None:
        yield from _iter_traceback(error.__cause__)
        yield "  which led to"
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {_short_path(frame.filename)}:{frame.lineno} in {frame.name}"
        yield f"    {linecache.getline(frame.filename, frame.lineno or 0).strip()}"
    yield f"  {type(error).__name__}: {_strip_folders(str(error))}"


def _short_path(path: str) -> str:
    """Shorten a path to the part from its package on, or to its file name."""
    parts = Path(path).parts
    for mark in ("site-packages", "dist-packages"):
        if mark in parts:
            return "/".join(parts[parts.index(mark) + 1 :])
    own = Path(__file__).parents[3]
    inside = Path(path).is_relative_to(own)
    return str(Path(path).relative_to(own)) if inside else Path(path).name


def _strip_folders(text: str) -> str:
    """Remove the folders of paths from a message."""
    return _FOLDERS.sub("", text)[:_MOST_CHARACTERS]
