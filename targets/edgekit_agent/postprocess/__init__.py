"""Post-processing of a model's outputs by kind: boxes, texts, masks and probabilities.

Evaluation and applications use the same code. Needs numpy; modules are imported when needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Callable, Dict

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Postprocess

    Convert = Callable[["Arrays", "Arrays", "Postprocess"], "Arrays"]

# Module of each kind; it has a table KINDS from the kind to the function.
MODULES: Dict[str, str] = {
    "argmax": "scores",
    "boxes": "detectors",
    "ctc": "texts",
    "distances": "detectors",
    "sigmoid": "scores",
    "softmax": "scores",
    "threshold": "scores",
    "yolov5": "detectors",
    "yolov8": "detectors",
    "yolox": "detectors",
}
# Kinds that make boxes.
DETECTORS = tuple(kind for kind, module in MODULES.items() if module == "detectors")


def postprocess(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Convert the outputs of one sample to what the metric or the application reads.

    Args:
        outputs: outputs of the model by name, without the sample axis.
        targets: targets of the sample by name; empty in an application.
        settings: kind and options.

    Raises:
        AgentError: ``bad_job``; the kind is unknown, or the outputs do not fit it.
    """
    if settings.kind not in MODULES:
        known = ", ".join(sorted(MODULES))
        raise AgentError("bad_job", f"unknown post-processing {settings.kind!r}; known: {known}")
    module = importlib.import_module(f"edgekit_agent.postprocess.{MODULES[settings.kind]}")
    convert: Convert = module.KINDS[settings.kind]
    return convert(outputs, targets, settings)


def select_outputs(outputs: Arrays, settings: Postprocess) -> Arrays:
    """Return the outputs that the settings name, in that order; all without such names.

    Raises:
        AgentError: ``bad_job``; there is no such output.
    """
    missing = [name for name in settings.outputs if name not in outputs]
    if missing:
        raise AgentError(
            "bad_job",
            f"post-processing {settings.kind}: the model has no output {missing[0]!r}, "
            f"only {', '.join(outputs)}",
        )
    return {name: outputs[name] for name in settings.outputs or outputs}
