"""Write a model in 8 bits on trial, and see how far its outputs are from those in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, ValueInfoProto

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.placement import place
from edgekit.passes.activations import PER_VALUE
from edgekit.passes.affine import Affine
from edgekit.passes.bias_correction import Shifts, apply_shifts
from edgekit.passes.judge import judged_outputs, output_error
from edgekit.passes.qdq import Writer
from edgekit_agent.records import Samples

# How much better one estimator for all values must be to be taken over one for each.
_BETTER = 0.8
_FILE = "trial.onnx"


def written(
    index: GraphIndex, parameters: Mapping[str, Affine], shifts: Shifts, largest: int
) -> ModelProto:
    """A copy of the model in 8 bits; what is not quantised stays offloaded.

    Args:
        index: of the float model; not changed.
        parameters: of every value that becomes 8-bit.
        shifts: bias corrections.
        largest: magnitude of the largest weight.
    """
    copy = ModelProto()
    copy.CopyFrom(index.proto)
    edited = GraphIndex(copy, index.folder)
    apply_shifts(edited, place(edited), shifts)
    edited = GraphIndex(copy, index.folder)
    return Writer(edited, place(edited), dict(parameters), largest=largest).write()


class Trials:
    """Judges 8-bit versions of one model by their outputs on a few samples."""

    def __init__(self, index: GraphIndex, largest: int, judging: Sequence[Samples]) -> None:
        self.index = index
        self.largest = largest
        self.samples = judging

    def error(self, parameters: Mapping[str, Affine], shifts: Shifts) -> float:
        """Squared error of the outputs over their size."""
        if self.index.folder is None:
            raise ValueError("the weights are not offloaded")
        path = self.index.folder / _FILE
        made = written(self.index, parameters, shifts, self.largest)
        judged = judged_outputs(made)
        known = {v.name for v in (*made.graph.output, *made.graph.input)}
        made.graph.output.extend(ValueInfoProto(name=n) for n in judged if n not in known)
        path.write_bytes(made.SerializeToString())
        try:
            return output_error(self.index, path, judged, self.samples)
        finally:
            path.unlink()

    def best(self, choices: Mapping[str, Mapping[str, Affine]]) -> dict[str, Affine]:
        """The choice with the least error; one for each value unless another is clearly better."""
        distinct: dict[tuple[Affine, ...], str] = {}
        for label, each in choices.items():
            distinct[tuple(each.values())] = label  # the last is the one for each value
        if len(distinct) == 1:
            return dict(next(iter(choices.values())))
        errors = {
            label: self.error(choices[label], {}) * (_BETTER if label == PER_VALUE else 1)
            for label in distinct.values()
        }
        return dict(choices[min(errors, key=errors.__getitem__)])
