"""Run of one of ONNX's own backend tests in TFLite."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.conversion.onnx_to_tflite.ops import RULES
from edgekit.errors import PassRefused

Status = Literal["passed", "stored", "refused", "failed"]
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
# Operators whose results depend only on sizes and are therefore known before any run.
_FROM_SIZES = {
    "BlackmanWindow", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow",
    "MelWeightMatrix", "Range", "Shape", "Size",
}  # fmt: skip
# Operators whose first input selects the branch.
_WAY_FIRST = {"If", "Loop"}
CLAIMED = {*RULES, "Constant"}
_KERNEL_TYPES = {
    TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.INT32,
    TensorProto.INT64, TensorProto.BOOL,
}  # fmt: skip
# Computed as float32.
_AS_FLOATS = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of a test.

    Args:
        name: Name of the test.
        operator: Operator under test; empty for tests of whole models.
        status: ``stored`` = passed with the inputs that give sizes, axes and the like stored in the
            model, as in real models.
        why: Reason of a refusal or failure.
    """

    name: str
    operator: str
    status: Status
    why: str = ""


@cache
def load_cases() -> dict[str, TestCase]:
    """Return ONNX's tests by name."""
    found: dict[str, TestCase] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for case in load_model_tests(kind=kind):
                name = case.name if kind == "node" else f"{kind}/{case.name}"
                found[name] = case
    return found


def judge_case(name: str) -> Verdict:
    """Convert and run one test, and return its verdict."""
    case = load_cases()[name]
    proto, fed, expected = _parts(case)
    operator = operator_of(name)
    refusal = ""
    if any(not isinstance(given, np.ndarray | np.generic) for given in (*fed, *expected)):
        return _verdict(
            name, operator, "refused", _describe_unsuited(proto)
        )  # numpy has no such type
    for kept in _iter_fed_inputs(proto, operator):
        model, inputs = _store_inputs(proto, fed, kept)
        try:
            data = convert_to_tflite(model, {})
        except PassRefused as refused:
            refusal = str(refused)
            continue
        except Exception as error:  # noqa: BLE001 - any of them is a defect to be reported
            return _verdict(name, operator, "failed", f"{type(error).__name__}: {error}")
        try:
            made = _run(data, inputs, [v.name for v in proto.graph.output])
        except Exception as error:  # noqa: BLE001 - the runtime raises several
            return _verdict(name, operator, "failed", f"the runtime: {error}")
        if wrong := _difference(case, expected, made):
            odd = _describe_unsuited(proto)
            wider = f"{odd}, computed as float32; " if odd else ""
            return _verdict(name, operator, "failed", f"{wider}{wrong}")
        all_fed = len(inputs) == len(proto.graph.input)
        return _verdict(name, operator, "passed" if all_fed else "stored", "")
    return _verdict(name, operator, "refused", _describe_unsuited(proto) or _strip_names(refusal))


def _verdict(name: str, operator: str, status: Status, why: str) -> Verdict:
    line = " ".join(why.split())
    return Verdict(name=name, operator=operator, status=status, why=line[:160])


def _parts(case: TestCase) -> tuple[ModelProto, list[Any], list[Any]]:
    if case.model is not None:
        inputs, outputs = case.data_sets[0]
        return case.model, [_array(given) for given in inputs], [_array(o) for o in outputs]
    folder = Path(case.model_dir)
    proto = onnx.load(str(folder / "model.onnx"))
    first = folder / "test_data_set_0"
    return proto, list(_tensors(first, "input")), list(_tensors(first, "output"))


def _array(given: object) -> object:
    """Convert data to numpy; types that numpy lacks stay tensors."""
    return numpy_helper.to_array(given) if isinstance(given, TensorProto) else given


def _tensors(folder: Path, side: str) -> Iterator[Any]:
    for place in range(len(list(folder.glob(f"{side}_*.pb")))):
        data = (folder / f"{side}_{place}.pb").read_bytes()
        yield numpy_helper.to_array(TensorProto.FromString(data))


