"""Small GPT-like decoder with a key-value cache, trained briefly and exported from torch."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, BLOCKS, CONTEXT = 128, 96, 4, 3, 256
_STEPS, _BATCH, _LENGTH = 250, 16, 64


def text() -> np.ndarray:
    """Read the training text: ASCII characters of source code that ships with Python."""
    folder = Path(ast.__file__).parent
    names = ("ast.py", "inspect.py", "argparse.py", "doctest.py", "tarfile.py", "typing.py")
    joined = b"".join((folder / name).read_bytes() for name in names)
    codes = np.frombuffer(joined, np.uint8)
    return codes[codes < VOCABULARY].astype(np.int64)


class Block(nn.Module):
    """Transformer block: attention over the cache and the new positions, then feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Compute the output of the block, and its keys and values appended to the cache."""
        batch, length, _ = x.shape
        parts = self.qkv(self.first(x)).reshape(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        scores = query @ key.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
        seen = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + self.out(seen)
        x = x + self.down(nn.functional.gelu(self.up(self.second(x))))
        return x, key, value


class Decoder(nn.Module):
    """Decoder with tied embedding; outputs are the logits of the next character and the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """Compute logits of new characters and the extended cache (keys and values by block)."""
        before, length = cache[0].shape[2], ids.shape[1]
        places = torch.arange(length) + before
        x = self.embedding(ids) + self.position(places)
        ahead = torch.arange(before + length)[None, :] > places[:, None]
        mask = torch.where(ahead, -1e4, 0.0)
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x, *states = block(x, mask, (cache[2 * number], cache[2 * number + 1]))
            kept += states
        return self.norm(x) @ self.embedding.weight.T, *kept


def cache_names() -> list[str]:
    """Return the names of the cache tensors in order, without ``past_`` or ``present_``."""
    return [f"{kind}_{number}" for number in range(BLOCKS) for kind in ("key", "value")]


def export_decoder(source: Path | None, target: Path) -> None:
    """Train the decoder for some seconds and write it as ONNX."""
    del source
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, codes = Decoder(), text()
    _train(model, codes)
    past = [torch.zeros(2, HEADS, 5, WIDTH // HEADS) for _ in cache_names()]
    batch, new, cached = (torch.export.Dim(name) for name in ("batch", "new", "past"))
    torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 3, dtype=torch.int64), *past),
        target,
        input_names=["ids", *(f"past_{name}" for name in cache_names())],
        output_names=["logits", *(f"present_{name}" for name in cache_names())],
        dynamic_shapes=({0: batch, 1: new}, tuple({0: batch, 2: cached} for _ in past)),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _train(model: Decoder, codes: np.ndarray) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    empty = [torch.zeros(_BATCH, HEADS, 0, WIDTH // HEADS) for _ in cache_names()]
    for _ in range(_STEPS):
        starts = rng.integers(0, len(codes) - _LENGTH - 1, _BATCH)
        rows = torch.from_numpy(np.stack([codes[s : s + _LENGTH + 1] for s in starts]))
        logits = model(rows[:, :-1], *empty)[0]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
