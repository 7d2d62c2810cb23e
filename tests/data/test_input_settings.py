"""[model.inputs] of edgekit.toml: sample axes, constants, states, and errors."""

import numpy as np
import pytest

from edgekit.config.project import load_project
from edgekit.data.input_settings import WHOLE, Feeding, RecurrentState, build_feeding, find_states
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit.pipeline.init_project import init_project
from tests.builders.projects import assert_refused, edgekit
from tests.builders.stateful import growing_model, step_model
from tests.builders.tiny import apply, model, normal, run, samples


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


SIGNATURE = Signature(
    inputs=(
        spec("x", "batch", 8),
        spec("state", 2, "batch", 6),
        spec("rate", dtype="int64"),
        spec("gain", 1, 3),
    ),
    outputs=(spec("y", "batch", 1), spec("state_out", 2, "batch", 6), spec("wide", "batch", 9)),
)


def read_notes(folder, text, signature=SIGNATURE):
    (folder / "edgekit.toml").write_text(text)
    table = load_project(folder).model
    return build_feeding(signature, table.inputs, dims=table.dims, folder=folder)


def test_the_sample_axis_is_found_by_the_name_of_the_batch():
    found = [Feeding().axis(each, SIGNATURE) for each in SIGNATURE.inputs]

    assert found == [0, 1, WHOLE, 0]


def test_inputs_without_a_batch_are_fed_as_a_whole():
    fixed = Signature(
        inputs=(spec("x", 1, 512), spec("h", 2, 1, 64), spec("c", 1, 1, 64)), outputs=()
    )
    free = Signature(inputs=(spec("x", "n", 512), spec("h", 2, 1, 64)), outputs=())
    state = {"h": RecurrentState(output="hn", initial=np.zeros(0))}

    assert [Feeding().axis(each, fixed) for each in fixed.inputs] == [0, WHOLE, 0]
    assert [Feeding(states=state).axis(each, free) for each in free.inputs] == [0, WHOLE]


@pytest.mark.parametrize("batch", ["1", "n"])
@pytest.mark.parametrize("kept", [(2, 1, 4), (2, 4)], ids=["whole", "without-its-axis"])
def test_states_of_fixed_sizes_are_carried_and_fed_by_hand_alike(
    tmp_path, monkeypatch, batch, kept
):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    source = model(
        tmp_path,
        f"g (float[{batch},8] x, float[2,1,4] h) => (float[{batch},4] y, float[2,1,4] hn) {{ "
        "a = MatMul(x, w) b = ReduceSum<keepdims = 0>(h, axis) y = Add(a, b) "
        "c = Add(h, y) hn = Tanh(c) }",
        weights={"w": normal(8, 4), "axis": np.int64([0])},
    )
    (tmp_path / "edgekit.toml").write_text('[model.inputs.h]\nfrom = "hn"\n')
    x, state, states = normal(12, 8), np.zeros((2, 1, 4), np.float32), []
    for row in x:
        states.append(state)
        state = run(source, x=row[None], h=state)[1]
    np.savez(tmp_path / "steps.npz", x=x)
    np.savez(tmp_path / "hand.npz", x=x, h=np.stack(states).reshape(12, *kept))
    for data in ("steps", "hand"):
        done = edgekit(
            "apply", "quantize-static", source.path, "-o", tmp_path / f"{data}.onnx",
            "-C", tmp_path, "--data", f"{data}.npz",
        )  # fmt: skip
        assert done.code == 0, done.err

    assert (tmp_path / "steps.onnx").read_bytes() == (tmp_path / "hand.onnx").read_bytes()


def test_batch_dimensions_need_no_given_size():
    one = Signature(
        inputs=(spec("ids", "n", "length"), spec("h", 1, None, 4), spec("seen", "n", 6, "past")),
        outputs=(),
    )
    told_batch = Feeding(axes={"h": 1})

    assert [name for *_, name in Feeding().iter_free_axes(one)] == ["length", "h.1", "past"]
    assert [name for *_, name in told_batch.iter_free_axes(one)] == ["length", "past"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[model.inputs.rate]\nconstant = 16000", 16000),
        ("[model.inputs.gain]\nconstant = [[1, 2.5, 3]]", [[1, 2.5, 3]]),
        ("[model.inputs.gain]\nconstant = 0.5", [[0.5, 0.5, 0.5]]),
        ('[model.inputs.gain]\nconstant = "gain.npy"', [[4, 5, 6]]),
    ],
)
def test_a_constant_is_a_number_a_list_or_a_file(tmp_path, text, value):
    np.save(tmp_path / "gain.npy", np.float64([[4, 5, 6]]))
    (found,) = read_notes(tmp_path, text).constants.values()

    assert found.tolist() == value


