"""Tables of conversion rules: an operator has one rule."""

from __future__ import annotations

import pytest

from edgekit.conversion.onnx_to_tflite.ops import RULES, elementwise, shapes
from edgekit.conversion.rule_tables import merge_rule_tables


def test_a_second_rule_for_an_operator_is_refused_by_name():
    with pytest.raises(ValueError, match="more than one conversion rule for Identity, Tile"):
        merge_rule_tables(
            elementwise.RULES, shapes.RULES, {name: RULES[name] for name in ("Tile", "Identity")}
        )


def test_the_merged_table_holds_every_rule():
    merged = merge_rule_tables(elementwise.RULES, shapes.RULES)

    assert merged == {**elementwise.RULES, **shapes.RULES}
    assert len(merged) == len(elementwise.RULES) + len(shapes.RULES)