def operator_of(name: str) -> str:
    """Return the operator under test; empty for tests of whole models."""
    case = load_cases()[name]
    if case.kind != "node":
        return ""
    base = load_cases().get(name.removesuffix("_expanded"), case)
    nodes = base.model.graph.node
    return str(nodes[0].op_type) if len(nodes) == 1 else ""


def _iter_fed_inputs(proto: ModelProto, operator: str) -> Iterator[set[str]]:
    """Yield sets of inputs to feed: all, those that are no sizes, the first, or none."""
    names = [v.name for v in proto.graph.input]
    yield set(names)
    types = {v.name: v.type.tensor_type.elem_type for v in proto.graph.input}
    floats = {n for n in names[1:] if types[n] == TensorProto.FLOAT}
    if floats and len(floats) < len(names) - 1:
        yield {names[0], *floats}
    if len(names) > 1:
        yield {names[0]}
    if operator in _WAY_FIRST:
        yield set(names[1:])
    if operator in _FROM_SIZES:
        yield set()


def _store_inputs(
    proto: ModelProto, fed: list[Any], kept: set[str]
) -> tuple[ModelProto, dict[str, Any]]:
    """Store all inputs but ``kept`` in the model with fixed sizes; also return the data to feed."""
    model = ModelProto()
    model.CopyFrom(proto)
    del model.graph.input[:]
    inputs: dict[str, Any] = {}
    for value, array in zip(proto.graph.input, fed, strict=False):
        if value.name not in kept:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
            continue
        given = model.graph.input.add()
        given.CopyFrom(value)
        inputs[value.name] = array
        if value.type.HasField("tensor_type"):
            del given.type.tensor_type.shape.dim[:]
            for size in np.shape(array):
                given.type.tensor_type.shape.dim.add(dim_value=size)
    return model, inputs


def _run(data: bytes, inputs: dict[str, Any], names: list[str]) -> list[Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    made = interpreter.get_signature_runner()(**{k: np.asarray(v) for k, v in inputs.items()})
    return [made[name] for name in names]


def _difference(case: TestCase, expected: list[Any], made: list[Any]) -> str:
    for place, (one, other) in enumerate(zip(expected, made, strict=True)):
        want = np.asarray(one)
        if want.dtype != other.dtype or want.shape != other.shape:
            return (
                f"output {place} is {other.dtype} {list(other.shape)},"
                f" not {want.dtype} {list(want.shape)}"
            )
        kind = want.dtype if want.dtype.kind in "biufc" else np.float32
        try:
            np.testing.assert_allclose(
                other.astype(kind), want.astype(kind), rtol=case.rtol, atol=case.atol
            )
        except AssertionError as error:
            lines = [line for line in str(error).splitlines() if "ismatch" in line or "Max" in line]
            return f"output {place} differs: {' '.join(lines)}"
    return ""


def _describe_unsuited(proto: ModelProto) -> str:
    """Describe the parts of a test that no TFLite graph can hold; empty if there are none."""
    values = [*proto.graph.input, *proto.graph.output]
    if any(not v.type.HasField("tensor_type") for v in values):
        return "sequences, maps and optional values"
    if any(n.domain == "ai.onnx.preview.training" for n in proto.graph.node):
        return "training"
    types = {v.type.tensor_type.elem_type for v in values}
    types |= {t.data_type for t in proto.graph.initializer}
    rare = types - _KERNEL_TYPES - {TensorProto.UNDEFINED}
    odd = sorted(TensorProto.DataType.Name(t).lower() for t in rare - _AS_FLOATS or rare)
    return f"{', '.join(odd)} values" if odd else ""


def _strip_names(refusal: str) -> str:
    """Strip the names of the test's values from a refusal."""
    return re.sub(r"^(\w+ \S+ |\S+: )", "", refusal.splitlines()[0] if refusal else "")
