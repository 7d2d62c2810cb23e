"""Conversion rule of Einsum: transposes, reductions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value, plain_order
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary, reduce_axes
from edgekit.conversion.onnx_to_tflite.ops.products import multiply
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Term:
    """Tensor with one letter of the equation for each of its axes."""

    tensor: Tensor
    letters: str

    def size(self, letter: str) -> int:
        return self.tensor.shape[self.letters.index(letter)]


def einsum(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Einsum of any number of operands; ellipses are allowed, diagonals are not."""
    equation = get_attribute(node, "equation").replace(" ", "")
    tensors = [builder.plain(node, position) for position in range(len(node.input))]
    names, out = _parse_equation(equation, [len(t.shape) for t in tensors])
    if any(len(set(letters)) < len(letters) for letters in names):
        raise builder.refusal(node, "repeats an index in one operand (a diagonal)")
    terms = [_Term(tensor=t, letters=n) for t, n in zip(tensors, names, strict=True)]
    result = terms[0]
    for position, term in enumerate(terms[1:], start=1):
        later = {letter for rest in terms[position + 1 :] for letter in rest.letters}
        result = _contract(builder, result, term, kept_letters=later | set(out))
    result = _sum_out(builder, result, set(out))
    perm = tuple(result.letters.index(letter) for letter in out)
    builder.bind(node, _permute(builder, result.tensor, perm))


def _parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Parse the letters of each term and of the output; capital Greek ones replace an ellipsis."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    most = max(
        (rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True)), default=0
    )
    dots = "".join(chr(0x391 + position) for position in range(most))
    names: list[str] = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        names.append(term.replace("...", dots[most - count :]))
    if arrow:
        return names, right.replace("...", dots)
    every = "".join(names)
    once = sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)
    return names, (dots if "..." in left else "") + "".join(once)


def _permute(builder: TfliteGraphBuilder, tensor: Tensor, perm: tuple[int, ...]) -> Tensor:
    return tensor if perm == plain_order(len(perm)) else builder.transpose(tensor, perm)


def _sum_out(builder: TfliteGraphBuilder, term: _Term, kept_letters: set[str]) -> _Term:
    """Sum a term over the letters that are not kept."""
    axes = [axis for axis, letter in enumerate(term.letters) if letter not in kept_letters]
    letters = "".join(letter for letter in term.letters if letter in kept_letters)
    return _Term(tensor=reduce_axes(builder, "SUM", term.tensor, axes, keep=False), letters=letters)


def _contract(
    builder: TfliteGraphBuilder, left: _Term, right: _Term, *, kept_letters: set[str]
) -> _Term:
    """Contract two terms by a matrix product over shared letters that nothing else needs."""
    left = _sum_out(builder, left, kept_letters | set(right.letters))
    right = _sum_out(builder, right, kept_letters | set(left.letters))
    both = [letter for letter in left.letters if letter in right.letters]
    batch = "".join(letter for letter in both if letter in kept_letters)
    inner = "".join(letter for letter in both if letter not in kept_letters)
    rows = "".join(letter for letter in left.letters if letter not in both)
    columns = "".join(letter for letter in right.letters if letter not in both)
    letters = batch + rows + columns
    if not inner or any(left.size(c) != right.size(c) for c in both):
        return _contract_by_broadcasting(
            builder, left, right, batch + rows + columns + inner, inner
        )
    a = _to_matrices(builder, left, batch, rows, inner)
    b = _to_matrices(builder, right, batch, inner, columns)
    result, order = multiply(builder, a, b)
    tensor = builder.to_order(Value(tensor=result, order=order), None)
    sizes = [left.size(c) if c in left.letters else right.size(c) for c in letters]
    return _Term(tensor=builder.reshape(tensor, tuple(sizes)), letters=letters)


def _to_matrices(
    builder: TfliteGraphBuilder, term: _Term, batch: str, rows: str, columns: str
) -> Value:
    letters = batch + rows + columns
    tensor = _permute(builder, term.tensor, tuple(term.letters.index(c) for c in letters))
    shape = (
        *(term.size(c) for c in batch),
        int(np.prod([term.size(c) for c in rows])),
        int(np.prod([term.size(c) for c in columns])),
    )
    return Value(tensor=builder.reshape(tensor, shape), order=plain_order(len(shape)))


def _contract_by_broadcasting(
    builder: TfliteGraphBuilder, left: _Term, right: _Term, letters: str, inner: str
) -> _Term:
    """Multiply two terms by broadcasting, then sum over the inner letters."""
    sides: list[Tensor] = []
    for term in (left, right):
        present = [c for c in letters if c in term.letters]
        tensor = _permute(builder, term.tensor, tuple(term.letters.index(c) for c in present))
        shape = tuple(term.size(c) if c in term.letters else 1 for c in letters)
        sides.append(builder.reshape(tensor, shape))
    result = _Term(tensor=emit_binary(builder, "MUL", *sides), letters=letters)
    return _sum_out(builder, result, set(letters) - set(inner))


RULES = {"Einsum": einsum}
