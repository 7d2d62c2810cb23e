"""Settings of a model as an application reads them from the manifest of a build."""

import json

import pytest

from edgekit.bundle.manifest import Manifest
from edgekit_agent.failures import AgentError
from edgekit_agent.model_settings import parse_manifest, read_model_settings
from tests.builders.projects import ROOT

PLAIN = ROOT / "tests" / "old" / "plain"


def test_a_bundle_of_an_earlier_version_is_read():
    settings = read_model_settings(str(PLAIN))
    manifest = json.loads((PLAIN / "manifest.json").read_bytes())
    assert settings.model == manifest["model"]
    assert [tensor.name for tensor in settings.inputs] == [t["name"] for t in manifest["inputs"]]
    assert settings.answer.kind == "class"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "../model.onnx"),
        ("inputs", []),
        ("inputs", [{"name": "x", "dtype": "object", "shape": [1]}]),
        ("answer", {"kind": "poem"}),
        ("answer", {"kind": "class", "output": "absent"}),
        ("audio", {"rate": 0}),
        ("audio", {"rate": 16000, "samples": 10, "step": 20}),
        ("runtime", {"name": "other", "threads": 1}),
        ("runtime", {"name": "onnxruntime", "threads": 0}),
        ("class_names", "cat"),
        (
            "input_settings",
            {"states": [{"name": "x", "output": "absent", "axis": 0, "initial": 1}]},
        ),
        ("fields", [{"input": "absent", "fields": ["age"]}]),
        ("schema_version", 3),
        ("preprocess", [1]),
        ("preprocess", {"resize_mode": "shrink"}),
        ("preprocess", {"mean": "x"}),
        ("preprocess", {"crop": 0}),
        ("audio", {"rate": 8000, "window": "gauss"}),
        ("files", None),
        ("runtime", None),
        ("inputs", {"name": "x"}),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused_in_one_line(tmp_path, key, value):
    manifest = json.loads((PLAIN / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(AgentError) as caught:
        read_model_settings(str(tmp_path))
    assert caught.value.failure.kind == "bad_bundle"
    assert "\n" not in caught.value.failure.message


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(AgentError, match="no such file"):
        read_model_settings(str(tmp_path))


def test_the_fields_of_an_application_survive_the_manifest():
    values = json.loads((PLAIN / "manifest.json").read_bytes())
    values.pop("canaries", None), values.pop("forms", None)
    output = values["outputs"][0]["name"]
    given = {
        "class_names": ["cat", ""],
        "audio": {"rate": 16000, "spectrogram": "log-mel", "high_hz": 4000.0},
        "input_settings": {"axes": {values["inputs"][0]["name"]: 0}},
        "answer": {"kind": "class", "output": output, "logits": True},
    }
    manifest = Manifest.model_validate_json(json.dumps({**values, **given, "schema_version": 2}))
    settings = parse_manifest(json.loads(manifest.model_dump_json()))
    assert settings.class_names == ("cat", "")
    assert [settings.get_label(number) for number in (0, 1, 2)] == ["cat", "1", "2"]
    assert settings.audio is not None
    assert settings.audio.high_hz == 4000.0
    assert settings.answer.logits
    assert settings.input_kind == "audio"
