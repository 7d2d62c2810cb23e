"""The error of a range is measured at the outputs of the layers that read the tensor."""

from __future__ import annotations

import numpy as np

from edgekit.compression.quantization.affine import compute_unsigned_affine
from edgekit.compression.quantization.calibration.range_errors import measure_reader_errors
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import plan_placement
from tests.builders.tiny import normal, proto, samples, uniform


def test_a_range_is_judged_by_the_readers_and_not_by_the_value_itself(tmp_path):
    # The reader has no weight for the channel whose outliers a narrow range cuts off.
    weight = normal(8, 4)
    weight[0] = 0
    made = proto(
        "g (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w) y = Neg(h) }", weights={"w": weight}
    )
    x = uniform(16, 8)
    x[:, 0] = 100
    index = GraphIndex(made)
    candidates = {
        "x": {"wide": compute_unsigned_affine(-1, 100), "narrow": compute_unsigned_affine(-1, 1)}
    }

    errors = measure_reader_errors(
        index, plan_placement(index), candidates, [samples(tmp_path, x=x)]
    )["x"]

    assert errors["narrow"] < errors["wide"] / 100


def test_a_range_is_judged_after_data_movement(tmp_path):
    made = proto(
        "g (float[N,2,4,4] x) => (float[N,3,2,2] y) { c = Conv(x, w) "
        "m = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c) d = Conv(m, v) y = Neg(d) }",
        weights={"w": normal(2, 2, 1, 1), "v": np.zeros((3, 2, 1, 1), np.float32)},
    )
    index = GraphIndex(made)
    candidates = {"c": {"bad": compute_unsigned_affine(0, 1e-3)}}
    data = [samples(tmp_path, x=uniform(4, 2, 4, 4))]

    # Weights of zero forgive everything.
    assert measure_reader_errors(index, plan_placement(index), candidates, data)["c"]["bad"] == 0
