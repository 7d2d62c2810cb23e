"""Docstrings and names that a reader of the field understands, as far as a machine can check."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for name in ("edgekit", "targets") for p in (ROOT / name).rglob("*.py"))
FIRST_WORDS = re.compile(r"(What|Those|Of|The same|How|Whether)\b")
# Names of one word that say what happened, or where, and not what the function does.
PARTICIPLE = re.compile(r"[a-z]+(ed|en|wn|ght|ept|eft|ade)")
PREPOSITIONS = {"of", "by", "at", "with", "to", "from", "for", "in", "on", "behind", "apart"}
VERBS = {
    *("add", "embed", "feed", "need", "read", "seed", "spread", "open", "listen", "fold", "unfold"),
    *("flatten", "shorten", "widen", "tighten"),
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def nodes(path: Path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def riddles(name: str) -> bool:
    if name.startswith("__"):
        return False
    word = name.strip("_")
    return word in PREPOSITIONS or (bool(PARTICIPLE.fullmatch(word)) and word not in VERBS)


def test_first_lines_are_sentences_or_nouns():
    found = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module))
        and (text := ast.get_docstring(node))
        and FIRST_WORDS.match(text)
    ]
    assert not found


def test_functions_are_named_after_what_they_do():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, FUNCTIONS) and riddles(node.name)
    ]
    assert not found


@pytest.mark.parametrize("name", ["_made", "kept", "_with", "of", "_left", "quantized"])
def test_such_names_are_found(name):
    assert riddles(name)


@pytest.mark.parametrize("name", ["read", "make_kept", "_open", "quantize"])
def test_verbs_are_not(name):
    assert not riddles(name)
