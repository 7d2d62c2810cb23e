"""Random graphs of the structures that networks consist of."""

from __future__ import annotations

from tests.builders.blocks import images, sequences
from tests.builders.blocks.sketch import Sketch


def image_net(seed, blocks, *, opset=17, free=True):
    """Build a convolutional network of some blocks."""
    s = Sketch(seed, opset)
    x, width = s.feed("x", ["n" if free else 2, 3, 8, 8]), 3
    for block in blocks:
        x, width = block(s, x, width)
        if s.below(6) == 0:
            s.output(*images.head(s, x, width))
    s.output(*images.head(s, x, width))
    return s.proto()


def transformer(seed, blocks, *, opset=17, free=True):
    """Build a transformer of some blocks."""
    s = Sketch(seed, opset)
    x = sequences.start(s, free=free)
    for block in blocks:
        x = block(s, x)
        if s.below(8) == 0:
            s.output(*sequences.head(s, x))
    s.output(*sequences.head(s, x))
    return s.proto()
