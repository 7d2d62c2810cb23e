"""LiteRT (TensorFlow Lite) on the CPU: ai-edge-litert, or the older tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.runtimes import PACKAGES, Package, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays


def _find_package() -> Package:
    # The order of sys.path counts first: a job's own site comes first there and must win.
    packages = [p for p in PACKAGES if p.runtime == "litert"]
    for folder in sys.path:
        for package in packages:
            if importlib.machinery.PathFinder.find_spec(package.module, [folder]) is not None:
                return package
    raise ImportError(f"neither {' nor '.join(p.distribution for p in packages)} is installed")


_PACKAGE = _find_package()
_interpreter: Any = importlib.import_module(f"{_PACKAGE.module}.interpreter")


@dataclass(frozen=True)
class _Slot:
    """A tensor of the interpreter: its index, stored type, and quantization parameters."""

    tensor: Tensor
    index: int
    stored: np.dtype[Any]
    scale: Optional[float]
    zero_point: int

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.scale is None or values.dtype == self.stored:
            return values
        limits = np.iinfo(self.stored)
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        stored: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.stored)
        return stored

    def real(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.scale is None:
            return values
        steps = values.astype(np.float32) - np.float32(self.zero_point)
        return steps * np.float32(self.scale)


class LitertModel:
    """A LiteRT interpreter; see ``edgekit_agent.runtimes.LoadedModel``.

    A quantized input or output is float32 to the caller and converted with the file's own
    parameters; an input may also be fed with the stored integers themselves.
    """

    version: str = importlib.metadata.version(_PACKAGE.distribution)

    def __init__(
        self,
        interpreter: Any,  # noqa: ANN401 - litert has no types
        free: Optional[Mapping[int, Tuple[int, ...]]] = None,
    ) -> None:
        """Wrap an interpreter whose tensors are allocated.

        Args:
            interpreter: the interpreter.
            free: free axes by tensor index, for a file that does not declare them as free.
        """
        self._interpreter = interpreter
        self._strict = free is None
        inputs, outputs = _name_details(interpreter)
        self._inputs = {name: _make_slot(name, details, free) for name, details in inputs.items()}
        self._outputs = {name: _make_slot(name, details, free) for name, details in outputs.items()}
        self.inputs = tuple(slot.tensor for slot in self._inputs.values())
        self.outputs = tuple(slot.tensor for slot in self._outputs.values())
        self._shapes = {n: tuple(int(d) for d in v["shape"]) for n, v in inputs.items()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run one inference."""
        try:
            self._resize(inputs)
            for name, values in inputs.items():
                slot = self._inputs[name]
                self._interpreter.set_tensor(slot.index, slot.quantize(values))
            self._interpreter.invoke()
            get = self._interpreter.get_tensor
            return {name: slot.real(get(slot.index)) for name, slot in self._outputs.items()}
        except (RuntimeError, ValueError) as error:
            raise AgentError("model_failed", f"litert: {error}") from error

    def _resize(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        changed = [name for name, v in inputs.items() if v.shape != self._shapes[name]]
        for name in changed:
            slot = self._inputs[name]
            shape = inputs[name].shape
            self._interpreter.resize_tensor_input(slot.index, shape, strict=self._strict)
            self._shapes[name] = inputs[name].shape
        if changed:
            self._interpreter.allocate_tensors()


def load(path: str, threads: int) -> LitertModel:
    """Load a .tflite file.

    Raises:
        FileNotFoundError: there is no such file.
        AgentError: ``model_failed``; the runtime refuses it.
    """
    with open(path, "rb"):
        pass  # raises FileNotFoundError, unlike litert
    try:
        interpreter = _interpreter.Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        resized = _load_resized(path, threads)
        if resized is not None:
            return resized
        raise AgentError(
            "model_failed",
            f"{_PACKAGE.distribution} {LitertModel.version} cannot load {path}: {error}",
            hint="the model may use an operator that this runtime lacks",
        ) from error
    return LitertModel(interpreter)


# Sizes tried instead of 1: images, windows of features, a second of sound.
_TRIAL_SIZES = (32, 96, 224, 512, 16000)
# Axes that may have to be resized, by rank of the input: neither batch nor channels.
_RESIZABLE = {1: (0,), 2: (1,), 3: (1,), 4: (1, 2), 5: (1, 2, 3)}


def _load_resized(path: str, threads: int) -> Optional[LitertModel]:
    """Load a file whose inputs of size 1 have to be resized; ``None`` if no trial size works.

    Its operators refuse inputs of the sizes in the file.
    """
    for size in _TRIAL_SIZES:
        try:
            interpreter = _interpreter.Interpreter(model_path=path, num_threads=threads)
        except (RuntimeError, ValueError):
            return None
        stated = {
            int(one["index"]): _read_stated_shape(one)
            for one in (*interpreter.get_input_details(), *interpreter.get_output_details())
        }
        free = {
            int(one["index"]): _find_placeholders(_read_stated_shape(one))
            for one in interpreter.get_input_details()
        }
        if not any(free.values()):
            return None
        try:
            for index, axes in free.items():
                shape = [size if axis in axes else abs(n) for axis, n in enumerate(stated[index])]
                interpreter.resize_tensor_input(index, shape, strict=False)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError):
            continue
        for one in interpreter.get_output_details():
            pairs = zip(one["shape"], stated[int(one["index"])])
            changed = tuple(axis for axis, (n, was) in enumerate(pairs) if int(n) != was)
            free[int(one["index"])] = changed
        return LitertModel(interpreter, free)
    return None


