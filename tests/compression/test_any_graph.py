"""Every pass on every kind of graph: a correct result, or a refusal in one line."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import PassRefused
from tests.builders.all_graphs import HEAVY, NOT_QUANTIZABLE, QUANTIZABLE
from tests.builders.tiny import apply, model, run, samples, sqnr_db

KINDS = QUANTIZABLE | NOT_QUANTIZABLE | HEAVY
RECIPES = {
    "static": ["quantize-static"],
    "dynamic": ["quantize-dynamic"],
    "clean, then static": ["clean", "quantize-static"],
    "clean, then dynamic": ["clean", "quantize-dynamic"],
}


def source_of(kind, folder):
    source = model(folder, kind.text, weights=kind.weights, **kind.how)
    return source, samples(folder, **kind.inputs)


def apply_all(steps, source, folder, data):
    for step in steps:
        source = apply(step, source, folder, data)
    return source


def assert_close(source, made, inputs, least_db):
    """Compare all outputs over all samples, batch by batch."""
    batch = source.signature.inputs[0].shape[0]
    batch = batch if isinstance(batch, int) else 1
    before, after = [], []
    for start in range(0, len(next(iter(inputs.values()))), batch):
        feeds = {name: value[start : start + batch] for name, value in inputs.items()}
        before.append(run(source, **feeds))
        after.append(run(made, **feeds))
    for old, new in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True):
        assert [v.shape for v in new] == [v.shape for v in old]
        assert {v.dtype for v in new} == {v.dtype for v in old}
        if any(np.any(v) for v in old):
            assert sqnr_db(np.stack(old), np.stack(new)) > least_db
        else:
            assert not any(np.any(v) for v in new)


@pytest.mark.parametrize("name", KINDS)
def test_cleaning_changes_nothing_but_the_last_bits(tmp_path, name):
    source, data = source_of(KINDS[name], tmp_path)

    made = apply("clean", source, tmp_path, data)

    assert_close(source, made, KINDS[name].inputs, 60 if "half" in name else 100)


@pytest.mark.parametrize("recipe", ["static", "clean, then static"])
@pytest.mark.parametrize("name", QUANTIZABLE)
def test_static_quantization_stays_close_to_float(tmp_path, name, recipe):
    source, data = source_of(QUANTIZABLE[name], tmp_path)

    made = apply_all(RECIPES[recipe], source, tmp_path, data)

    assert_close(source, made, QUANTIZABLE[name].inputs, 25)


@pytest.mark.parametrize("recipe", ["dynamic", "clean, then dynamic"])
@pytest.mark.parametrize(
    "name", [n for n, k in QUANTIZABLE.items() if "Gemm" in k.text or "MatMul" in k.text]
)
def test_dynamic_quantization_stays_close_to_float(tmp_path, name, recipe):
    source, data = source_of(QUANTIZABLE[name], tmp_path)

    made = apply_all(RECIPES[recipe], source, tmp_path, data)

    assert_close(source, made, QUANTIZABLE[name].inputs, 25)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", HEAVY)
def test_weights_of_every_kind_shrink_to_a_third_and_stay_close(tmp_path, name, recipe):
    source, data = source_of(HEAVY[name], tmp_path)

    made = apply_all(RECIPES[recipe], source, tmp_path, data)

    share = 0.6 if "half precision" in name else 0.36
    assert made.bytes < share * source.bytes
    assert_close(source, made, HEAVY[name].inputs, 25)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", NOT_QUANTIZABLE)
def test_a_graph_with_nothing_to_quantize_is_refused_in_one_line(tmp_path, name, recipe):
    source, data = source_of(NOT_QUANTIZABLE[name], tmp_path)
    with pytest.raises(PassRefused, match=r"^nothing to quantize: [^\n]+$"):
        apply_all(RECIPES[recipe], source, tmp_path, data)


def test_dynamic_quantization_of_convolutions_only_is_refused(tmp_path):
    source, data = source_of(QUANTIZABLE["conv 1d"], tmp_path)
    with pytest.raises(PassRefused, match=r"^nothing to quantize: w .*belongs to Conv"):
        apply("quantize-dynamic", source, tmp_path, data)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_quantized_model_is_not_quantized_again(tmp_path, recipe):
    source, data = source_of(QUANTIZABLE["gemm without bias"], tmp_path)
    quantized = apply("quantize-static", source, tmp_path, data)
    with pytest.raises(PassRefused, match=r"^the model is already quantized"):
        apply_all(RECIPES[recipe], quantized, tmp_path, data)


@pytest.mark.parametrize("step", ["quantize-static", "quantize-dynamic"])
def test_weights_that_are_not_finite_are_not_changed(tmp_path, step):
    weights = {"w": QUANTIZABLE["gemm without bias"].weights["w"].copy()}
    weights["w"][2, 1] = np.nan
    source = model(tmp_path, "g (float[N,6] x) => (y) { y = MatMul(x, w) }", weights=weights)
    with pytest.raises(PassRefused, match=r"nothing to quantize: w .* values that are not finite"):
        apply(step, source, tmp_path, samples(tmp_path, x=np.ones((4, 6), np.float32)))


@pytest.mark.parametrize("container", ["int8", "native"])
@pytest.mark.parametrize("name", KINDS)
def test_few_bits_make_a_model_that_keeps_its_promises_or_say_why_not(tmp_path, name, container):
    source, data = source_of(KINDS[name], tmp_path)
    made = few_bits(source, tmp_path, data, container)
    if isinstance(made, str):
        assert "\n" not in made
        return
    assert made.digest != source.digest
    assert {t.dtype for t in made.signature.outputs} == {t.dtype for t in source.signature.outputs}


def few_bits(source, folder, data, container):
    """Return the model, or the reason of the refusal."""
    try:
        return apply("quantize-weights", source, folder, data, container=container)
    except PassRefused as refusal:
        return refusal.message
