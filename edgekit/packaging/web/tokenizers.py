"""Check that pages can read a tokenizer: they know the usual parts of tokenizer.json alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

# Types of each part that targets/web/edgekit knows.
KNOWN: dict[str, frozenset[str]] = {
    "normalizer": frozenset(
        ("Sequence", "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents",
         "Strip", "Prepend", "Replace")
    ),
    "pre_tokenizer": frozenset(
        ("Sequence", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits",
         "ByteLevel", "Metaspace")
    ),
    "model": frozenset(("WordPiece", "BPE", "WordLevel")),
    "post_processor": frozenset(
        ("Sequence", "ByteLevel", "BertProcessing", "RobertaProcessing", "TemplateProcessing")
    ),
}  # fmt: skip
_LISTS = ("normalizers", "pretokenizers", "processors")


def find_unknown_part(tokenizer: bytes) -> str | None:
    """Return the part of a tokenizer that pages do not know; ``None`` if they know all.

    Raises:
        ValueError: It is not JSON of a tokenizer.
    """
    settings = json.loads(tokenizer)
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict):
        raise ValueError("not a tokenizer.json")
    for name, known in KNOWN.items():
        for part in _iter_parts(settings.get(name)):
            told = f"the {name.replace('_', ' ')} {part.get('type')}"
            if part.get("type", "BPE" if "merges" in part else None) not in known:
                return told
            if part.get("type") == "Replace" and "String" not in (part.get("pattern") or {}):
                return f"{told} of a pattern"
            if part.get("type") == "Punctuation" and part.get("behavior", "Isolated") != "Isolated":
                return f"{told} that is not isolated"
    added = settings.get("added_tokens") or []
    if not isinstance(added, list):
        raise ValueError("not a tokenizer.json")
    if any(token.get("single_word") for token in added):
        return "a token of whole words alone"
    return None


def _iter_parts(part: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON value
    """Yield a part, and those of a sequence."""
    if not isinstance(part, dict):
        return
    yield part
    for name in _LISTS:
        for inner in part.get(name) or ():
            yield from _iter_parts(inner)
