"""Timed choice between static and dynamic quantization for each MatMul and Gemm."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import onnxruntime as ort
from onnx import ModelProto

from edgekit.compression.checks.contract_inputs import iter_probes
from edgekit.compression.checks.timing import measure_time_ratio
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.calibration.trial_models import Version, write_version
from edgekit.compression.quantization.dynamic_products import make_products_dynamic
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import open_session
from edgekit.onnx_graph.operators import MATRIX_OPS
from edgekit.onnx_graph.qdq_placement import WeightedNode, plan_placement

# More products than this take too long to try one by one.
_MOST_LAYERS = 24
# A version counts as faster below this part of the other's time.
_FASTER = 0.95
_FILE = "products.onnx"


class ProductTrials:
    """Versions of a static int8 model with some products quantized at run time, timed here.

    Products between recurrent layers often have few rows and no quantized neighbors. Then integer
    arithmetic saves less time than their QuantizeLinear and DequantizeLinear take.

    Args:
        index: the float model, its weights offloaded.
        version: the choices of the static 8-bit version.
        largest: magnitude of the largest integer weight.
    """

    def __init__(self, index: GraphIndex, version: Version, largest: int) -> None:
        self.index = index
        self.version = version
        self.largest = largest

    def write(self, dynamic: frozenset[str]) -> ModelProto:
        """Write the 8-bit model with the given products quantized at run time."""
        in_float = self.version.in_float | dynamic
        version = dataclasses.replace(self.version, in_float=in_float)
        made = write_version(self.index, version, self.largest)
        if dynamic:
            make_products_dynamic(made, self.largest, only=dynamic, folder=self.index.folder)
        return made

    def find_fastest(self, model: Model, work: Work) -> ModelProto:
        """Search for the fastest version: all static, all dynamic, or some products dynamic.

        Args:
            model: the source file, for the inputs to feed.
            work: work of the pass; gets a note of the products that are quantized at run time.
        """
        products = self._list_products()
        names = [w.node.output[0] for w in products]
        static = self.write(frozenset())
        if not names or len(names) > _MOST_LAYERS:
            return static
        feed = dict(
            next(iter_probes(model, work.calibration, seed=work.seed, feeding=work.feeding)).feed
        )
        chosen: frozenset[str] = frozenset()
        best = self._open_session(static)
        tried = [frozenset(names)] if len(names) > 1 else []
        for number, other in enumerate([*tried, *names]):
            work.progress("comparing static and dynamic", number, len(names) + len(tried))
            changed = other if isinstance(other, frozenset) else chosen ^ {other}
            session = self._open_session(self.write(changed))
            if (
                measure_time_ratio(partial(best.run, None, feed), partial(session.run, None, feed))
                < _FASTER
            ):
                chosen, best = changed, session
        if not chosen:
            return static
        told = [w.node.name or w.node.output[0] for w in products if w.node.output[0] in chosen]
        work.note(
            "activations quantized at run time, as that is faster on this machine: "
            f"{', '.join(told)}"
        )
        return self.write(chosen)

    def _list_products(self) -> list[WeightedNode]:
        placement = plan_placement(self.index, self.version.in_float)
        return [w for w in placement.weighted if w.node.op_type in MATRIX_OPS]

    def _open_session(self, made: ModelProto) -> ort.InferenceSession:
        path = self._folder / _FILE
        path.write_bytes(made.SerializeToString())
        try:
            return open_session(path)
        finally:
            path.unlink()

    @property
    def _folder(self) -> Path:
        if self.index.folder is None:
            raise ValueError("the weights are not offloaded")
        return self.index.folder
