"""Inner values that a student has in common with its teacher."""

from __future__ import annotations

import numpy as np

from edgekit.compression.distillation.feature_pairs import find_features
from edgekit.compression.distillation.value_session import ValueSession
from tests.builders.tiny import normal, proto

GRAPH = (
    "g (float[N,3,8,8] x) => (float[N,4] y) { c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) "
    "d = Conv<pads = [1,1,1,1]>(r, v) s = Relu(d) p = GlobalAveragePool(s) f = Flatten(p) "
    "y = MatMul(f, k) }"
)
WEIGHTS = {"w": normal(12, 3, 3, 3), "v": normal(6, 12, 3, 3, seed=1), "k": normal(6, 4, seed=2)}
X = normal(8, 3, 8, 8, seed=3)


def compute(graph, names):
    return [ValueSession(graph, names, model="model").compute({"x": X})]


def find(teacher, student):
    return find_features(
        teacher,
        student,
        compute_original=lambda names: compute(teacher, names),
        compute_student=lambda names: compute(student, names),
    )


def keep_channels(kept):
    return WEIGHTS | {"w": WEIGHTS["w"][kept], "v": WEIGHTS["v"][:, kept]}


def test_each_channel_of_a_pruned_student_finds_its_own():
    kept = [7, 2, 11, 4]
    teacher = proto(GRAPH, weights=WEIGHTS)
    student = proto(GRAPH, weights=keep_channels(kept))
    found = {target.name: target for target in find(teacher, student)}
    assert found["r"].wanted == "r"
    assert found["r"].channels == tuple(kept)
    assert "c" not in found  # the value before an activation
    assert "y" not in found  # an output
    spread = compute(teacher, ["r"])[0]["r"][:, kept].var()
    np.testing.assert_allclose(found["r"].spread, spread, rtol=1e-5)


def test_values_of_other_names_are_found_by_their_entries():
    teacher = proto(GRAPH, weights=WEIGHTS)
    renamed = GRAPH
    for old, new in (("r", "r9"), ("s", "s9"), ("c", "c9"), ("d", "d9"), ("p", "p9"), ("f", "f9")):
        renamed = renamed.replace(f" {old} =", f" {new} =").replace(f"({old})", f"({new})")
        renamed = renamed.replace(f"({old},", f"({new},")
    student = proto(renamed, weights=WEIGHTS)
    pairs = {target.name: target.wanted for target in find(teacher, student)}
    assert pairs["r9"] == "r"
    assert pairs["s9"] == "s"


def test_another_architecture_gets_linear_maps():
    other = (
        "g (float[N,3,8,8] x) => (float[N,4] y) { a = Conv<pads = [1,1,1,1]>(x, u) t = Tanh(a) "
        "q = GlobalAveragePool(t) h = Flatten(q) y = MatMul(h, m) }"
    )
    student = proto(other, weights={"u": normal(5, 3, 3, 3, seed=8), "m": normal(5, 4, seed=9)})
    teacher = proto(GRAPH, weights=WEIGHTS)
    widths = {target.name: target.widths for target in find(teacher, student)}
    assert (5, 6) in widths.values()
