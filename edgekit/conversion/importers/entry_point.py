"""Conversion of ``module:function`` of a project: import, call, and convert the returned model."""

from __future__ import annotations

import inspect
from types import ModuleType

from edgekit.config.entry_points import (
    build_user_code_error,
    find_member,
    import_module,
    search_modules_in,
)
from edgekit.conversion.importers.model_types import ModelObject, convert_object, is_model
from edgekit.conversion.importers.registry import EXTRAS, Conversion, Source
from edgekit.errors import EdgekitError, UserError

_EXAMPLE = "example_inputs"


def convert(source: Source) -> Conversion:
    """Convert the model that a function returns, or an object that a module holds.

    The function takes no arguments. It returns a model, or a model and example inputs. Example
    inputs may also be the attribute ``example_inputs`` of the function or of its module, a value or
    a function.

    Raises:
        UserError: There is no such module or function, it raises an error, or returns no model.
    """
    with search_modules_in(source.path):
        module = import_module(source.name, source.path, optional=EXTRAS)
        value, example = split_model_and_example(
            _call_function(source, find_member(source.name, module))
        )
        if example is None:
            example = _read_module_example(source, module)
    return convert_object(
        ModelObject(value=value, example=example, display_name=source.display_name)
    )


def split_model_and_example(value: object) -> tuple[object, object]:
    """Split a pair into a model and its example inputs; other values have no examples."""
    if isinstance(value, tuple) and len(value) == 2 and is_model(value[0]):
        return value
    return value, None


def _call_function(source: Source, value: object) -> object:
    """Call a function; a model is returned as it is, although it may be callable too."""
    if is_model(value) or not callable(value):
        return value
    try:
        result: object = value()
    except EdgekitError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRAS:
            raise
        raise build_user_code_error(source.name, source.path, error) from error
    except (Exception, SystemExit) as error:
        raise build_user_code_error(source.name, source.path, error) from error
    if result is None:
        raise UserError(
            f"{source.display_name}: the function returns None instead of a model",
            hint="add 'return model' to the function",
        )
    return _add_function_example(source, result, value)


def _add_function_example(source: Source, result: object, function: object) -> object:
    example = getattr(function, _EXAMPLE, None)
    if example is None or split_model_and_example(result)[1] is not None:
        return result
    return result, _evaluate_example(source, example)


def _read_module_example(source: Source, module: ModuleType) -> object:
    return _evaluate_example(source, getattr(module, _EXAMPLE, None))


def _evaluate_example(source: Source, example: object) -> object:
    if not inspect.isfunction(example):
        return example
    try:
        example_value: object = example()
    except (Exception, SystemExit) as error:
        raise build_user_code_error(source.name, source.path, error) from error
    return example_value
