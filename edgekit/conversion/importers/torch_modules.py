"""Conversion of torch modules to ONNX by torch.export, or by TorchScript where that fails."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto

from edgekit.conversion.importers.example_inputs import build_sampler
from edgekit.conversion.importers.model_types import ModelObject
from edgekit.conversion.importers.postprocess import BATCH, standardize_graph
from edgekit.conversion.importers.registry import Arrays, Conversion
from edgekit.conversion.importers.torch_calls import Call, FlatModule, build_call, double_batch
from edgekit.conversion.importers.verify import check_agreement
from edgekit.errors import UserError, first_line
from edgekit.onnx_graph.io import iter_graphs

# Oldest opset that the torch.export exporter writes, and the one for TorchScript.
_EXPORT_OPSET, _SCRIPT_OPSET = 18, 17
_DRAWS = 4


@dataclass(frozen=True, kw_only=True)
class _Exporter:
    """One way to export: an exporter, and whether the first axis is left free."""

    tool: str
    export: Callable[[FlatModule, Call, bool], tuple[ModelProto, tuple[str, ...]]]
    free: bool


def convert(model_object: ModelObject) -> Conversion:
    """Convert a module in evaluation mode, with a free batch where the module allows one.

    Raises:
        UserError: There is no example input, the module fails on it, or no exporter makes a graph
            that computes the same.
    """
    module: Any = model_object.value
    example = model_object.example
    if example is None:
        example = getattr(module, "example_input_array", None)  # the name in Lightning
    if example is None:
        raise UserError(
            f"{model_object.display_name}: a torch module without example inputs, which the "
            "exporter needs",
            hint="return module, example_inputs (a tensor, a tuple, or a dict by argument)",
        )
    if isinstance(module, torch.jit.ScriptModule):
        module.eval()
    call = build_call(module.cpu().eval(), example, display_name=model_object.display_name)
    flat = FlatModule(module, call)
    with torch.no_grad():
        outputs = _run_example(flat, call, model_object.display_name)
        larger = double_batch(flat, call, outputs)
        return _export_first_agreeing(
            flat, larger or call, free=larger is not None, model_object=model_object
        )


def _export_first_agreeing(
    flat: FlatModule, call: Call, *, free: bool, model_object: ModelObject
) -> Conversion:
    failures: list[str] = []
    for exporter in _iter_exporters(flat, free=free):
        try:
            proto, warned = exporter.export(flat, call, exporter.free)
            conversion = _build_conversion(flat, call, proto, exporter, model_object.display_name)
            check_agreement(conversion, display_name=model_object.display_name)
        except UserError as error:
            failures.append(error.message.removeprefix(f"{model_object.display_name}: "))
            continue
        except Exception as error:  # noqa: BLE001 - reported if every exporter fails
            failures.append(f"{exporter.tool}: {type(error).__name__}: {_find_root_message(error)}")
            continue
        notes = (*_iter_notes(exporter, free, failures, call, model_object.display_name), *warned)
        return Conversion(**{**vars(conversion), "notes": notes})
    raise UserError(
        f"{model_object.display_name}: cannot be exported: {failures[0]}",
        hint=_join_failures(failures),
    )


def _iter_exporters(flat: FlatModule, *, free: bool) -> Iterator[_Exporter]:
    scripted = isinstance(flat.wrapped, torch.jit.ScriptModule)
    for is_free in (True, False) if free else (False,):
        if not scripted:
            yield _Exporter(tool="torch.onnx", export=_export_by_program, free=is_free)
        yield _Exporter(tool="torch.onnx (TorchScript)", export=_export_by_script, free=is_free)


def _export_by_program(
    flat: FlatModule, call: Call, free: bool
) -> tuple[ModelProto, tuple[str, ...]]:
    batch = torch.export.Dim(BATCH)
    shapes = tuple({0: batch} if free else None for _ in call.tensors)
    program = torch.onnx.export(
        flat,
        call.tensors,
        dynamo=True,
        opset_version=_EXPORT_OPSET,
        dynamic_shapes={"tensors": shapes} if free else None,
        verbose=False,
    )
    return _load_program(program), ()


def _load_program(program: Any) -> ModelProto:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        program.save(str(path))
        return onnx.load(str(path))


def _export_by_script(
    flat: FlatModule, call: Call, free: bool
) -> tuple[ModelProto, tuple[str, ...]]:
    names = [f"in_{i}" for i in range(len(call.tensors))]
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", torch.jit.TracerWarning)
        scripted = isinstance(flat.wrapped, torch.jit.ScriptModule)
        torch.onnx.export(
            flat.wrapped if scripted else flat,  # a scripted module cannot be traced
            call.tensors,
            file,
            dynamo=False,
            opset_version=_SCRIPT_OPSET,
            input_names=names,
            dynamic_axes={name: {0: BATCH} for name in names} if free else None,
        )
    traced = any(issubclass(w.category, torch.jit.TracerWarning) for w in caught)
    notes = (
        ("a branch or size that depends on the input was fixed to its value for the example input",)
        if traced
        else ()
    )
    return onnx.load_from_string(file.getvalue()), notes


def _build_conversion(
    flat: FlatModule, call: Call, proto: ModelProto, exporter: _Exporter, display_name: str
) -> Conversion:
    if len(proto.graph.input) != len(call.tensors):
        raise UserError(f"{display_name}: {exporter.tool} removed inputs that no output depends on")
    arrays = [t.numpy() for t in call.tensors]
    draw = build_sampler(arrays)

    def reference(inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in inputs]
        with torch.no_grad():
            return [t.numpy() for t in flat(*tensors)]

    standardized = standardize_graph(proto, inputs=call.names, outputs=flat.output_names)
    return Conversion(
        proto=_strip_wrapper_names(standardized),
        tool=exporter.tool,
        reference=reference,
        examples=(arrays, *(draw(len(arrays[0]) if arrays[0].ndim else 1) for _ in range(_DRAWS))),
        draw=draw,
    )


def _strip_wrapper_names(proto: ModelProto) -> ModelProto:
    """Remove the wrapper's prefix from the names of weights."""
    initializer_names = {t.name for t in proto.graph.initializer}
    new = {
        name: name.removeprefix("wrapped.")
        for name in initializer_names
        if name.startswith("wrapped.") and name.removeprefix("wrapped.") not in initializer_names
    }
    for tensor in proto.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            node.input[:] = [new.get(name, name) for name in node.input]
    return proto


def _run_example(flat: FlatModule, call: Call, display_name: str) -> tuple[Any, ...]:
    try:
        outputs: tuple[Any, ...] = flat(*call.tensors)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{display_name}: the module fails on its example inputs: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error
    return outputs


def _iter_notes(
    exporter: _Exporter, free: bool, failures: list[str], call: Call, display_name: str
) -> Iterator[str]:
    if exporter.export is _export_by_script and failures:
        yield f"{display_name}: exported by TorchScript, as torch.export fails: {failures[0]}"
    if not exporter.free:
        rows = call.tensors[0].shape[0] if call.tensors[0].ndim else 1
        why = failures[-1] if free and failures else "the module fails on other sizes"
        yield f"{display_name}: the batch size is fixed to {rows}: {why}"


def _find_root_message(error: BaseException) -> str:
    """Return the first line of an error's root cause; exporters wrap errors many times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not set(line) <= {"=", "-"}), "no message")


def _join_failures(failures: list[str]) -> str:
    rest = list(dict.fromkeys(failures[1:]))
    return "; ".join(itertools.islice(rest, 2)) if rest else ""
