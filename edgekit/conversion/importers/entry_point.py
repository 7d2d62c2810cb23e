"""Conversion of ``module:function`` of a project: import, call, and convert the returned model."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from edgekit.conversion.importers.model_types import ModelObject, convert_object, is_model
from edgekit.conversion.importers.registry import EXTRAS, Conversion, Source
from edgekit.errors import EdgekitError, UserError, did_you_mean, first_line

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
        module = _import_module(source)
        value, example = split_model_and_example(
            _call_function(source, _find_member(source, module))
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


@contextmanager
def search_modules_in(folder: Path) -> Iterator[None]:
    """Put a folder first on the module search path."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _import_module(source: Source) -> ModuleType:
    name = source.name.partition(":")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in EXTRAS:
            raise
        if name == missing or name.startswith(f"{missing}."):
            raise UserError(
                f"{source.display_name}: no module {missing!r} in {source.path} or among the "
                "installed packages",
                hint="use -C DIR if the module is in another folder",
            ) from error
        raise UserError(f"{source.display_name}: {name}: {first_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise _build_user_code_error(source, error) from error


def _find_member(source: Source, module: ModuleType) -> object:
    value: object = module
    where = module.__name__
    for part in source.name.partition(":")[2].split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            names = _list_public_functions(module)
            raise UserError(
                f"{source.display_name}: {where} has no {part!r}{did_you_mean(part, names)}",
                hint=f"functions of {module.__name__}: {', '.join(names) or 'none'}",
            ) from error
        where += f".{part}"
    return value


def _list_public_functions(module: ModuleType) -> list[str]:
    """List the functions that a module defines itself and that are meant for others."""
    return [
        name
        for name, member in vars(module).items()
        if inspect.isfunction(member)
        and member.__module__ == module.__name__
        and not name.startswith("_")
    ]


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
        raise _build_user_code_error(source, error) from error
    except (Exception, SystemExit) as error:
        raise _build_user_code_error(source, error) from error
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
        raise _build_user_code_error(source, error) from error
    return example_value


def _build_user_code_error(source: Source, error: BaseException) -> UserError:
    """Return the error of the user's code, with the line in it where the error arose."""
    frame, location = error.__traceback__, ""
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.is_relative_to(source.path):
            location = f" ({file.relative_to(source.path)}, line {frame.tb_lineno})"
        frame = frame.tb_next
    text = str(error).strip().partition("\n")[0]
    return UserError(f"{source.display_name}: {type(error).__name__}: {text}{location}")
