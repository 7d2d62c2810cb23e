"""Families of operators."""

from __future__ import annotations

import pytest
from onnx import defs, helper

from edgekit.onnx_graph.operators import (
    BIASED_OPS,
    MULTIPLYING_OPS,
    PRODUCT_OPS,
    RECURRENT_OPS,
    is_standard,
)


@pytest.mark.parametrize(
    ("domain", "standard"), [("", True), ("ai.onnx", True), ("ai.onnx.ml", False), ("own", False)]
)
def test_a_node_is_standard_under_both_names_of_the_domain(domain, standard):
    assert is_standard(helper.make_node("Relu", ["x"], ["y"], domain=domain)) is standard


def test_every_name_is_an_operator_of_onnx_and_each_family_holds_the_smaller_ones():
    assert BIASED_OPS < PRODUCT_OPS < MULTIPLYING_OPS > RECURRENT_OPS
    assert all(defs.has(name) for name in MULTIPLYING_OPS)


@pytest.mark.parametrize("name", sorted(BIASED_OPS))
def test_the_third_input_of_a_layer_with_a_bias_is_optional(name):
    third = defs.get_schema(name).inputs[2]

    assert third.option == defs.OpSchema.FormalParameterOption.Optional