def test_a_state_begins_with_zeros_a_number_or_a_file(tmp_path):
    np.save(tmp_path / "first.npy", np.arange(12.0).reshape(2, 1, 6))
    table = '[model.inputs.state]\nfrom = "state_out"\n'
    firsts = [
        read_notes(tmp_path, table + more).states["state"].initial
        for more in ("", "initial = 0.5\n", 'initial = "first.npy"\n')
    ]

    assert [first.shape for first in firsts] == [(2, 6)] * 3
    assert [float(first[1, 5]) for first in firsts] == [0, 0.5, 11]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model.inputs.other]\nconstant = 1", "no input 'other'"),
        ("[model.inputs.rate]\nconstant = 1.5", "cannot be stored as int64"),
        ("[model.inputs.rate]\nconstant = 1e300", "cannot be stored as int64"),
        ("[model.inputs.rate]\nconstant = inf", "constant"),
        ("[model.inputs.rate]\nconstant = nan", "constant"),
        (f"[model.inputs.rate]\nconstant = {10**30}", "constant"),
        ("[model.inputs.rate]\nconstant = [1]", "its shape is [1], but the input is rate int64 []"),
        ("[model.inputs.rate]\nconstant = []", "constant"),
        ('[model.inputs.rate]\nconstant = [1, "a"]', "not an array of numbers"),
        ("[model.inputs.rate]\nconstant = [[1], [2, 3]]", "not an array of numbers"),
        ("[model.inputs.rate]\nconstant = [{}]", "not an array of numbers"),
        ("[model.inputs.rate]\nconstant = 1979-05-27", "constant"),
        ("[model.inputs.rate]\nconstant = {a = 1}", "constant"),
        ('[model.inputs.rate]\nconstant = "none.npy"', "none.npy: cannot be read: No such file"),
        ('[model.inputs.rate]\nconstant = "."', "cannot be read: Is a directory"),
        ('[model.inputs.rate]\nconstant = "edgekit.toml"', "not a numpy array"),
        ('[model.inputs.rate]\nconstant = "text.npy"', "not numbers"),
        ('[model.inputs.rate]\nconstant = "huge.npy"', "invalid shape"),
        ('[model.inputs.rate]\nconstant = "cut.npy"', "the array is truncated"),
        ("[model.inputs.rate]\nconstant = 1\nbatch_axis = 0", "'constant' excludes"),
        ('[model.inputs.rate]\nconstant = 1\nfrom = "y"', "'constant' excludes"),
        ("[model.inputs.state]\ninitial = 1", "'initial' needs 'from'"),
        ("[model.inputs.state]\nbatch_axis = 3", "has no axis 3"),
        ("[model.inputs.state]\nbatch_axis = -1", "batch_axis"),
        ("[model.inputs.state]\nbatch_axis = 99999999999999999999", "batch_axis"),
        ('[model.inputs.state]\nbatch_axis = "some"', "batch_axis"),
        ('[model.inputs.state]\nfrom = "none"', "no output 'none'"),
        ('[model.inputs.state]\nfrom = "y"', "does not fit the input state"),
        ('[model.inputs.x]\nfrom = "wide"', "does not fit the input x"),
        ('[model.inputs.state]\nfrom = "state_out"\ninitial = "short.npy"', "its shape is [3]"),
        ('[model.inputs.state]\nfrom = "state_out"\ninitial = [1]', "initial"),
        (
            '[model.inputs.state]\nfrom = "state_out"\ninitial = 1e300',
            "cannot be stored as float32",
        ),
        ("[model.inputs.state]\nform = 1", "unknown key"),
        ("[model.inputs]\nstate = 1", "model.inputs.state"),
        ("[model]\ninputs = 3", "model.inputs"),
        ("[model]\ndims = { n = 4294967296 }", "model.dims.n"),
    ],
)
def test_invalid_input_tables_are_refused_in_one_line(tmp_path, text, says):
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "short.npy", np.zeros(3))
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1048576), }"
    cut = head.replace("1099511627776, 1048576", "1000000,")
    for name, header in (("huge", head), ("cut", cut)):
        start = b"\x93NUMPY\x01\x00\x80\x00"
        (tmp_path / f"{name}.npy").write_bytes(start + header.ljust(127).encode() + b"\n")
    with pytest.raises(UserError) as caught:
        read_notes(tmp_path, text)
    assert says in str(caught.value)


