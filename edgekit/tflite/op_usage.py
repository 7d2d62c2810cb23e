"""Types, shapes and scales of an operator, as the op version rules ask for them."""

from __future__ import annotations

from typing import Any

from edgekit.tflite.ir import Op


class OpUse:
    """An operator with the facts about its tensors that determine its op version."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.inputs = [t for t in op.inputs if t is not None]

    def type(self, position: int) -> str | None:
        """Return the type of an input; ``None`` where it is left out."""
        tensor = self.op.inputs[position] if position < len(self.op.inputs) else None
        return None if tensor is None else tensor.dtype

    @property
    def types(self) -> tuple[str, str]:
        """Return the types of the first two inputs; empty where one is left out."""
        return self.type(0) or "", self.type(1) or ""

    @property
    def out(self) -> str | None:
        """Return the type of the first output."""
        return self.op.outputs[0].dtype if self.op.outputs else None

    @property
    def rank(self) -> int:
        """Return the highest rank among the inputs."""
        return max((len(t.shape) for t in self.inputs), default=0)

    @property
    def broadcasts(self) -> bool:
        """Return whether the first two inputs differ in shape."""
        return len(self.inputs) > 1 and self.inputs[0].shape != self.inputs[1].shape

    @property
    def hybrid(self) -> bool:
        """Return whether float activations are combined with int8 weights (a hybrid kernel)."""
        return (self.type(0), self.type(1), self.out) == ("float32", "int8", "float32")

    def scales(self, position: int) -> int:
        """Return the number of scales of an input."""
        tensor = self.op.inputs[position] if position < len(self.op.inputs) else None
        parameters = None if tensor is None else tensor.quantization
        return 0 if parameters is None else len(parameters.scales)

    def option(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - of any type
        """Return the value of an option; the default where it is absent."""
        return self.op.options.get(key, default)
