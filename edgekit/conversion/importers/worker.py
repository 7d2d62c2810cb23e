"""Child process of a conversion, which reads its job from a folder and writes the model there."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.conversion.importers.registry import EXTRAS, SOURCES, Conversion, Source
from edgekit.conversion.importers.subprocesses import (
    COMPARED,
    EXPORTED,
    JOB_FILE,
    LOADED,
    MODEL_FILE,
    RESULT_FILE,
)
from edgekit.conversion.importers.verify import check_agreement
from edgekit.errors import EdgekitError, UserError, first_line, make_missing_extra_error
from edgekit.onnx_graph.io import is_large, save

# Package names of modules that are imported under another name.
_INSTALLED_AS = {"sklearn": "scikit-learn", "tf_keras": "tf-keras"}
_COMES_WITH = {"h5py": "tensorflow", "joblib": "scikit-learn"}
_PACKAGES = ("onnx", "onnxscript", "skl2onnx", "tensorflow", "keras", "tf2onnx", "torch")


def main(folder: Path) -> None:
    """Run the job in a folder."""
    job = json.loads((folder / JOB_FILE).read_bytes())
    source = Source(**job | {"path": Path(job["path"])})
    try:
        converted = convert_source(source, lambda stage: (folder / stage).touch())
        save(converted.proto, folder / MODEL_FILE)
    except EdgekitError as error:
        answer: dict[str, Any] = {"error": error.message, "hint": error.hint}
    else:
        answer = {
            "tool": converted.tool,
            "packages": list_used_packages(),
            "notes": converted.notes,
        }
    (folder / RESULT_FILE).write_text(json.dumps(answer), encoding="utf-8")


def convert_source(source: Source, finished: Callable[[str], None]) -> Conversion:
    """Convert a source and check that the graph computes the same.

    Args:
        source: Model in the format of its tool.
        finished: Called with the name of each completed stage.

    Raises:
        UserError: The source cannot be converted, the graph differs, or a library is missing.
    """
    module, _, name = SOURCES[source.kind].function.partition(":")
    try:
        convert: Callable[[Source], Conversion] = getattr(importlib.import_module(module), name)
        finished(LOADED)
        converted = convert(source)
        finished(EXPORTED)
        if is_large(converted.proto):
            raise UserError(
                f"{source.display_name}: larger than 2 GiB as ONNX, the limit of one file",
                hint="export the model with external data, and give the .onnx file",
            )
        check_agreement(converted, display_name=source.display_name)
        finished(COMPARED)
    except ModuleNotFoundError as error:
        raise _build_missing_error(source, error) from error
    return converted


def list_used_packages() -> list[str]:
    """List the loaded packages that determine the result of a conversion."""
    packages = [name for name in _PACKAGES if name in sys.modules]
    return [*packages, *(other for name, other in _INSTALLED_AS.items() if name in sys.modules)]


def _build_missing_error(source: Source, error: ModuleNotFoundError) -> UserError:
    name = (error.name or "").partition(".")[0]
    if name in EXTRAS:
        package = (_COMES_WITH | _INSTALLED_AS).get(name, name)
        return make_missing_extra_error(package, EXTRAS[name])
    return UserError(
        f"{source.display_name}: {first_line(error)}",
        hint="install the module in this Python, or run edgekit in its folder (-C DIR)",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
