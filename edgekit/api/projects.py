"""Start of a project: from a model, or from an example."""

from __future__ import annotations

from pathlib import Path

from edgekit.api.arguments import resolve_folder
from edgekit.api.failures import convert_failures
from edgekit.argument_checks import AnyPath, Text, check_arguments
from edgekit.pipeline.example import ExampleProject, list_examples, write_example
from edgekit.pipeline.init_project import InitResult, init_project
from edgekit.pipeline.model_settings import resolve_model
from edgekit.progress import Tick, ignore_progress

__all__ = ["example", "init", "list_examples"]


@check_arguments
def init(
    model: AnyPath | None = None,
    *,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> InitResult:
    """Write edgekit.toml for a model and its data.

    Args:
        model: The model, relative to ``folder``; by default the only one there.
        trust_pickle: Whether the model file may run the code that it carries.
        folder: The project folder, which must not hold an edgekit.toml yet.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The new file. Attributes: ``path``; ``text``; ``open_points``, the settings to fill in.

    Raises:
        UserError: edgekit.toml exists already, or no model is found.

    Examples:
        >>> import edgekit, pathlib
        >>> pathlib.Path("edgekit.toml").unlink()
        >>> edgekit.init("model.onnx").open_points
        ()
    """
    base = resolve_folder(folder)
    with convert_failures():
        return init_project(
            base,
            None if model is None else resolve_model(base, model),
            trusted=trust_pickle,
            tick=progress,
        )


@check_arguments
def example(name: Text, folder: AnyPath) -> ExampleProject:
    """Write an example project into a new or empty folder, whole or not at all.

    Args:
        name: Name of the example: ``digits``.
        folder: The folder to write; its parent must exist.

    Returns:
        The project. Attributes: ``name``; ``folder``; ``files``, relative to it; ``device``, the
        name of the device that its edgekit.toml names.

    Raises:
        UserError: There is no such example, or the folder is not empty.

    Examples:
        >>> import edgekit
        >>> made = edgekit.example("digits", "my-digits")
        >>> made.device, "model.onnx" in made.files
        ('tablet-x86', True)
    """
    with convert_failures():
        return write_example(name, Path(folder))
