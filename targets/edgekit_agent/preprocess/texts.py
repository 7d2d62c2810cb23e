"""Texts as numbers of tokens. Needs numpy, and the package tokenizers (imported when needed)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.preprocess.settings import Text
    from edgekit_agent.runtimes import Arrays

_PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>")

# Values of an input for the tokens of one text.
ROLES: Dict[str, Callable[[Any], Sequence[int]]] = {
    "input_ids": lambda tokens: tokens.ids,
    "attention_mask": lambda tokens: [1] * len(tokens.ids),
    "token_type_ids": lambda tokens: tokens.type_ids,
    "position_ids": lambda tokens: range(len(tokens.ids)),
}
_OTHER_NAMES = {
    "ids": "input_ids",
    "tokens": "input_ids",
    "input_mask": "attention_mask",
    "segment_ids": "token_type_ids",
}


def load_tokenizer(data: bytes, name: str) -> Any:  # noqa: ANN401 - the library has no types
    """Load a tokenizer in the format of Hugging Face, ``tokenizer.json``.

    Args:
        data: bytes of the file.
        name: its name, for messages.

    Raises:
        AgentError: ``bad_sample``: it cannot be read; ``missing_package``: the package tokenizers
            is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise AgentError(
            "missing_package",
            "tokenizers is not installed",
            hint="install it: pip install tokenizers",
        ) from error
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:
        raise AgentError(
            "bad_sample", f"{name}: not a tokenizer.json that can be read: {_first_line(error)}"
        ) from error


def find_role(name: str) -> Optional[str]:
    """Return what an input takes, by its name; ``None`` if it is none of the known ones."""
    plain = name.rsplit("/", 1)[-1].split(":")[0].lower()
    role = _OTHER_NAMES.get(plain, plain)
    return role if role in ROLES else None


def choose_pad_id(tokenizer: Any) -> int:  # noqa: ANN401 - no types
    """Return the number of the token that fills shorter texts."""
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    found = (tokenizer.token_to_id(token) for token in _PAD_TOKENS)
    return next((int(number) for number in found if number is not None), 0)


def encode_text(tokenizer: Any, text: str, pair: Optional[str], name: str) -> Any:  # noqa: ANN401
    """Return the tokens of a text, and of a second one if there is one.

    Raises:
        AgentError: ``bad_sample``: the tokenizer refuses the text.
    """
    check_text(text + (pair or ""), name)
    try:
        return tokenizer.encode(text, pair)
    except Exception as error:
        raise AgentError("bad_sample", f"{name}: {_first_line(error)}") from error


def check_text(text: str, name: str) -> None:
    """Check that a text can be written as UTF-8.

    Raises:
        AgentError: ``bad_sample``: it has half of a surrogate pair.
    """
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise AgentError("bad_sample", f"{name}: the text has half of a surrogate pair")


def fill_row(
    tokens: Any,  # noqa: ANN401 - no types
    role: str,
    size: int,
    count: int,
    pad_id: int,
) -> NDArray[np.int64]:
    """Return the row of an input: the values of ``count`` tokens, filled to ``size``.

    Args:
        tokens: the tokens.
        role: what the input takes.
        size: length of the row.
        count: number of tokens that are used.
        pad_id: number of the token that fills the row.
    """
    row = np.full(size, pad_id if role == "input_ids" else 0, np.int64)
    row[:count] = ROLES[role](tokens)[:count]
    return row


def convert_text(
    tokenizer: Any,  # noqa: ANN401 - no types
    text: str,
    pair: Optional[str],
    how: Text,
) -> Tuple[Arrays, int]:
    """Return the row of each input for a text, and the number of its tokens.

    Raises:
        AgentError: ``bad_sample``: the text has no tokens, or the tokenizer refuses it.
    """
    tokenizer.no_padding()
    if how.length:
        tokenizer.enable_truncation(how.length)
    else:
        tokenizer.no_truncation()
    tokens = encode_text(tokenizer, text, pair, "the text")
    count = len(tokens.ids)
    if not count and not how.length:
        raise AgentError("bad_sample", "the text is empty", hint="write at least one word")
    size = how.length or count
    rows = {
        name: fill_row(tokens, role, size, count, how.pad_id)
        for name, role in (how.roles or {}).items()
    }
    return rows, count


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
