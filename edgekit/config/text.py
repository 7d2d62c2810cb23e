"""``[data.text]`` of edgekit.toml: tokenizer and length of text samples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TextSettings(BaseModel):
    """``[data.text]``: how JSON lines of text become numbers of tokens.

    Longer texts are cut at the end, shorter ones are filled with the padding token. Without a
    length of the settings or of the model's input, each text is run at its own length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    tokenizer: str | None = None
    """Path of ``tokenizer.json``; the one near the data or in the project folder unless given."""
    length: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    """Tokens of each sample; that of the model's input, or of each text, unless given."""
    targets: Literal["next-token"] | None = None
    """``next-token``: the target of each token is the one after it, for language models; the last
    token of a text is not fed. Targets of padding are -1, which ``ignore = -1`` leaves out."""
    pad_id: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    """Number of the padding token; that of the tokenizer, or 0, unless given."""
