"""Checks that rows of samples fit the inputs of a model."""

from __future__ import annotations

import numpy as np

from edgekit.data.lengths import RaggedInput
from edgekit.errors import UserError
from edgekit.model import TensorSpec
from edgekit_agent.samples import Column, Preprocess


def check_fits(
    column: Column,
    spec: TensorSpec,
    preprocess: Preprocess | None,
    source: str,
    ragged: RaggedInput | None = None,
) -> None:
    """Check that the rows of a column have the shape and a type that a model input takes.

    Args:
        column: The rows.
        spec: The input.
        preprocess: Preprocessing of float inputs.
        source: Name of the source, for messages.
        ragged: Sizes of the rows, if they are padded.

    Raises:
        UserError: They do not fit.
    """
    shape = column.shape[1:]
    if ragged is not None:
        shape = tuple(high for _, high in ragged.list_sizes(shape))
    if not spec.shape and shape:
        raise UserError(
            f"the model input {spec} has no sample axis, or its shape is unknown",
            hint="export the model with a shape for each input, the batch first",
        )
    if preprocess and np.dtype(spec.dtype).kind == "f":
        _check_channels(shape, preprocess, f"{source}: {column.name}")
        if preprocess.channels_first and len(shape) == 3:
            shape = (shape[2], shape[0], shape[1])
    wanted = tuple(dim for axis, dim in enumerate(spec.shape) if axis != column.axis)
    fits = len(shape) == len(wanted) and all(
        not isinstance(w, int) or w == s for s, w in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise UserError(
            f"{source}: {column.name}: samples of shape {list(shape)} do not fit the model input "
            f"{spec}",
            hint=_get_layout_hint(shape, wanted),
        )
    if not _is_castable(column.dtype, spec.dtype):
        raise UserError(
            f"{source}: {column.name}: {column.dtype} cannot be fed to a {spec.dtype} input "
            "without loss",
            hint=f"store the array as {spec.dtype}",
        )


def _check_channels(shape: tuple[int, ...], preprocess: Preprocess, where: str) -> None:
    channels = shape[-1] if shape else 1
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(values) not in (1, channels):
            raise UserError(
                f"{where}: [data.preprocess] {name} has {len(values)} values for {channels} "
                "channels (the last axis)",
                hint="give one value, or one for each channel",
            )


def _get_layout_hint(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> str:
    if len(shape) == 3 and len(wanted) == 3 and shape[2] == wanted[0]:
        return 'channels come last in the data: set [data.preprocess] layout = "NCHW"'
    return (
        "the first axis is the sample axis; the other axes must be those of the model input "
        "without its sample axis (the first, or batch_axis in [model.inputs.NAME] of edgekit.toml)"
    )


def _is_castable(dtype: str, wanted: str) -> bool:
    if np.can_cast(dtype, wanted, "safe"):
        return True
    return np.dtype(dtype).kind == np.dtype(wanted).kind == "f"
