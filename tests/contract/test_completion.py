"""TAB completion in a real bash."""

import shlex
import shutil
import subprocess
import sys

import pytest

from tests.builders.projects import edgekit

# Bash calls the function that the script registered, as it does when a user presses TAB.
PRESS_TAB = """
eval "$(edgekit completion bash)"
COMP_WORDS=({words}) COMP_CWORD={last}
handler=$(complete -p edgekit | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
"$handler" edgekit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def press_tab(tmp_path, monkeypatch):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "bin" / "edgekit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgekit "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def press(*words):
        quoted = " ".join(shlex.quote(word) for word in ("edgekit", *words))
        script = PRESS_TAB.format(words=quoted, last=len(words))
        done = subprocess.run(
            ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    return press


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pu"], {"push"}),
        (["keys", "untr"], {"untrust"}),
        (["build", "--dev"], {"--device"}),
        (["build", "--device", "raspberry-pi-5"], {"raspberry-pi-5"}),
        (["devices", "show", "tab"], {"tablet", "tablet-web", "tablet-x86"}),
        (["passes", "prune-c"], {"prune-channels"}),
        (["apply", "cle"], {"clean"}),
        (["build", "--step", "low"], {"low-rank"}),
        (["example", "d"], {"digits"}),
        (["completion", "z"], {"zsh"}),
        (["status", "--js"], {"--json"}),
    ],
)
def test_a_word_is_completed(press_tab, words, completed):
    assert set(press_tab(*words)) == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_a_shell_calls_edgekit(shell):
    done = edgekit("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_EDGEKIT_COMPLETE=complete_{shell}" in done.out


def test_a_shell_that_is_unknown_is_a_bad_request():
    done = edgekit("completion", "tcsh")
    assert (done.code, done.out) == (2, "")
    assert "tcsh" in done.err


def test_a_wrong_shell_is_one_line_that_lists_the_shells():
    for arguments, says in (((), "Missing argument 'SHELL'"), (("tcsh",), "'tcsh' is not one of")):
        done = edgekit("completion", *arguments)
        first, *hint = done.err.splitlines()
        assert (done.code, done.out) == (2, "")
        assert first.startswith("edgekit: ")
        assert says in first
        assert all(shell in first for shell in ("bash", "zsh", "fish"))
        assert hint == ["  see 'edgekit completion --help'"]
