"""Opening of models of any known source; a source that needs conversion is converted once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekit.cache.store import Store
from edgekit.conversion.importers.registry import SOURCES, VERSION, Source
from edgekit.conversion.importers.source import compute_digest, detect_source
from edgekit.conversion.importers.subprocesses import convert_in_process
from edgekit.conversion.open_model import check_model_file, is_tflite, read_model
from edgekit.errors import UserError
from edgekit.model import Model, Origin
from edgekit.onnx_graph.io import has_empty_input, is_large, load, load_structure, save
from edgekit.progress import Tick
from edgekit.tflite.trial_load import try_tflite
from edgekit_agent.codec import decode, encode

# Other distribution names of the same package.
_OTHER_DISTRIBUTIONS = {
    "tensorflow": ("tensorflow-cpu", "tf-nightly"),
    "onnxscript": ("onnxscript-weekly",),
}
_CONVERSIONS = "conversions"
_FREED_NOTE = "input dimensions of size 0 in the file are treated as free"


def open_model(path: Path, *, folder: Path, store: Store, trusted: bool, tick: Tick) -> Model:
    """Open the model that the user named, as a file that a runtime loads.

    Args:
        path: An .onnx or .tflite file, which is used as it is; a Keras file, a SavedModel folder
            (or ``FOLDER#signature``), ``module:function``, a program or pickle of torch, a pickle
            of scikit-learn.
        folder: Folder of the project, in which modules are searched.
        store: Cache of converted models.
        trusted: Whether code in the file may run.
        tick: Called when a conversion begins, and with its progress.

    Raises:
        UserError: The source is missing, damaged, not trusted, not convertible, or of a tool that
            is not installed.
    """
    source = detect_source(path, folder=folder, trusted=trusted)
    if source is None:
        check_model_file(path)
        if is_tflite(path):
            try_tflite(path, store)
        return _free_empty_inputs(read_model(path), store)
    row = SOURCES[source.kind]
    digest = "" if source.kind == "function" else compute_digest(source)
    if row.pickled and not trusted:
        raise _build_trust_error(source)
    versions = _read_versions(row.packages)
    if not digest:  # code may return another model each time
        return _convert_source(source, store, versions, tick)
    key = _compute_key(source, digest, versions)
    model = _recall_model(store, key, display_name=source.display_name)
    if model is None:
        model = _convert_source(source, store, versions, tick, digest=digest)
        origin = encode(model.origin)
        store.remember(_CONVERSIONS, key, {"model": model.digest, "origin": origin})
    return model


def _free_empty_inputs(model: Model, store: Store) -> Model:
    """Return the model, with inputs made free where its file states a size of 0."""
    if model.format != "onnx" or not has_empty_input(model.path):
        return model
    if is_large(load_structure(model.path)):
        raise UserError(
            f"{model.path}: an input has size 0, so the model cannot process any sample",
            hint="export the model with a dynamic dimension there",
        )
    with store.scratch() as scratch:
        save(load(model.path), scratch / "model.onnx")
        path = store.put(scratch / "model.onnx")
    origin = Origin(
        given=str(model.path), digest=model.digest, tool="edgekit", notes=(_FREED_NOTE,)
    )
    return replace(read_model(path), origin=origin)


def _convert_source(
    source: Source, store: Store, versions: dict[str, str], tick: Tick, *, digest: str = ""
) -> Model:
    tick(f"converting {source.display_name}", 0, 0)
    with store.scratch() as scratch:
        result = convert_in_process(
            source, scratch, partial(tick, f"converting {source.display_name}")
        )
        path = store.put(result.path)
    used = {name: versions[name] for name in result.packages if name in versions}
    origin = Origin(
        given=source.display_name,
        digest=digest or path.name,
        tool=result.tool,
        versions=used,
        notes=result.notes,
    )
    return replace(read_model(path), origin=origin)


def _recall_model(store: Store, key: str, *, display_name: str) -> Model | None:
    """Return the model stored under a key; ``None`` if it is gone or damaged."""
    facts = store.recall(_CONVERSIONS, key)
    path = store.get(str(facts.get("model"))) if facts else None
    if facts is None or path is None:
        return None
    try:
        origin = decode(Origin, facts["origin"])
    except (KeyError, TypeError, ValueError):
        return None  # written by another version: convert again
    return replace(read_model(path), origin=replace(origin, given=display_name))


def _compute_key(source: Source, digest: str, versions: dict[str, str]) -> str:
    facts = {
        "kind": source.kind,
        "suffix": source.path.suffix.lower(),
        "digest": digest,
        "name": source.name,
        "versions": versions,
        "own": VERSION,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the installed packages."""
    versions: dict[str, str] = {}
    for name in ("onnx", *packages):
        for distribution in (name, *_OTHER_DISTRIBUTIONS.get(name, ())):
            try:
                versions[name] = version(distribution)
                break
            except PackageNotFoundError:
                continue
    return versions


def _build_trust_error(source: Source) -> UserError:
    return UserError(
        f"{source.display_name}: not opened, as the file contains Python pickles, which run code "
        "when they are read",
        hint="if you trust its author: --trust-pickle, or [model] trust_pickle = true in "
        "edgekit.toml",
    )
