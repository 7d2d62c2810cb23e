"""Conversion of trusted pickles: scikit-learn estimators, or any other known model."""

from __future__ import annotations

from pathlib import Path

from edgekit.convert import EXTRAS, Converted, Source
from edgekit.convert.entry import importable, model_and_example
from edgekit.convert.objects import Found, converted_object
from edgekit.convert.sklearn_estimators import load
from edgekit.errors import UserError, first_line


def convert(source: Source) -> Converted:
    """Convert the model in a pickle or joblib file.

    Raises:
        UserError: The file is damaged, needs a missing class, or holds no model.
    """
    with importable(Path.cwd()), importable(source.path.parent):
        try:
            value = load(source.path)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in EXTRAS:
                raise
            raise UserError(
                f"{source.given}: {first_line(error)}",
                hint="the pickle needs this module: put it beside the file, or install it",
            ) from error
        except Exception as error:
            raise UserError(
                f"{source.given}: not a pickle, or damaged, or of classes that are not here: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
    made, example = model_and_example(value)
    return converted_object(Found(value=made, example=example, given=source.given))
