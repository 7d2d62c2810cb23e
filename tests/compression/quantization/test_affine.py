"""Scales and zero points: exact zero, dead channels, and rounding to nearest."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgekit.compression.quantization.affine import (
    compute_symmetric_scales,
    compute_unsigned_affine,
    to_int8,
)
from tests.builders.tiny import proto

finite = st.floats(-(2.0**100), 2.0**100, width=32)
weights = arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=4), elements=finite)


@given(finite, finite)
def test_zero_is_represented_exactly_and_both_ends_to_within_half_a_step(low, high):
    low, high = min(low, high), max(low, high)
    affine = compute_unsigned_affine(low, high)
    scale, zero = float(affine.scale), int(affine.zero_point)

    assert 0 <= zero <= 255
    assert np.isfinite(1 / affine.scale)
    assert affine.scale > 0
    for end in (low, high):
        nearest = (np.clip(np.rint(end / scale) + zero, 0, 255) - zero) * scale
        assert abs(nearest - end) <= 0.5001 * scale


@given(st.floats(0.5, 100, width=32), st.floats(0.5, 100, width=32))
@settings(max_examples=20, deadline=None)
def test_the_runtime_gives_back_a_true_zero_for_zero(below, above):
    affine = compute_unsigned_affine(-below, above)
    text = (
        "g (float[N] x) => (float[N] y) "
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    )
    made = proto(text, weights={"s": affine.scale, "z": affine.zero_point})
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])

    assert session.run(None, {"x": np.zeros(3, np.float32)})[0].tolist() == [0, 0, 0]


@given(weights, st.data())
def test_every_weight_comes_back_to_within_half_a_step_of_its_channel(weight, data):
    axis = data.draw(st.integers(0, weight.ndim - 1))
    scales = compute_symmetric_scales(weight, axis)
    integers = to_int8(weight, scales, axis)

    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = scales.reshape(shape).astype(np.float64)
    error = np.abs(integers * steps - weight)
    assert (error <= 0.5001 * steps).all()
    assert integers.min() >= -127


@given(weights, st.data())
def test_scales_of_dead_channels_cause_no_infinities(weight, data):
    axis = data.draw(st.integers(0, weight.ndim - 1))
    dead = weight * np.float32(1e-38)
    for array in (dead, np.zeros_like(weight)):
        scales = compute_symmetric_scales(array, axis)
        assert (scales > 0).all()
        assert np.isfinite(1 / scales).all()


def test_an_empty_weight_has_scales():
    assert np.isfinite(compute_symmetric_scales(np.zeros((0, 3), np.float32), 1)).all()


def test_values_too_small_for_a_scale_count_as_zero():
    # 1e-39 / 127 is a float whose reciprocal is not.
    weight = np.array([[1e-39, -1e-39], [1.0, -1.0]], np.float32)
    scales = compute_symmetric_scales(weight, 0)
    affine = compute_unsigned_affine(0.0, 1e-38)

    assert np.isfinite(1 / scales).all()
    assert to_int8(weight, scales, 0).tolist() == [[0, 0], [127, -127]]
    assert np.isfinite(1 / affine.scale)
