"""Candidates of one recipe in both formats are paired, whatever their names."""

from __future__ import annotations

import pytest

from edgekit.bundle.runtime_pairs import PairSide, find_pairs
from edgekit.compression.pass_specs import build_step
from edgekit.pass_settings import Clean, Float16, PruneChannels, QuantizeStatic, ToOnnx, ToTflite
from edgekit.pipeline.search.recipe_names import format_method, format_name

LITE = build_step(ToTflite())
STATIC = (build_step(Clean()), build_step(QuantizeStatic()))
PRUNED = (build_step(Clean()), build_step(PruneChannels(remove=0.4)), STATIC[1])


def side(method, form, ms=None):
    return PairSide(method=method, format=form, p50_ms=ms, drop=None)


@pytest.mark.parametrize(
    ("onnx", "tflite", "method"),
    [
        ((), (build_step(Clean()), LITE), "original"),
        ((build_step(ToOnnx()),), (), "original"),
        (STATIC, (*STATIC, LITE), "int8-static"),
        (PRUNED, (*PRUNED, LITE), "pruned-40-static"),
        (
            (build_step(Clean()), build_step(Float16())),
            (build_step(Clean()), build_step(ToTflite(precision="float16"))),
            "float16",
        ),
    ],
)
def test_a_method_is_the_same_in_both_formats(onnx, tflite, method):
    assert format_method(onnx) == format_method(tflite) == method
    assert format_name(onnx) != format_name(tflite)


def test_each_method_in_both_formats_is_one_pair_and_others_are_left_out():
    sides = [
        side("original", "onnx", 4.0),
        side("int8-static", "onnx"),
        side("original", "tflite", 2.0),
        side("float16", "tflite"),
    ]

    (pair,) = find_pairs(sides)

    assert (pair.name, pair.ratio) == ("original", 0.5)
