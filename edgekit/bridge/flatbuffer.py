"""Graphs as .tflite files and back: the FlatBuffers schema of TensorFlow Lite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.bridge.graph import LiteGraph, Op, Tensor
from edgekit.errors import missing_extra

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    raise missing_extra("ai-edge-litert", "litert") from error

_KINDS: dict[str, int] = {k: v for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
_KIND_NAMES = {v: k for k, v in _KINDS.items()}
_TYPES = {k.lower(): v for k, v in vars(schema.TensorType).items() if k.isupper()}
_TYPE_NAMES = {v: k for k, v in _TYPES.items()}
_ENUMS: dict[str, dict[str, int]] = {
    "padding": {"SAME": 0, "VALID": 1},
    "fused_activation_function": {
        "NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "TANH": 4, "SIGN_BIT": 5,
    },
    "mode": {"REFLECT": 0, "SYMMETRIC": 1},
    "in_data_type": _TYPES,
    "out_data_type": _TYPES,
    "output_type": _TYPES,
    "out_type": _TYPES,
    "quantized_bias_type": _TYPES,
}  # fmt: skip
# Kinds whose options have another name than they themselves.
_OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions", "CONV_2D": "Conv2DOptions", "CONV_3D": "Conv3DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions", "REDUCE_MAX": "ReducerOptions", "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions", "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions", "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions", "L2_NORMALIZATION": "L2NormOptions",
    "TOPK_V2": "TopKV2Options", "BATCH_MATMUL": "BatchMatMulOptions",
    "SELECT_V2": "SelectV2Options",
    "PADV2": "PadV2Options", "REVERSE_V2": "ReverseV2Options", "ATAN2": "ATan2Options",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions", "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "NON_MAX_SUPPRESSION_V4": "NonMaxSuppressionV4Options",
    "NON_MAX_SUPPRESSION_V5": "NonMaxSuppressionV5Options", "SPLIT_V": "SplitVOptions",
}  # fmt: skip


def write_lite(graph: LiteGraph, *, signature: str = "serving_default") -> bytes:
    """The bytes of a .tflite file."""
    model = schema.ModelT(version=3, description="edgekit", buffers=[schema.BufferT()])
    codes: dict[str, int] = {}
    model.operatorCodes, model.subgraphs, model.signatureDefs = [], [], []
    for one in (graph, *graph.inner):
        model.subgraphs.append(_subgraph(one, model, codes))
    tensors = _numbered(graph)
    maps = [
        [schema.TensorMapT(name=n, tensorIndex=tensors[id(t)]) for n, t in side.items()]
        for side in (graph.inputs, graph.outputs)
    ]
    model.signatureDefs.append(
        schema.SignatureDefT(
            inputs=maps[0], outputs=maps[1], signatureKey=signature, subgraphIndex=0
        )
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensors(graph: LiteGraph) -> Iterator[Tensor]:
    yield from graph.inputs.values()
    for op in graph.ops:
        yield from (t for t in (*op.inputs, *op.outputs) if t is not None)
    yield from graph.outputs.values()


def _numbered(graph: LiteGraph) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for tensor in _tensors(graph):
        numbers.setdefault(id(tensor), len(numbers))
    return numbers


def _subgraph(graph: LiteGraph, model: Any, codes: dict[str, int]) -> Any:  # noqa: ANN401
    numbers = _numbered(graph)
    distinct = {id(t): t for t in _tensors(graph)}
    return schema.SubGraphT(
        tensors=[_tensor(distinct[key], model) for key in numbers],
        inputs=[numbers[id(t)] for t in graph.inputs.values()],
        outputs=[numbers[id(t)] for t in graph.outputs.values()],
        operators=[_operator(op, numbers, model, codes) for op in graph.ops],
        name="main",
    )


def _tensor(tensor: Tensor, model: Any) -> Any:  # noqa: ANN401
    place = 0
    if tensor.data is not None:
        place = len(model.buffers)
        raw = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        model.buffers.append(schema.BufferT(data=raw))
    quantization = None
    if tensor.quantization is not None:
        q = tensor.quantization
        quantization = schema.QuantizationParametersT(
            scale=np.asarray(q.scales, np.float32),
            zeroPoint=np.asarray(q.zero_points, np.int64),
            quantizedDimension=q.axis,
        )
    return schema.TensorT(
        shape=list(tensor.shape),
        type=_TYPES[tensor.dtype],
        buffer=place,
        name=tensor.name,
        quantization=quantization,
        isVariable=tensor.is_variable,
        hasRank=True,
    )


def _operator(op: Op, numbers: dict[int, int], model: Any, codes: dict[str, int]) -> Any:  # noqa: ANN401
    if op.kind not in codes:
        number = _KINDS[op.kind]
        codes[op.kind] = len(codes)
        model.operatorCodes.append(
            schema.OperatorCodeT(
                deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=1
            )
        )
    kind, options = _options(op)
    return schema.OperatorT(
        opcodeIndex=codes[op.kind],
        inputs=[-1 if t is None else numbers[id(t)] for t in op.inputs],
        outputs=[numbers[id(t)] for t in op.outputs],
        builtinOptionsType=kind,
        builtinOptions=options,
    )


def _options(op: Op) -> tuple[int, Any]:
    name = _OPTIONS.get(op.kind) or op.kind.title().replace("_", "") + "Options"
    number = getattr(schema.BuiltinOptions, name, 0)
    if not number:
        return 0, None
    made = getattr(schema, name + "T")()
    for key, value in op.options.items():
        field = re.sub(r"_(\w)", lambda m: m[1].upper(), key)
        setattr(made, field, _ENUMS[key][value] if key in _ENUMS else value)
    return number, made
