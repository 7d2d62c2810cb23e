"""An operator in its place: its types, shapes and scales, as rules on versions ask for them."""

from __future__ import annotations

from typing import Any

from edgekit.bridge.graph import Op


class Use:
    """What the rules ask of an operator in its place."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.inputs = [t for t in op.inputs if t is not None]

    def type(self, place: int) -> str | None:
        """The type of an input; ``None`` where it is left out."""
        tensor = self.op.inputs[place] if place < len(self.op.inputs) else None
        return None if tensor is None else tensor.dtype

    @property
    def types(self) -> tuple[str, str]:
        """The types of the first two inputs; empty where one is left out."""
        return self.type(0) or "", self.type(1) or ""

    @property
    def out(self) -> str | None:
        """The type of the first result."""
        return self.op.outputs[0].dtype if self.op.outputs else None

    @property
    def rank(self) -> int:
        """The most axes that an input has."""
        return max((len(t.shape) for t in self.inputs), default=0)

    @property
    def broadcasts(self) -> bool:
        """Whether the first two inputs differ in shape."""
        return len(self.inputs) > 1 and self.inputs[0].shape != self.inputs[1].shape

    @property
    def hybrid(self) -> bool:
        """Whether float activations meet 8-bit weights."""
        return (self.type(0), self.type(1), self.out) == ("float32", "int8", "float32")

    def scales(self, place: int) -> int:
        """How many scales an input has."""
        tensor = self.op.inputs[place] if place < len(self.op.inputs) else None
        parameters = None if tensor is None else tensor.quantization
        return 0 if parameters is None else len(parameters.scales)

    def option(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - of any type
        """The value of an option, or the schema's default."""
        return self.op.options.get(key, default)
