"""Keras files (.keras and .h5) of Keras 3 or Keras 2, by the version in the file."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import tensorflow  # noqa: F401 - Keras 3 imports it late, with another error message

from edgekit.conversion.importers.keras_models import convert as convert_model
from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.registry import Conversion, Source
from edgekit.errors import UserError, first_line, make_missing_extra_error

_WHOLE = "save the whole model: model.save('model.keras')"
_CUSTOM = (
    "for custom layers, write a function that returns the loaded model (edgekit build "
    "module:function)"
)
# Messages of each Keras version about a class that it does not know.
_UNKNOWN = re.compile(r"(Could not locate (class|function)|Unknown (layer|object):) '\w+'")


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Facts that a file states before it is loaded."""

    keras: str  # version
    config: Any


def convert(source: Source) -> Conversion:
    """Convert a Keras file.

    Raises:
        UserError: The file is damaged, holds only weights, has layers unknown to Keras, or carries
            Python code that is not trusted.
    """
    is_zip = _is_zip(source)
    try:
        header = _read_zip_header(source) if is_zip else _read_hdf5_header(source)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        kind = "a .keras file (a zip archive)" if is_zip else "an HDF5 file"
        raise UserError(
            f"{source.display_name}: not {kind}, or truncated: {first_line(error)}",
            hint="compare the file size with its source",
        ) from error
    if not source.trusted and any(_iter_lambda_flags(header.config)):
        raise UserError(
            f"{source.display_name}: has a Lambda layer, which is Python code inside the file",
            hint="if you trust its author: --trust-pickle, or [model] trust_pickle = true",
        )
    model = _load_model(source, header)
    return convert_model(ModelObject(value=model, example=None, display_name=source.display_name))


def _is_zip(source: Source) -> bool:
    """Return whether a file is a zip archive, or should be one by its name, rather than HDF5."""
    named = source.path.suffix.lower() == ".keras"
    return zipfile.is_zipfile(source.path) or (named and not h5py.is_hdf5(source.path))


def _read_zip_header(source: Source) -> _Header:
    with zipfile.ZipFile(source.path) as archive:
        about = json.loads(archive.read("metadata.json"))
        config = json.loads(archive.read("config.json"))
    return _Header(keras=str(about["keras_version"]), config=config)


def _read_hdf5_header(source: Source) -> _Header:
    with h5py.File(source.path, "r") as file:
        config = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "2")
    if config is None:
        raise UserError(f"{source.display_name}: contains weights but no model", hint=_WHOLE)
    return _Header(keras=_decode_text(version), config=json.loads(_decode_text(config)))


def _decode_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _load_model(source: Source, header: _Header) -> Any:
    """Load the model with the Keras version that wrote it; Keras detects formats by the suffix."""
    try:
        with TemporaryDirectory() as folder:
            link = Path(folder) / f"model{'.keras' if _is_zip(source) else '.h5'}"
            link.symlink_to(source.path.absolute())
            return _import_keras(header).models.load_model(
                str(link), compile=False, **_choose_safe_mode(source, header)
            )
    except UserError:
        raise
    except Exception as error:
        custom = _UNKNOWN.search(str(error))
        text = custom.group() if custom else first_line(error)
        raise UserError(
            f"{source.display_name}: Keras {header.keras} cannot load it: {text}",
            hint=_CUSTOM
            if custom
            else "the file is damaged, or of a Keras version that the installed one cannot read",
        ) from error


def _import_keras(header: _Header) -> Any:
    if _is_keras_3(header):
        import keras

        return keras
    try:
        import tf_keras
    except ImportError as error:
        raise make_missing_extra_error("tf-keras", "tensorflow") from error
    return tf_keras


def _is_keras_3(header: _Header) -> bool:
    # tf_keras has the version number of its TensorFlow, which starts with 2.
    return not header.keras.startswith("2")


def _choose_safe_mode(source: Source, header: _Header) -> dict[str, bool]:
    """Return the ``safe_mode`` argument, which Keras 2 takes for zip files only.

    A Lambda layer that is not trusted is refused before, in any file.
    """
    if _is_keras_3(header) or _is_zip(source):
        return {"safe_mode": not source.trusted}
    return {}


def _iter_lambda_flags(config: Any) -> Iterator[bool]:
    if isinstance(config, dict):
        yield config.get("class_name") in ("Lambda", "__lambda__")
        for value in config.values():
            yield from _iter_lambda_flags(value)
    elif isinstance(config, list):
        for value in config:
            yield from _iter_lambda_flags(value)
