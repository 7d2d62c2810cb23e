"""The way of one sample through a model: rows, runs, post-processing, answer. Needs numpy."""

from __future__ import annotations

import contextlib
import importlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.measure.scored_samples import iter_scored_samples
from edgekit_agent.postprocess import DETECTORS, postprocess
from edgekit_agent.prediction import answers
from edgekit_agent.prediction.runs import ModelRunner
from edgekit_agent.prediction.samples import SampleReader
from edgekit_agent.preprocess.texts import load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.model_settings import ModelSettings
    from edgekit_agent.prediction.samples import Prepared
    from edgekit_agent.runtimes import Arrays


@dataclass(frozen=True, eq=False)
class Found:
    """Outputs of a sample, without and with post-processing.

    Attributes:
        outputs: outputs of the last step, without the axis of the samples.
        processed: the same after post-processing.
        frames: the output that is read, for each step of a stream.
        inputs: inputs of the last step.
        states: states after the last step.
        stacking_ms: time of the normalization of the inputs.
    """

    outputs: Arrays = field(default_factory=dict)
    processed: Arrays = field(default_factory=dict)
    frames: List[NDArray[Any]] = field(default_factory=list)
    inputs: Arrays = field(default_factory=dict)
    states: Dict[str, NDArray[Any]] = field(default_factory=dict)
    stacking_ms: float = 0.0


class Predictor:
    """A model with the reader of its samples.

    Args:
        folder: folder of the model.
        settings: its settings.
        threads: threads of the runtime.
        tokenizer: bytes of the tokenizer, if the model takes texts.
    """

    def __init__(
        self, folder: str, settings: ModelSettings, threads: int, tokenizer: Optional[bytes]
    ) -> None:
        self.settings = settings
        self.runner = ModelRunner(folder, settings, threads)
        self._tokenizer = (
            load_tokenizer(tokenizer, "the tokenizer") if tokenizer is not None else None
        )
        if settings.input_kind == "image":
            with contextlib.suppress(ImportError):  # told where an image is read
                importlib.import_module("PIL.Image")
        self.reader = SampleReader(
            settings, self._tokenizer, self.runner.axes, self.runner.sample_tensors
        )

    def run(self, prepared: Prepared, states: Dict[str, NDArray[Any]]) -> Found:
        """Run the model on all steps of a sample.

        Raises:
            AgentError: ``bad_sample``: it does not fit the model; ``model_failed``.
        """
        settings, name = self.settings, self.settings.answer.output
        found = Found(states=states)
        frames: List[NDArray[Any]] = []
        stacking_s = 0.0
        wanted: List[Optional[str]] = []
        if settings.postprocess is not None:
            wanted = list(settings.postprocess.outputs)
        elif settings.answer.kind != "values":
            wanted = [name]
        for rows in prepared.rows:
            start = time.perf_counter()
            inputs = self.runner.stack(rows)
            stacking_s += time.perf_counter() - start
            batch, outputs, states = self.runner.run(inputs, states)
            sample = next(iter_scored_samples(batch, outputs, wanted or list(outputs)))
            raw = {key: value for key, value in sample.outputs.items() if key in outputs}
            frames.append(sample.get_output(name))
            found = Found(outputs=raw, inputs=inputs, states=states)
        return replace(
            found,
            processed=self._postprocess(found.outputs, prepared) if frames else {},
            frames=frames,
            stacking_ms=1e3 * stacking_s,
        )

    def describe(self, prepared: Prepared, found: Found, begin_s: float) -> Dict[str, Any]:
        """Return the answer to a sample.

        Args:
            prepared: the sample.
            found: the outputs.
            begin_s: time at which the sample begins in its stream.
        """
        settings, answer = self.settings, self.settings.answer
        if answer.kind == "decisions":
            return self._describe_decisions(prepared, found, begin_s)
        if answer.kind == "boxes":
            rest = None if self._is_letterboxed() else prepared.pixels
            return answers.describe_boxes(found.processed, settings, rest)
        if answer.kind == "text":
            return answers.describe_text(found.outputs, found.processed, settings)
        if answer.kind == "values":
            fed_back = [state.output for state in settings.feeding.states]
            return answers.describe_values(found.processed, fed_back)
        values = self._select(found.processed, answer.output)
        if answer.kind == "mask":
            is_argmax = settings.postprocess is not None and settings.postprocess.kind == "argmax"
            if is_argmax and answer.class_axis is not None:
                values, is_argmax = self._select(found.outputs, answer.output), False
            return answers.describe_mask(
                values, settings, is_classes=is_argmax, pixels=prepared.pixels
            )
        if answer.kind == "labels":
            return answers.describe_labels(values.reshape(-1), settings)
        if settings.text is not None and settings.text.next_tokens:
            return self._describe_next_token(values, prepared)
        return answers.describe_classes(values.reshape(-1), settings)

    def _is_letterboxed(self) -> bool:
        images = self.settings.images
        return images is not None and images.mode == "letterbox"

    def _postprocess(self, outputs: Arrays, prepared: Prepared) -> Arrays:
        settings, targets = self.settings.postprocess, {}
        if settings is None:
            return outputs
        if prepared.pixels is not None and settings.kind in DETECTORS:
            keeps_aspect = self._is_letterboxed()
            targets = answers.build_letterbox(prepared.pixels, keeps_aspect=keeps_aspect)
        return postprocess(outputs, targets, settings)

    def _describe_decisions(
        self, prepared: Prepared, found: Found, begin_s: float
    ) -> Dict[str, Any]:
        settings, audio = self.settings, self.settings.audio
        if audio is not None and audio.step is not None:
            frames = (
                np.stack([f.reshape(-1) for f in found.frames])
                if found.frames
                else np.zeros((0, 1))
            )
            step_s = audio.step / audio.rate
        else:
            frames = answers.split_frames(
                self._select(found.processed, settings.answer.output), settings.answer
            )
            step_s = (prepared.seconds or 0.0) / max(1, len(frames))
        return answers.describe_decisions(frames, settings, start_s=begin_s, step_s=step_s)

    def _describe_next_token(self, values: NDArray[Any], prepared: Prepared) -> Dict[str, Any]:
        """Return the best token after the text, and the five best ones."""
        rows = values.reshape(-1, values.shape[-1])
        count = min(prepared.tokens or len(rows), len(rows))
        answer = answers.describe_classes(rows[count - 1], self.settings)
        for each in answer["classes"]:
            if self._tokenizer is not None:
                each["label"] = self._tokenizer.decode([each["index"]])
        return {**answer, "result": answer["classes"][0]["label"]}

    def _select(self, outputs: Arrays, name: Optional[str]) -> NDArray[Any]:
        if name is not None and name in outputs:
            return np.asarray(outputs[name])
        if not outputs:
            raise AgentError("model_failed", "the model has no outputs")
        return np.asarray(next(iter(outputs.values())))
