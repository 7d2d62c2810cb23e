"""Conversion of TensorFlow SavedModel folders to ONNX."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

from edgekit.conversion.importers.keras_functions import choose_signature, convert_concrete
from edgekit.conversion.importers.registry import Conversion, Source
from edgekit.errors import UserError, first_line

with contextlib.suppress(ModuleNotFoundError):
    # Registers the loader of Keras 2's optimizer slots; folders without any do not need it.
    import tf_keras  # noqa: F401


def convert(source: Source) -> Conversion:
    """Convert one signature of a SavedModel.

    Raises:
        UserError: The folder is damaged, has no such signature, or has several and none is named.
    """
    try:
        loaded: Any = tf.saved_model.load(str(source.path))
    except Exception as error:
        raise UserError(
            f"{source.display_name}: TensorFlow cannot load it: {type(error).__name__}: "
            f"{first_line(error)}",
            hint="check that the folder is complete (saved_model.pb and variables/)",
        ) from error
    folder = str(source.display_name).partition("#")[0]
    function = choose_signature(loaded.signatures, source.name, display_name=folder)
    return convert_concrete(function, display_name=source.display_name, keep=loaded)
