"""JSON objects with a repeated key, which parsers may read differently, are refused."""

import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.errors import UserError
from edgekit_agent.strictjson import loads
from tests.builders.servers import make_bundle


@pytest.mark.parametrize(
    "text",
    [
        '{"digest": "a", "digest": "b"}',
        '{"digest": "a", "digest": "a"}',
        '{"files": [{"name": "model", "n\\u0061me": "other"}]}',
    ],
)
def test_an_object_with_a_repeated_key_is_refused(text):
    with pytest.raises(ValueError, match="is repeated"):
        loads(text.encode())


def test_objects_beside_each_other_may_have_the_same_keys():
    assert loads(b'[{"name": 1}, {"name": 2, "of": {"name": 3}}]')[1]["of"] == {"name": 3}


def test_a_bundle_whose_manifest_repeats_a_key_is_refused(tmp_path):
    manifest = make_bundle(tmp_path / "made").path / "manifest.json"
    text = manifest.read_text().replace("{", '{"max_relative_error": 0.5, ', 1)
    assert text.count('"max_relative_error"') == 2
    manifest.write_text(text)
    with pytest.raises(UserError, match="the key 'max_relative_error' is repeated"):
        open_bundle(manifest.parent)
