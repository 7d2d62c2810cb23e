"""A student that learned, as a .tflite file: the outputs of training, and the same kernels."""

import numpy as np
import pytest

from edgekit.conversion.onnx_to_tflite.convert import convert_to_lite_graph, convert_to_tflite
from tests.training.students import INPUTS, disturb, make_student

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytest.importorskip("tensorflow")


def learn(proto, *, learn_scales=True):
    """Change what is learned; return the function and the written model."""
    from edgekit.training.tf_function.onnx_function import GraphFunction, write_back

    function = GraphFunction(proto, learn_scales=learn_scales)
    disturb(function)
    return function, write_back(proto, function)


@pytest.mark.parametrize(
    ("kind", "recipe", "steps"),
    [
        ("images", "few", 0),
        ("sequences", "few", 0),
        ("images", "static", 2),
        ("images", "few-static", 2),
        ("branches", "static", 2),
    ],
)
def test_the_file_gives_what_training_computed(tmp_path, kind, recipe, steps):
    from tests.builders import lite_graphs

    function, learned = learn(make_student(tmp_path, kind, recipe))
    x = INPUTS[kind][:6]
    trained = np.asarray(function({"x": x})["y"])
    content = convert_to_tflite(learned, {})
    given = np.concatenate([lite_graphs.run(content, [x[n : n + 1]])[0] for n in range(len(x))])
    size = np.abs(trained).max()
    # Integer kernels round at ties as they like: by a few of the 255 steps of the output.
    assert np.abs(given - trained).max() < max(steps / 255, 1e-3) * size


def test_values_that_share_a_scale_share_it_afterwards(tmp_path):
    proto = make_student(tmp_path, "branches", "static")
    _, learned = learn(proto)
    before, after = (convert_to_lite_graph(each, {}) for each in (proto, learned))
    assert [op.op_type for op in after.ops] == [op.op_type for op in before.ops]
    moved = [op for op in after.ops if op.op_type in ("MAX_POOL_2D", "CONCATENATION")]
    assert len(moved) == 2
    for op in moved:
        scales = {float(t.quantization.scales[0]) for t in (*op.inputs, *op.outputs)}
        assert len(scales) == 1
    pairs = zip(before.ops, after.ops, strict=True)
    changed = [
        a.outputs[0].quantization.scales != b.outputs[0].quantization.scales
        for a, b in pairs
        if a.op_type == "CONV_2D"
    ]
    assert np.all(changed)
