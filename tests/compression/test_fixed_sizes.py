"""States of free length: a .tflite file fixes their size, notes it, and masks the padding."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit.pass_settings import ToTflite
from tests.builders.tiny import normal, run, samples, work, write

MASK = ", float[N,total] attention_mask"
MASKED = "u = Unsqueeze(attention_mask, axis) v = Sub(u, one) b = Mul(v, big) s2 = Add(s, b)"


def decoder(folder, *, mask=True, total="past + 1"):
    """Build one attention layer over a cache that grows by one entry."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,1,8] x, float[N,past,8] past_key{MASK if mask else ""})
        => (float[N,1,8] y, float[N,later,8] present_key) {{
          q = MatMul(x, wq) k = MatMul(x, wk) present_key = Concat<axis = 1>(past_key, k)
          t = Transpose<perm = [0,2,1]>(present_key) s = MatMul(q, t)
          {MASKED if mask else "s2 = Identity(s)"}
          p = Softmax<axis = -1>(s2) y = MatMul(p, present_key) }}"""
    )
    if mask:
        proto.graph.input[2].type.tensor_type.shape.dim[1].dim_param = total
    weights = {"wq": normal(8, 8), "wk": normal(8, 8, seed=1)}
    if mask:
        weights |= {"one": np.ones(1, np.float32), "big": np.full(1, 1e4, np.float32)}
        weights["axis"] = np.array([1])
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return write(folder, proto)


def fed(count=20, length=12, mask=True):
    given = {"x": normal(count, 1, 8, seed=2), "past_key": normal(count, length, 8, seed=3)}
    return given | ({"attention_mask": np.ones((count, length + 1), np.float32)} if mask else {})


def convert(source, folder, data=None, **dims):
    return run_checked(build_step(ToTflite(dims=tuple(dims.items()))), source, work(folder, data))


def test_a_state_of_a_given_size_is_padded_and_masked(tmp_path):
    source = decoder(tmp_path)
    found = convert(source, tmp_path, past=32)

    assert found.model.signature.inputs[1].shape == (1, 32, 8)
    assert found.model.signature.inputs[2].shape == (1, 33)  # past + 1
    assert (
        "pad shorter states with zeros, and mask the padding with the input attention_mask"
        in found.notes[1]
    )
    given = fed(count=1)
    longer = {
        "x": given["x"],
        "past_key": np.pad(given["past_key"], [(0, 0), (20, 0), (0, 0)]),
        "attention_mask": np.pad(given["attention_mask"], [(0, 0), (20, 0)]),
    }
    (got,) = iter_outputs(found.model, [longer])
    np.testing.assert_allclose(got["y"], run(source, **given)[0], atol=1e-5)


def test_a_size_taken_from_samples_is_noted(tmp_path):
    found = convert(decoder(tmp_path), tmp_path, samples(tmp_path, **fed()), past=12)

    assert found.notes[0] == (
        "the file has fixed input sizes: past = 12, past + 1 = 13; "
        "set other sizes with --dims NAME=SIZE"
    )
    assert found.agreement.samples == 16


def test_a_state_without_a_mask_gets_a_note_about_padding(tmp_path):
    found = convert(decoder(tmp_path, mask=False), tmp_path, past=32)

    assert (
        "state past_key has 32 entries in the file, and the model has no mask input"
        in found.notes[1]
    )


def test_samples_of_another_size_do_not_override_a_given_size(tmp_path):
    data = samples(tmp_path, **fed(mask=False))
    found = convert(decoder(tmp_path, mask=False), tmp_path, data, past=32)

    assert found.agreement.samples == 0
    assert "compared on random inputs, as the samples have other sizes than the file" in found.notes


def test_a_model_of_fixed_sizes_gets_no_note(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Neg(x) }'
    )
    assert convert(write(tmp_path, proto), tmp_path).notes == ()


def notes_of_growing(folder, size, *, beside=True, batch="N"):
    """The notes on a model whose input grows to an output, or whose output is as long as it."""
    inputs = ", float[N,1,8] x" if beside else ""
    body = "y = Concat<axis = 1>(k, x)" if beside else "y = Neg(k)"
    text = f"g (float[N,T,8] k{inputs}) => (float[{batch},{size},8] y) {{ {body} }}"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    return [note for note in convert(write(folder, proto), folder, T=6).notes if "state" in note]


@pytest.mark.parametrize(("size", "batch"), [("total", "Concaty_dim_0"), ("Concaty_dim_1", "N")])
def test_a_growing_state_is_found_whatever_exporters_name_sizes(tmp_path, size, batch):
    assert "state k has 6 entries" in notes_of_growing(tmp_path, size, batch=batch)[0]


@pytest.mark.parametrize("size", ["T", "Negy_dim_1"])
def test_a_sequence_of_free_length_is_not_a_state(tmp_path, size):
    assert not notes_of_growing(tmp_path, size, beside=False)