def test_at_least_one_input_must_come_from_samples(tmp_path):
    one = Signature(inputs=(spec("h", 1, 4),), outputs=(spec("hn", 1, 4),))
    with pytest.raises(UserError, match="at least one must come from the samples"):
        read_notes(tmp_path, '[model.inputs.h]\nfrom = "hn"', one)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("x", "h", "c", "y", "hn", "cn"), {"h": "hn", "c": "cn"}),
        (("x", "h0", "y", "hn"), {"h0": "hn"}),
        (("x", "state", "y", "stateN"), {"state": "stateN"}),
        (("x", "conv_cache", "y", "new_conv_cache"), {"conv_cache": "new_conv_cache"}),
        (("input", "output"), {}),
        (("x", "mask", "y", "logits"), {}),
        (
            ("ids", "past_key_values.0.key", "logits", "present.0.key"),
            {"past_key_values.0.key": "present.0.key"},
        ),
    ],
)
def test_pairs_of_states_are_found_by_their_names(names, pairs):
    half = len(names) // 2
    signature = Signature(
        inputs=tuple(spec(name, 1, 4) for name in names[:half]),
        outputs=tuple(spec(name, 1, 4) for name in names[half:]),
    )

    assert find_states(signature) == pairs


def test_init_proposes_states_and_asks_for_constants(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    path = step_model(tmp_path)
    (tmp_path / "edgekit.toml").unlink()
    started = init_project(tmp_path, path)

    assert load_project(tmp_path).model.inputs["state"].output == "state_out"
    assert '# [model.inputs."rate"]\n# constant = 0' in started.text
    assert "[model.inputs] rate: its constant value" in started.open_points


def test_an_input_that_nothing_feeds_is_refused_with_the_ways_to_feed_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    path = step_model(tmp_path)
    (tmp_path / "edgekit.toml").unlink()
    np.savez(tmp_path / "d.npz", x=normal(4, 8))
    assert_refused(
        "apply", "quantize-static", path, "-o", tmp_path / "o.onnx", "-C", tmp_path,
        "--data", "d.npz", says="[model.inputs.state] in edgekit.toml",
    )  # fmt: skip


def test_a_whole_input_per_sample_needs_no_axis(tmp_path):
    """Fixed sizes throughout, and rows that have them all: each is fed by itself."""
    source = model(
        tmp_path,
        "g (float[1,8] x, float[2,1,4] h) => (float[1,4] y, float[2,1,4] hn) { a = MatMul(x, w) "
        "b = ReduceSum<keepdims = 0>(h, axis) y = Add(a, b) hn = Tanh(h) }",
        weights={"w": normal(8, 4), "axis": np.int64([0])},
    )
    (tmp_path / "edgekit.toml").write_text("")
    np.savez(tmp_path / "d.npz", x=normal(12, 8), h=normal(12, 2, 1, 4))
    done = edgekit(
        "apply", "quantize-dynamic", source.path, "-o", tmp_path / "o.onnx", "-C", tmp_path,
        "--data", "d.npz", "--json",
    )  # fmt: skip

    assert done.code == 0


def test_another_axis_of_samples_is_stacked_where_it_belongs(tmp_path):
    source = model(
        tmp_path,
        "g (float[8,2] x) => (float[4,2] y) { y = MatMul(w, x) }",
        weights={"w": normal(4, 8)},
    )
    (tmp_path / "edgekit.toml").write_text("[model.inputs.x]\nbatch_axis = 1\n")
    np.savez(tmp_path / "d.npz", x=normal(11, 8))
    done = edgekit(
        "apply", "clean", source.path, "-o", tmp_path / "o.onnx", "-C", tmp_path, "--data", "d.npz"
    )

    assert done.code == 0


def test_a_growing_model_makes_up_inputs_that_fit_each_other(tmp_path):
    """No data: the state and what is concatenated with it have one batch."""
    path = growing_model(tmp_path)
    done = edgekit("apply", "quantize-dynamic", path, "-o", tmp_path / "o.onnx", "-C", tmp_path)

    assert done.code == 0


def test_samples_of_a_second_axis_have_rows_first(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,4] x, float[2,N,4] h) => (float[N,4] y) { s = ReduceSum<keepdims = 0>(h, axis) "
        "a = Add(x, s) y = MatMul(a, w) }",
        weights={"w": normal(4, 4), "axis": np.int64([0])},
    )
    data = samples(tmp_path, x=normal(12, 4))
    (column,) = samples(tmp_path, h=normal(12, 2, 4)).columns
    both = type(data)((*data.columns, type(column)(*list(vars(column).values())[:5], 1)))

    assert apply("quantize-dynamic", source, tmp_path, both).bytes
