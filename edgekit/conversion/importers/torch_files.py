"""Conversion of trusted torch files: programs of torch.export, and pickled modules."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from edgekit.config.entry_points import search_modules_in
from edgekit.conversion.importers.entry_point import split_model_and_example
from edgekit.conversion.importers.example_inputs import build_sampler
from edgekit.conversion.importers.model_types import ModelObject, convert_object
from edgekit.conversion.importers.postprocess import standardize_graph
from edgekit.conversion.importers.registry import Arrays, Conversion, Source
from edgekit.errors import UserError, first_line

_FUNCTION_HINT = (
    "write a function that returns the module with its weights and example inputs, and give "
    "module:function"
)


def convert_program(source: Source) -> Conversion:
    """Convert a .pt2 file.

    Raises:
        UserError: The file is damaged, or the exporter cannot convert it.
    """
    try:
        program = torch.export.load(str(source.path))
    except Exception as error:
        raise UserError(
            f"{source.display_name}: torch cannot load it: {first_line(error)}",
            hint="save the program with torch.export.save(program, 'model.pt2')",
        ) from error
    return convert_exported(
        ModelObject(value=program, example=None, display_name=source.display_name)
    )


def convert_exported(model_object: ModelObject) -> Conversion:
    """Convert a program of torch.export; the graph's free axes are those of the program.

    Raises:
        UserError: The program has no example inputs, or the exporter cannot convert it.
    """
    program: Any = model_object.value
    if program.example_inputs is None:
        raise UserError(
            f"{model_object.display_name}: the exported program has no example inputs",
            hint=_FUNCTION_HINT,
        )
    args, keywords = program.example_inputs
    tensors = [t for t in (*args, *keywords.values()) if isinstance(t, torch.Tensor)]
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            torch.onnx.export(program, args, kwargs=keywords, dynamo=True, verbose=False).save(
                str(path)
            )
            proto = onnx.load(str(path))
    except Exception as error:
        raise UserError(
            f"{model_object.display_name}: cannot be exported: {first_line(error)}"
        ) from error
    module = program.module()
    count = len(args)

    def reference(inputs: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in inputs]
        with torch.no_grad():
            result = module(*tensors[:count], **dict(zip(keywords, tensors[count:], strict=True)))
        leaves, _ = torch.utils._pytree.tree_flatten(result)
        return [t.numpy() for t in leaves]

    arrays = [t.numpy() for t in tensors]
    return Conversion(
        proto=standardize_graph(
            proto,
            inputs=[v.name for v in proto.graph.input],
            outputs=[v.name for v in proto.graph.output],
        ),
        tool="torch.onnx",
        reference=reference,
        examples=(arrays,),
        draw=build_sampler(arrays),
    )


def convert_pickle(source: Source) -> Conversion:
    """Convert a pickled module that is stored with example inputs.

    Raises:
        UserError: The file is damaged, holds only weights, or a module without example inputs.
    """
    with search_modules_in(Path.cwd()), search_modules_in(source.path.parent):
        try:
            value = torch.load(str(source.path), map_location="cpu", weights_only=False)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{source.display_name}: {first_line(error)}",
                hint="the pickle needs this module: put it into the folder of the file",
            ) from error
        except Exception as error:
            raise UserError(
                f"{source.display_name}: torch cannot load it: {type(error).__name__}: "
                f"{first_line(error)}",
                hint=_FUNCTION_HINT,
            ) from error
        model, example = split_model_and_example(value)
        if isinstance(model, dict):
            raise UserError(
                f"{source.display_name}: contains weights but no module", hint=_FUNCTION_HINT
            )
        return convert_object(
            ModelObject(value=model, example=example, display_name=source.display_name)
        )
