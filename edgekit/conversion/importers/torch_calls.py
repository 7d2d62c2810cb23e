"""Calls of a torch module with flat tensors: example inputs and outputs without nesting."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from edgekit.errors import UserError

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class Call:
    """Arguments of one call of a module.

    Attributes:
        names: Names of the tensor inputs in the graph.
        tensors: Values of the tensor inputs.
        argument_keys: Argument of each tensor: a position or a keyword.
        constants: The other arguments, which are constant.
    """

    names: tuple[str, ...]
    tensors: tuple[Any, ...]
    argument_keys: tuple[int | str, ...]
    constants: tuple[tuple[int | str, Any], ...] = ()


class FlatModule(torch.nn.Module):  # type: ignore[misc]  # no types come with torch
    """Wrapper of a module that takes and returns flat tensors, as torch's exporters need."""

    def __init__(self, module: Any, call: Call) -> None:
        super().__init__()
        self.wrapped = module
        self._argument_keys = call.argument_keys
        self._constants = call.constants
        self.output_names: list[str] = []

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        """Return the output tensors of the module in their order."""
        arguments = dict(self._constants) | dict(zip(self._argument_keys, tensors, strict=True))
        positional = [arguments[i] for i in sorted(k for k in arguments if isinstance(k, int))]
        keywords = {k: v for k, v in arguments.items() if isinstance(k, str)}
        named = list(_flatten_result("", self.wrapped(*positional, **keywords)))
        self.output_names = ["output" if len(named) == 1 and not n else n for n, _ in named]
        return tuple(t for _, t in named)


def _flatten_result(name: str, value: Any) -> Sequence[tuple[str, Any]]:
    """Return the tensors of a result with their names; other values are left out."""
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        pairs = [(f"{name}_{k}" if name else str(k), v) for k, v in value.items()]
    elif hasattr(value, "_fields"):
        pairs = [(f"{name}_{k}" if name else k, getattr(value, k)) for k in value._fields]
    elif isinstance(value, (tuple, list)):
        stem = name or "output"
        pairs = [(f"{stem}_{i}" if len(value) > 1 else name, v) for i, v in enumerate(value)]
    else:
        return []
    return [leaf for key, part in pairs for leaf in _flatten_result(key, part)]


def build_call(module: Any, example: object, *, display_name: str) -> Call:
    """Build the call that example inputs stand for.

    Args:
        module: The module; its ``forward`` names the inputs.
        example: A tensor or array, a tuple or list of arguments, or a dict by argument.
        display_name: Name of the source, for messages.

    Raises:
        UserError: An argument is neither a tensor nor a plain value, or there is no tensor.
    """
    arguments = _list_arguments(module, example)
    names: list[str] = []
    tensors: list[Any] = []
    argument_keys: list[int | str] = []
    constants: list[tuple[int | str, Any]] = []
    for key, name, value in arguments:
        tensor = _to_tensor(value)
        if tensor is not None:
            names.append(name)
            tensors.append(tensor)
            argument_keys.append(key)
        elif value is None or isinstance(value, (bool, int, float, str)):
            constants.append((key, value))
        else:
            raise UserError(
                f"{display_name}: example input {name}: a {type(value).__name__}, not a tensor",
                hint="wrap the module in one whose forward takes only tensors",
            )
    if not tensors:
        raise UserError(f"{display_name}: the example inputs contain no tensor")
    return Call(
        names=tuple(names),
        tensors=tuple(tensors),
        argument_keys=tuple(argument_keys),
        constants=tuple(constants),
    )


def _list_arguments(module: Any, example: object) -> list[tuple[int | str, str, Any]]:
    """Return place, name and value of each argument."""
    if isinstance(example, Mapping):
        return [(str(k), str(k), v) for k, v in example.items()]
    values = list(example) if isinstance(example, (tuple, list)) else [example]
    names = _list_parameters(module)
    return [
        (i, names[i] if i < len(names) else f"x_{i}" if len(values) > 1 else "x", value)
        for i, value in enumerate(values)
    ]


def _list_parameters(module: Any) -> list[str]:
    """Return the names of the arguments of ``forward`` that stand for one value each."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a scripted module has no Python signature
        return []
    return [p.name for p in parameters if p.kind not in _VARIADIC]


def _to_tensor(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if hasattr(value, "__array__"):
        return torch.as_tensor(value)
    return None


def double_batch(flat: FlatModule, call: Call, outputs: tuple[Any, ...]) -> Call | None:
    """Return the call with every input repeated along its first axis, if that axis is a batch.

    It is a batch if every output becomes twice as long and its first half stays the same.
    ``torch.export`` takes a size of 1 for a constant, so the larger call is the one to export.
    """
    if any(not t.ndim for t in call.tensors) or len({t.shape[0] for t in call.tensors}) > 1:
        return None
    larger = replace(call, tensors=tuple(torch.cat([t, t]) for t in call.tensors))
    try:
        doubled = flat(*larger.tensors)
    except Exception:  # noqa: BLE001 - any failure means no
        return None
    if len(doubled) != len(outputs):
        return None
    for single, double in zip(outputs, doubled, strict=True):
        if not single.ndim or double.shape[0] != 2 * single.shape[0]:
            return None
        half = double[: single.shape[0]]
        if half.shape != single.shape or not torch.allclose(
            half.double(), single.double(), rtol=1e-3, atol=1e-4, equal_nan=True
        ):
            return None
    return larger
