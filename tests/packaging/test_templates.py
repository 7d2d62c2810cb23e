"""Templates of apps: each one is short, and its app.toml is valid as it was written."""

import json
import re

import pytest

from edgekit.config.shipped_files import get_shipped_folder
from edgekit.packaging.app_settings import load_app
from edgekit.packaging.templates import list_templates, make_app_name
from tests.builders.projects import edgekit as run

TEMPLATES = ("audio", "detector", "folder-watch", "form", "image-classifier", "text")


def test_all_templates_are_shipped():
    assert list_templates() == TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_short(name):
    for file in get_shipped_folder("targets/templates").joinpath(name).iterdir():
        assert len(file.read_text(encoding="utf-8").splitlines()) < 70, file


@pytest.mark.parametrize("name", ["folder-watch", "form"])
def test_a_new_app_names_its_bundle(workplace, built, name):
    bundle = built[0] / "build" / "tablet-x86"
    done = run("app", "new", "my-app", bundle, "--template", name, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["files"] == ["app.py", "app.toml"]
    settings = load_app(workplace / "my-app")
    assert (settings.name, settings.title) == ("my-app", "My app")
    named = (workplace / "my-app" / settings.models["main"]).resolve()
    assert named == bundle.resolve()


def test_a_new_app_without_a_bundle_says_where_to_name_it(workplace):
    done = run("app", "new", "eye", "--template", "image-classifier")
    assert done.code == 0, done.err
    assert "edgekit package BUNDLE --app eye" in done.out
    assert load_app(workplace / "eye").models == {}
    assert "# main = " in (workplace / "eye/app.toml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eye", "--template", "image-clas"), "did you mean 'image-classifier'?"),
        (("Eye",), "'Eye' is not the name of an app"),
        (("eye", "absent"), "absent: not a bundle"),
    ],
)
def test_a_wrong_request_writes_nothing(workplace, words, said):
    done = run("app", "new", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("name", ["audio", "detector", "image-classifier", "text"])
def test_a_template_for_other_models_is_refused(workplace, built, name):
    done = run("app", "new", "eye", built[0] / "build/tablet-x86", "--template", name)
    assert done.code == 2
    assert re.search(f"the template {name} takes a[n ].* takes a row of numbers", done.err)
    assert "use --template form" in done.err
    assert not list(workplace.iterdir())


def test_a_full_folder_is_left_as_it_is(workplace):
    (workplace / "eye").mkdir()
    (workplace / "eye/mine").write_text("x")
    done = run("app", "new", "eye")
    assert done.code == 2
    assert "eye: is not empty" in done.err
    assert [p.name for p in (workplace / "eye").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tablet-x86", "tablet-x86"),
        ("Med Pneumonia_2", "med-pneumonia-2"),
        ("4 eyes", "app-4-eyes"),
    ],
)
def test_names_of_apps_are_made_of_names_of_bundles(text, name):
    assert make_app_name(text) == name
