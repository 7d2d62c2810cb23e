"""`edgekit init` finds the preprocessing of real models by trials."""

from __future__ import annotations

import pytest

from benchmarks.init_preprocessing import CASES, describe_expected, run_case
from tests.conftest import BESIDE, found_or_skipped


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("name", ["ic-resnet8", "med-pneumonia", "seg-camvid-unet"])
def test_init_finds_what_a_real_model_expects(tmp_path, name):
    homes = {
        "zoo": found_or_skipped("EDGEKIT_ZOO", BESIDE / "zoo", "MANIFEST.toml"),
        "tasks": found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml"),
    }

    done = run_case(name, homes, tmp_path)

    assert done.found == describe_expected(CASES[name])
