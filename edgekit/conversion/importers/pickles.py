"""Conversion of trusted pickles: scikit-learn estimators, or any other known model."""

from __future__ import annotations

from pathlib import Path

from edgekit.config.entry_points import search_modules_in
from edgekit.conversion.importers.entry_point import split_model_and_example
from edgekit.conversion.importers.model_types import ModelObject, convert_object
from edgekit.conversion.importers.registry import EXTRAS, Conversion, Source
from edgekit.conversion.importers.sklearn_estimators import load
from edgekit.errors import UserError, first_line


def convert(source: Source) -> Conversion:
    """Convert the model in a pickle or joblib file.

    Raises:
        UserError: The file is damaged, needs a missing class, or holds no model.
    """
    with search_modules_in(Path.cwd()), search_modules_in(source.path.parent):
        try:
            value = load(source.path)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in EXTRAS:
                raise
            raise UserError(
                f"{source.display_name}: {first_line(error)}",
                hint="the pickle needs this module: put it into the folder of the file, or "
                "install it",
            ) from error
        except Exception as error:
            raise UserError(
                f"{source.display_name}: not a pickle, damaged, or of classes that are not "
                f"installed: {type(error).__name__}: {first_line(error)}"
            ) from error
    model, example = split_model_and_example(value)
    return convert_object(
        ModelObject(value=model, example=example, display_name=source.display_name)
    )
