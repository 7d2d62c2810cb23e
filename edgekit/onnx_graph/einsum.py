"""Equation of an Einsum node."""

from __future__ import annotations

from onnx import NodeProto

from edgekit.onnx_graph.graph_index import read_attribute


def parse_equation(node: NodeProto, ranks: list[int]) -> tuple[list[str], str] | None:
    """Parse the equation of an Einsum into the letters of each input and of the output.

    The axes of an ellipsis get Greek letters.

    Args:
        node: an Einsum node.
        ranks: rank of each input.

    Returns:
        The terms of the inputs and the term of the output; ``None`` if a term repeats a letter.
    """
    attribute = read_attribute(node, "equation", b"")
    equation = (attribute.decode() if isinstance(attribute, bytes) else "").replace(" ", "")
    operands, arrow, output = equation.partition("->")
    terms = operands.split(",")
    spare = [max(n - len(t.replace("...", "")), 0) for t, n in zip(terms, ranks, strict=True)]
    dots = [chr(0x391 + n) for n in range(max(spare, default=0))]
    broadcast_ranks = [
        term.replace("...", "".join(dots[len(dots) - n :]))
        for term, n in zip(terms, spare, strict=True)
    ]
    if not arrow:
        letters = "".join(broadcast_ranks)
        output = "".join(sorted(c for c in set(letters) if letters.count(c) == 1 or c in dots))
    output = output.replace("...", "".join(dots))
    if any(len(set(term)) < len(term) for term in (*broadcast_ranks, output)):
        return None
    return broadcast_ranks, output
