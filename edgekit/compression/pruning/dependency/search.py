"""Search for dependency groups: the atoms that stay free after all operators were visited."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.pruning.dependency.groups import (
    Channels,
    Family,
    FixedPart,
    Group,
    Kind,
    TensorPart,
)
from edgekit.compression.pruning.dependency.ops import RULES
from edgekit.compression.pruning.dependency.propagation import Use, Walk, get_node_name
from edgekit.onnx_graph.shape_tracing import observe_values

# Operators whose output channels are called neurons.
_PRODUCTS = {"MatMul", "Gemm", "Einsum", "FusedMatMul", "FusedGemm"}


def find_channels(
    proto: ModelProto,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    constants: Mapping[str, NDArray[np.generic]] | None = None,
) -> Channels:
    """Find the dependency groups of a graph.

    Args:
        proto: float model, prepared (``rewrite.prepare``) and cleaned; not changed.
        shapes: of the inputs, if those of a sample are known.
        constants: values of inputs that are the same in every run.

    Raises:
        PassRefused: the model runs on no synthetic input.
    """
    walk = Walk(proto=proto, seen=observe_values(proto, shapes, constants))
    walk.run(RULES)
    while True:
        channels = _GroupFinder(walk).channels()
        decisive = channels.lengths.find_decisive_groups()
        if not len(decisive):
            return channels
        for root, number in channels.numbers.items():
            if number in decisive:
                walk.keep(np.array([root]), "all its channels depend on each other")


class _GroupFinder:
    """Collector of the positions in stored tensors by free atom."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.atoms = walk.atoms
        self.places: dict[int, list[TensorPart]] = defaultdict(list)

    def channels(self) -> Channels:
        for use in self.walk.uses:
            self._add_use(use)
        makers = [root for root, places in self.places.items() if _has_maker(places)]
        families = self._find_families(makers)
        free = sorted(root for family in families for root in family)
        numbers = {root: number for number, root in enumerate(free)}
        groups = tuple(
            Group(number=n, places=tuple(self.places[root])) for root, n in numbers.items()
        )
        return Channels(
            proto=self.walk.proto,
            groups=groups,
            families=tuple(self._build_family(roots, numbers) for roots in families),
            fixed=tuple(self._iter_fixed_parts(numbers)),
            walk=self.walk,
            numbers=numbers,
        )

    def _add_use(self, use: Use) -> None:
        distinct, kinds = np.unique(use.labels, return_inverse=True)
        roots: dict[int, list[int]] = defaultdict(list)
        for kind, label in enumerate(distinct.tolist()):
            for root in self.atoms.find_free_roots(label):
                roots[root].append(kind)
        order = np.argsort(kinds, kind="stable")
        starts = np.searchsorted(kinds[order], np.arange(len(distinct) + 1)).tolist()
        for root, found in roots.items():
            parts = [order[starts[kind] : starts[kind + 1]] for kind in found]
            indices = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
            self.places[root].append(
                TensorPart(
                    node=use.node,
                    position=use.position,
                    tensor=use.node.input[use.position],
                    axis=use.axis,
                    indices=indices,
                    role=use.role,
                    value=use.value,
                    value_axis=use.value_axis,
                )
            )

    def _find_families(self, roots: Sequence[int]) -> list[list[int]]:
        """Merge the roots that share a layer's output axis; single roots cannot be removed."""
        wanted = set(roots)
        leader: dict[int, int] = {}

        def lead(of: int) -> int:
            while leader.setdefault(of, of) != of:
                of = leader[of]
            return of

        home: dict[int, int] = {}
        for atom in range(1, len(self.atoms)):
            born = self.atoms.born[atom]
            root = self.atoms.root(atom)
            if born < 0 or root not in wanted:
                continue
            leader[lead(born)] = lead(home.setdefault(root, born))
        gathered: dict[int, list[int]] = defaultdict(list)
        for root in roots:
            if root in home:
                gathered[lead(home[root])].append(root)
        return [each for each in gathered.values() if len(each) > 1]

    def _build_family(self, roots: Sequence[int], numbers: Mapping[int, int]) -> Family:
        first = next(p for p in self.places[roots[0]] if p.role == "makes")
        return Family(
            name=get_node_name(first.node),
            kind=self._classify_family(roots, len(first.indices)),
            groups=tuple(sorted(numbers[root] for root in roots)),
            width=len(first.indices),
        )

    def _classify_family(self, roots: Sequence[int], width: int) -> Kind:
        marks = {self.atoms.kinds.get(root) for root in roots}
        if "heads" in marks and width > 1:
            return "heads"
        makers = {p.node.op_type for p in self.places[roots[0]] if p.role == "makes"}
        return "neurons" if makers <= _PRODUCTS and not marks - {None} else "channels"

    def _iter_fixed_parts(self, numbers: Mapping[int, int]) -> Iterable[FixedPart]:
        """Yield the layers of whose output channels none can be removed."""
        for use in self.walk.uses:
            if use.role != "makes" or not len(use.labels):
                continue
            free = any(
                r in numbers for a in use.labels.tolist() for r in self.atoms.find_free_roots(a)
            )
            if free:
                continue
            reasons = Counter(self.atoms.reason(a) for a in use.labels.tolist())
            reason = reasons.most_common(1)[0][0] or "all its channels depend on each other"
            yield FixedPart(where=get_node_name(use.node), reason=reason)


def _has_maker(places: Sequence[TensorPart]) -> bool:
    return any(place.role == "makes" for place in places)
