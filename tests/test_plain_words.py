"""Docstrings, names and messages use plain words, as far as a machine can check."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for name in ("edgekit", "targets") for p in (ROOT / name).rglob("*.py"))
FIRST_WORDS = re.compile(r"(What|Those|Of|The same|How|Whether)\b")
# Names of one word that say what happened, or where, and not what the function does.
PARTICIPLE = re.compile(r"[a-z]+(ed|en|wn|ght|ept|eft|ade|aid|old)")
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
def test_participle_names_are_found(name):
    assert riddles(name)


@pytest.mark.parametrize("name", ["read", "make_kept", "_open", "quantize"])
def test_verbs_are_accepted(name):
    assert not riddles(name)


# ---------------------------------------------------------------- messages

# British spellings, riddles and words of other fields.
FORBIDDEN = re.compile(
    r"(?i)\b(?:\w*(?:quanti|normali|initiali|optimi|summari|recogni|equali)s(?:e|ed|es|ing|ation)"
    r"|\w*labell(?:ed|ing)|colours?|centred?|behaviours?|grey"
    r"|canar(?:y|ies)|twins?|mend(?:ed|s)?|beside|nobody|made-up|riddle|at all"
    r"|says? (?:so|no|nothing)|said (?:so|nothing)|looked at|on (?:the|its) way|travel(?:s|led)?"
    r"|cut short|goes? (?:no|on|back)|went back|brought|brings?|made of|makes? of|holds? no"
    r"|(?<!there )(?:is|are) no(?! longer))\b"
)


def list_prose(path: Path):
    """The strings of a file that are no docstrings and have several words, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    docstrings = {id(n.value) for n in nodes if isinstance(n, ast.Expr)}
    parts = {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
    for node in nodes:
        if id(node) in docstrings or id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            words = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            text = "".join(map(str, words))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if len(text.split()) > 1:
            yield node.lineno, text


def test_messages_use_plain_words_and_american_spelling():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match.group()!r} in {text!r}"
        for path in SOURCES
        for line, text in list_prose(path)
        if (match := FORBIDDEN.search(text))
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "nothing to quantise: {}", "input {} is no tensor", "{}: not these canaries", "labelled",
        "remove or mend this sample", "goes no round", "is cut short", "lighter on the way",
    ],
)  # fmt: skip
def test_forbidden_words_are_found(text):
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("text", ["it is no longer served", "quantize {}", "there is no key"])
def test_plain_words_are_accepted(text):
    assert not FORBIDDEN.search(text)


NAME_IN_BRACES = re.compile(r"\{[a-z_]+(\.[a-z_]+)*(![rs])?\}")


def test_no_text_shows_the_name_of_a_value_in_place_of_the_value():
    """A string with ``{name}`` that is neither an f-string nor formatted."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (*(ROOT / "edgekit").rglob("*.py"), *(ROOT / "targets").rglob("*.py"))
        for node in find_unformatted(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


def find_unformatted(tree):
    """Yield string constants that look like an f-string and are arguments of a call."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
                parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
                for part in parts:
                    if isinstance(part, ast.Constant) and NAME_IN_BRACES.search(str(part.value)):
                        yield part
