"""app.toml: every error is told with its path."""

import pytest

from edgekit.errors import UserError
from edgekit.packaging.app_settings import load_app

GOOD = 'schema = 1\nname = "ward-eye"\nversion = "1.0"\ninput = "image"\n'
FORM = GOOD.replace("image", "form") + '[[ui.fields]]\nname = "age"\n'


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "app.toml").write_text(text)
    (folder / "app.py").write_text("def answer(models, sample):\n    return {}\n")
    return folder


def test_the_least_settings_are_enough(tmp_path):
    settings = load_app(write(tmp_path / "app", GOOD))
    assert (settings.name, settings.input, settings.entry) == ("ward-eye", "image", None)
    assert settings.ui.notice == "Not a medical device."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("ward-eye", "Ward Eye"), "name: must match the regular expression"),
        (GOOD + 'titel = "x"\n', "titel: unknown key; did you mean 'title'?"),
        (GOOD.replace('"image"', '"images"'), "input: .*got 'images'; did you mean 'image'?"),
        (GOOD.replace("version", "# version"), "version: missing"),
        (GOOD + 'requires = ["scipy >> 1"]\n', "requires.0: not a requirement such as"),
        (GOOD + 'requires = ["x @ file:///x.whl"]\n', "requires.0: a name and versions, not an"),
        (GOOD + 'entry = "app.py"\n', "entry: must match"),
        (GOOD + 'entry = "other:answer"\n', "entry: no other.py in"),
        (GOOD + 'background = "other:watch"\n', "background: no other.py in"),
        (GOOD + "[permissions]\ncamra = true\n", "permissions.camra: unknown key; .*'camera'"),
        (GOOD + '[models]\na = "x"\nb = "y"\n', "several models need an 'entry'"),
        (GOOD + '[[ui.fields]]\nname = "age"\n', "'ui.fields' needs input = \"form\""),
        (GOOD + 'title = "a\\nb"\n', "title: has characters that cannot be printed"),
        (GOOD + 'title = "\\u202ea"\n', "title: has characters that cannot be printed"),
        (FORM + "min = 2\nmax = 3\nvalue = 1\n", "'value' is smaller than 'min'"),
        (FORM + "min = 2\nmax = 3\nvalue = 4\n", "'value' is larger than 'max'"),
        (FORM + "choices = [1, 2]\nvalue = 3\n", "'value' is none of the 'choices'"),
        (FORM + "choices = [1, 1]\n", "'choices' has a value twice"),
        (FORM + "choices = [true, false]\n", "choices.0: input should be a valid number"),
        (GOOD + '[ui]\nlanguage = "english"\n', "ui.language: must match"),
        (GOOD + '[models]\n"A b" = "x"\n', "models.A b"),
    ],
)
def test_a_wrong_line_is_told_with_its_path(tmp_path, text, said):
    with pytest.raises(UserError, match=said) as caught:
        load_app(write(tmp_path / "app", text))
    assert "app.toml" in str(caught.value)


def test_every_error_is_told_at_once(tmp_path):
    text = GOOD.replace("ward-eye", "X").replace("version", "versoin")
    with pytest.raises(UserError) as caught:
        load_app(write(tmp_path / "app", text))
    assert len(caught.value.details) == 3


def test_a_folder_without_app_toml_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no app\.toml in it"):
        load_app(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_app(tmp_path / "absent")
