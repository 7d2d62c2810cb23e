"""Damaged and hostile variants of ONNX graphs."""

from __future__ import annotations

from random import Random

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

from benchmarks.fuzz.values import TEXTS


def change_graph(proto: ModelProto, rng: Random) -> None:
    """Change one random part of a graph in place."""
    graph = proto.graph
    change = rng.choice(
        (
            _change_initializer,
            _change_value_info,
            _change_initializer,
            _change_value_info,
            _change_node,
            _change_order,
            _change_attributes,
            _change_attributes,
            _change_header,
        )
        if rng.random() < 0.9
        else (_nest_in_branches,)
    )
    if change is _change_header:
        proto.ir_version = rng.choice((0, 3, 8, 10, 99))
        if proto.opset_import:
            proto.opset_import[0].version = rng.choice((0, 1, 7, 13, 17, 21, 1000, -5))
        return
    change(graph, rng)


def _change_header(graph: GraphProto, rng: Random) -> None:
    raise NotImplementedError


def _change_initializer(graph: GraphProto, rng: Random) -> None:
    if not graph.initializer:
        return
    tensor = rng.choice(graph.initializer)
    match rng.randrange(6):
        case 0:
            tensor.dims.append(rng.choice((0, -1, 1, 1 << 31, 1 << 62)))
        case 1 if tensor.dims:
            tensor.dims[0] = rng.choice((0, -1, 1 << 20, 1 << 40, 1 << 62))
        case 2:
            tensor.data_type = rng.choice(range(26))
        case 3:
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 4:
            tensor.raw_data = rng.randbytes(len(tensor.raw_data))
        case _:
            tensor.data_location = TensorProto.EXTERNAL
            entries = {
                "location": rng.choice((*TEXTS, "m.onnx", ".", "..", "w")),
                "offset": rng.choice(("", "0", "-1", "x", str(1 << 62))),
                "length": rng.choice(("", "0", "-1", "4", str(1 << 62))),
            }
            for key, text in entries.items():
                tensor.external_data.add(key=key, value=text)


def _change_value_info(graph: GraphProto, rng: Random) -> None:
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    tensor = value.type.tensor_type
    match rng.randrange(5):
        case 0:
            tensor.elem_type = rng.choice(range(26))
        case 1:
            tensor.ClearField("shape")
        case 2:
            tensor.shape.dim.add().dim_value = rng.choice((0, -1, 1 << 31, 1 << 40, 1 << 62))
        case 3 if tensor.shape.dim:
            rng.choice(tensor.shape.dim).dim_param = rng.choice(TEXTS)
        case _:
            value.name = rng.choice(TEXTS)


def _change_node(graph: GraphProto, rng: Random) -> None:
    if not graph.node:
        return
    node = rng.choice(graph.node)
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    match rng.randrange(6):
        case 0 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice((*names, *TEXTS))
        case 1 if node.output:
            node.output[rng.randrange(len(node.output))] = rng.choice((*names, *TEXTS))
        case 2:
            node.op_type = rng.choice(
                ("Relu", "Loop", "Scan", "If", "Conv", "Reshape", "Einsum", "Pad", "Resize",
                 "Slice", "Gather", "Tile", "Expand", "Range", "ConstantOfShape", "LSTM", "x\0y")
            )  # fmt: skip
        case 3:
            node.name = rng.choice(TEXTS)
        case 4:
            del node.input[rng.randrange(len(node.input) + 1) :]
        case _:
            node.input.extend(rng.choices([*names, "", "absent"], k=rng.choice((1, 3, 200))))


def _change_order(graph: GraphProto, rng: Random) -> None:
    if not graph.node:
        return
    match rng.randrange(3):
        case 0:
            del graph.node[rng.randrange(len(graph.node))]
        case 1:
            graph.node.add().CopyFrom(rng.choice(graph.node))
        case _:
            nodes = list(graph.node)
            rng.shuffle(nodes)
            copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
            del graph.node[:]
            graph.node.extend(copies)


def _change_attributes(graph: GraphProto, rng: Random) -> None:
    if not graph.node:
        return
    node = rng.choice(graph.node)
    if node.attribute and rng.random() < 0.7:
        attribute = rng.choice(node.attribute)
        match rng.randrange(4):
            case 0:
                attribute.type = rng.choice(AttributeProto.AttributeType.values())
            case 1:
                attribute.i = rng.choice((0, -1, 1 << 31, (1 << 62)))
                attribute.type = AttributeProto.INT
            case 2:
                attribute.ints.extend([rng.choice((0, -1, 1 << 40))] * rng.choice((1, 5000)))
            case _:
                del attribute.ints[:]
        return
    name = rng.choice(("axis", "kernel_shape", "pads", "to", "value", "body", "equation", "perm"))
    given = rng.choice((1, -7, [1, 2], [1 << 40], "i,j->k" * 50, 0.5))
    node.attribute.append(helper.make_attribute(name, given))


def _nest_in_branches(graph: GraphProto, rng: Random) -> None:
    """Nest the graph in branches of If, several levels deep."""
    for _ in range(rng.choice((1, 3, 12))):
        inner = GraphProto.FromString(graph.SerializeToString())
        del inner.input[:]
        names = [f"{o.name}{rng.randrange(1000)}" for o in graph.output]
        node = helper.make_node("If", ["cond"], names, then_branch=inner, else_branch=inner)
        graph.node.append(node)
        if len(graph.SerializeToString()) > 200_000:
            return
