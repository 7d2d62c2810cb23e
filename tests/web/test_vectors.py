"""Vectors for the code of web pages are the same in each run and cover every kind of answer."""

import json

from edgekit_agent.model_settings import ANSWERS
from tests.web.vectors import build_vectors, write_vectors


def test_vectors_are_the_same_each_time_and_cover_every_answer(tmp_path):
    write_vectors(tmp_path / "vectors.json")
    read = json.loads((tmp_path / "vectors.json").read_text())
    again = build_vectors()
    assert {name: len(each) for name, each in read.items()} == {
        name: len(each) for name, each in again.items()
    }
    assert read["images"] == json.loads(json.dumps(again["images"]))
    kinds = {vector["expected"]["kind"] for vector in read["sessions"] if "expected" in vector}
    assert kinds == set(ANSWERS)
    refused = [vector["error"] for each in read.values() for vector in each if "error" in vector]
    assert len(refused) > 10
    assert all(
        "\n" not in error["message"] and " object at " not in error["message"] for error in refused
    )
