"""`edgekit distil`, and the pass of that name in a recipe: a student learns from the original."""

from __future__ import annotations

import html
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgekit as edgekit_api
from tests.builders.projects import assert_refused, assert_untouched, edgekit, interrupt
from tests.builders.tiny import proto, train_digits_reader

pytest.importorskip("tensorflow")

SHORT = ("--set", "steps=300", "--set", "augment=false")


def write_student(folder, *, name="student.onnx", damage=0.5, rename=None):
    """Write the model of a project with noise on its weights."""
    made = onnx.load(folder / "model.onnx")
    rng = np.random.default_rng(5)
    for tensor in made.graph.initializer:
        value = numpy_helper.to_array(tensor)
        noisy = value + damage * rng.normal(size=value.shape)
        tensor.CopyFrom(numpy_helper.from_array(noisy.astype(value.dtype), tensor.name))
    if rename:
        for node in made.graph.node:
            node.output[:] = [rename if o == made.graph.output[0].name else o for o in node.output]
        made.graph.output[0].name = rename
    onnx.save(made, folder / name)
    return folder / name


def write_batch_of_one(folder):
    """Write the model of a project for one sample in a run."""
    made = onnx.load(folder / "model.onnx")
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(made, folder / "single.onnx")


def read_weights(path):
    return [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]


def measure_distance(path, teacher):
    pairs = zip(read_weights(path), read_weights(teacher), strict=True)
    return sum(float(np.square(a - b).sum()) for a, b in pairs)


def test_a_student_gets_nearer_to_its_teacher_and_both_files_stay(tiny):
    write_student(tiny)
    with assert_untouched(tiny):
        done = edgekit(
            "distil", "model.onnx", "--student", "student.onnx", "-C", tiny,
            "-o", "../learned.onnx", *SHORT, "--json",
        )  # fmt: skip

    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["pass"], facts["changed"]) == ("distil", True)
    assert any(note.startswith("learned in 300 steps") for note in facts["notes"])
    teacher, learned = tiny / "model.onnx", tiny.parent / "learned.onnx"
    before = measure_distance(tiny / "student.onnx", teacher)
    assert measure_distance(learned, teacher) < 0.5 * before


def test_the_result_depends_on_the_seed_alone(tiny):
    write_student(tiny)
    common = ("distil", "model.onnx", "--student", "student.onnx", "-C", tiny, *SHORT)
    for out, seed in (("a.onnx", 1), ("b.onnx", 1), ("c.onnx", 2)):
        assert edgekit(*common, "-o", out, "--seed", seed).code == 0

    first, again, other = ((tiny / name).read_bytes() for name in ("a.onnx", "b.onnx", "c.onnx"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--student", "no.onnx"], "no.onnx: cannot be read"),
        (["--student", "single.onnx"], "the student has other sizes than the teacher: "),
        (["--student", "renamed.onnx"], "the student has other outputs than the teacher: scores"),
        (["--student", "student.onnx", "--minutes", "0"], "minutes: must be a number from"),
        (["--student", "student.onnx", "--set", "step=3"], "did you mean 'steps'?"),
        (["--student", "student.onnx", "-o", "model.onnx"], "the command reads it"),
        (["--student", "student.onnx", "-o", "student.onnx"], "the command reads it"),
        (["--student", "student.onnx", "-o", "learned.tflite"], "the result is a .onnx file"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_and_changes_nothing(tiny, arguments, says):
    write_student(tiny)
    write_student(tiny, name="renamed.onnx", rename="scores")
    write_batch_of_one(tiny)
    out = () if "-o" in arguments else ("-o", "learned.onnx")
    with assert_untouched(tiny):
        assert_refused("distil", "model.onnx", *arguments, *out, "-C", tiny, says=says)


def test_apply_has_no_teacher_and_says_which_command_has(tiny):
    done = assert_refused(
        "apply", "distil", "-C", tiny, "model.onnx", "-o", "o.onnx", says="needs the original model"
    )
    assert "edgekit distil ORIGINAL --student MODEL -o OUT" in done.err


@pytest.mark.slow
def test_an_interrupted_command_resumes_where_it_was(tiny, shared_cache):
    write_student(tiny)
    arguments = (
        "distil", "model.onnx", "--student", "student.onnx", "-C", tiny, "-o", "learned.onnx",
        "--set", "steps=4000", "--set", "augment=false", "--json",
    )  # fmt: skip
    broken = interrupt(*arguments, stage="/4000")
    assert broken.code == 130, broken.err
    assert broken.err.endswith("edgekit: interrupted; run the same command again to resume\n")
    assert not (tiny / "learned.onnx").exists()
    (folder,) = (shared_cache / "checkpoints").iterdir()
    assert any(file.suffix == ".npz" for file in folder.iterdir())

    done = edgekit(*arguments)

    assert done.code == 0, done.err
    assert not folder.exists()
    whole = edgekit(*arguments[:7], "whole.onnx", *arguments[8:])
    assert whole.code == 0
    assert (tiny / "whole.onnx").read_bytes() == (tiny / "learned.onnx").read_bytes()


@pytest.fixture
def reader(tiny):
    """Turn the tiny project into one of a small network that reads digits."""
    x, y, weights = train_digits_reader(width=32, count=1000)
    text = (
        "g (float[N,64] x) => (float[N,10] y) "
        "{ h = Gemm(x, w0, b0) r = Relu(h) y = Gemm(r, w1, b1) }"
    )
    onnx.save(proto(text, weights=weights), tiny / "model.onnx")
    np.savez(tiny / "calib.npz", x=x[:400])
    np.savez(tiny / "eval.npz", x=x[1000:], label=y[1000:])
    return tiny


def test_in_a_recipe_the_teacher_is_the_model_before_the_first_compression(reader):
    pruned = ("clean", "prune-weights:sparsity=0.9,score=magnitude")
    built = [
        edgekit_api.build(folder=reader, steps=steps)
        for steps in (pruned, (*pruned, "distil:steps=150,augment=false"))
    ]

    before, after = (outcome.candidates[-1] for outcome in built)
    scores = [c.measurements[0].scores[0].value for c in (before, after)]
    assert scores[1] > scores[0] + 0.1
    (note,) = (n for n in after.notes if "150 steps" in n)
    assert html.escape(note) in built[1].report.read_text(encoding="utf-8")