def _read_stated_shape(details: Dict[str, Any]) -> Tuple[int, ...]:
    """Return the shape in the file, -1 where it declares a dimension as free."""
    return tuple(int(n) for n in details.get("shape_signature", details["shape"]))


def _find_placeholders(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    resizable = _RESIZABLE.get(len(shape), ())
    return tuple(a for a, n in enumerate(shape) if n < 0 or (n == 1 and a in resizable))


def _name_details(
    interpreter: Any,  # noqa: ANN401 - litert has no types
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return details of inputs and outputs by signature name, else tensor name, in file order."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        by_name = runner.get_input_details(), runner.get_output_details()
        if _sort_indices(by_name[0].values()) == _sort_indices(inputs):
            return _sort_by_graph(by_name[0], inputs), _sort_by_graph(by_name[1], outputs)
    return (
        {_strip_name(details["name"]): details for details in inputs},
        {_strip_name(details["name"]): details for details in outputs},
    )


def _sort_by_graph(by_name: Dict[str, Any], listed: List[Any]) -> Dict[str, Any]:
    """Sort named details in the order of the graph; a signature sorts them by name."""
    indices = [int(one["index"]) for one in listed]
    pairs = sorted(by_name.items(), key=lambda pair: indices.index(int(pair[1]["index"])))
    return dict(pairs)


def _sort_indices(details: Any) -> List[int]:  # noqa: ANN401 - litert has no types
    return sorted(int(one["index"]) for one in details)


def _strip_name(name: str) -> str:
    start = len("serving_default_") if name.startswith("serving_default_") else 0
    return name[start:-2] if name.endswith(":0") else name[start:]


def _make_slot(
    name: str, details: Dict[str, Any], free: Optional[Mapping[int, Tuple[int, ...]]]
) -> _Slot:
    stored = np.dtype(details["dtype"])
    parameters = details["quantization_parameters"]
    scales, zeros = parameters["scales"], parameters["zero_points"]
    quantized = stored.kind in "iu" and len(scales) == 1 and float(scales[0]) != 0.0
    fixed = zip(details["shape"], details.get("shape_signature", details["shape"]))
    open_axes = (free or {}).get(int(details["index"]), ())
    shape = tuple(
        "?" if int(size) < 0 or axis in open_axes else int(dim)
        for axis, (dim, size) in enumerate(fixed)
    )
    return _Slot(
        tensor=Tensor(name, "float32" if quantized else stored.name, shape),
        index=int(details["index"]),
        stored=stored,
        scale=float(scales[0]) if quantized else None,
        zero_point=int(zeros[0]) if quantized else 0,
    )
