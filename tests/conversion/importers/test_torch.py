"""torch modules become graphs with the same outputs, with a free batch if possible."""

import hashlib

import numpy as np
import onnx
import pytest

from tests.builders.sources.convert_all import close, convert_all

NAMES = (
    "small", "bare", "with_attribute", "two", "by_name", "branch", "fixed", "chance", "raises",
    "nothing", "number", "absent",
)  # fmt: skip
SOURCES = {name: f"torch_models:{name}" for name in NAMES} | {
    "again": "torch_models:small",
    "no_module": "no_such_module:small",
    "pair": "trusted pair.pt",
    "weights": "trusted weights.pth",
    "program": "trusted program.pt2",
    "text": "trusted text.pt2",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return convert_all(tmp_path_factory.mktemp("torch"), "torch_models", SOURCES)


@pytest.mark.parametrize("name", ["small", "with_attribute", "pair", "program"])
def test_a_convolutional_net_has_a_free_batch_and_gives_the_same(results, name):
    made = results[name]
    assert made.inputs == ["image float32 [batch, 1, 8, 8]"]
    known = np.load(made.path.parents[2] / "small.npz")
    for rows in (1, 3):
        (output,) = made.run(image=known["image"][:rows])
        close(known["output"][:rows], output)


def test_weights_keep_the_names_that_the_module_gives_them(results):
    stored = {t.name for t in onnx.load(results["small"].path).graph.initializer}
    assert {"conv.weight", "out.weight", "out.bias"} <= stored


def test_arguments_name_the_inputs_and_keys_the_outputs(results):
    for name, inputs in (("two", ["left", "right"]), ("by_name", ["right", "left"])):
        made = results[name]
        assert [spec.name for spec in made.signature.inputs] == inputs
        assert made.outputs == ["sum float32 [batch, 1]", "h float32 [batch, 4]"]


def test_if_torch_export_fails_torchscript_is_used_with_a_note(results):
    made = results["branch"]
    assert made.said["tool"] == "torch.onnx (TorchScript)"
    notes = " ".join(made.said["notes"])
    assert "as torch.export fails" in notes
    assert "fixed to its value for the example input" in notes
    assert made.run(x=np.full((3, 4), 3, np.float32))[0].max() == 6


def test_a_module_of_one_batch_size_keeps_it_with_a_note(results):
    assert results["fixed"].inputs == ["x float32 [2, 12]"]
    assert "the batch size is fixed to 2" in results["fixed"].said["notes"][0]


def test_the_same_module_gives_the_same_bytes(results):
    one, two = (hashlib.sha256(results[n].path.read_bytes()).digest() for n in ("small", "again"))
    assert one == two


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("bare", "without example inputs", "return module, example_inputs"),
        ("chance", "the outputs differ between runs", ""),
        ("raises", "RuntimeError: no weights here", ""),
        ("nothing", "the function returns None instead of a model", "add 'return model'"),
        (
            "number",
            "returns an int, which is not a supported model",
            "return module, example_inputs",
        ),
        ("absent", "torch_models has no 'absent'", "functions of torch_models: small"),
        (
            "no_module",
            "no module 'no_such_module'",
            "use -C DIR if the module is in another folder",
        ),
        ("weights", "contains weights but no module", "module:function"),
        ("text", "torch cannot load it", "torch.export.save"),
    ],
)
def test_sources_that_cannot_be_converted_are_refused_with_a_hint(results, name, says, hint):
    said = results[name].said
    assert says in said["error"]
    assert hint in said["hint"]
    assert "\n" not in said["error"]
