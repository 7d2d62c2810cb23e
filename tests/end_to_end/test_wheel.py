"""The first steps of a user who has only the wheel, outside any checkout."""

import subprocess

import pytest

from tests.builders.environments import ROOT, build_wheel, get_plain_environment, make_environment


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The commands of an environment with the wheel, and the tests' own dependencies beside it."""
    wheel = build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", wheel)


def run(commands, folder, *arguments):
    return subprocess.run(
        [str(commands / "edgekit"), *arguments],
        cwd=folder,
        env=get_plain_environment(EDGEKIT_CACHE=str(folder / "cache")),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_is_the_wheels_and_not_the_checkouts(commands, tmp_path):
    code = "import edgekit, edgekit_agent; print(edgekit.__file__, edgekit_agent.__file__)"
    done = subprocess.run(
        [str(commands / "python"), "-c", code],
        cwd=tmp_path,
        env=get_plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(commands.parent)) for path in done.stdout.split())


def test_an_example_is_written_built_and_measured(commands, tmp_path):
    written = run(commands, tmp_path, "example", "digits", "digits")
    assert written.returncode == 0, written.stderr
    build, bench = (line.split("edgekit ")[1].split() for line in written.stdout.splitlines()[1:])

    built = run(commands, tmp_path, *build)
    assert built.returncode == 0, built.stderr
    assert "788/797" in built.stdout, "the original is right on what the README says"
    assert (tmp_path / "digits/build/tablet-x86/tablet-x86.edgekit").is_file()

    measured = run(commands, tmp_path, *bench)
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout.startswith("local: p50 ")
