"""Models of a ``[pipeline]`` with the function that combines them."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.config.entry_points import find_member, search_modules_in
from edgekit.config.profile import get_runtime
from edgekit.config.user_modules import find_files, hash_files, import_fresh, read_code
from edgekit.data.dataset import Dataset
from edgekit.errors import UserError
from edgekit.model import Model, TensorSpec
from edgekit_agent.measure.combined_model import CombinedModel, Listener, load_combined_model
from edgekit_agent.samples import Samples
from edgekit_agent.worker_jobs import Combination, ModelRef, NamedModel, NamedType
from edgekit_agent.worker_results import Tally


@dataclass(frozen=True, kw_only=True)
class CombinedModels:
    """Models by name, and the function that combines them to one answer for each sample.

    Attributes:
        run: The function, as ``module:function``.
        folder: Folder of the project.
        files: Files that define the function.
        code_digest: Digest of these files.
        models: The models by name, in the order in which they are compressed.
        inputs: Arrays of a sample; the first axis is that of the samples.
    """

    run: str
    folder: Path
    files: tuple[Path, ...]
    code_digest: str
    models: Mapping[str, Model]
    inputs: tuple[TensorSpec, ...]

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides the outputs."""
        digests = {name: model.digest for name, model in self.models.items()}
        facts = [self.run, self.code_digest, digests, [str(spec) for spec in self.inputs]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def display_name(self) -> str:
        """Return the name of the function."""
        return self.run

    def with_model(self, name: str, model: Model) -> CombinedModels:
        """Return the same combination with another model under a name."""
        return replace(self, models={**self.models, name: model})

    def to_job(
        self, refer: Callable[[Model], ModelRef], *, sends_code: bool = False
    ) -> Combination:
        """Return the combination for the agent.

        Args:
            refer: Makes the reference to a model for the agent.
            sends_code: Whether the files of the function are sent, as the agent is on a device.
        """
        files = read_code(self.run, self.files, self.folder) if sends_code else ()
        return Combination(
            run=self.run,
            folder="" if sends_code else str(self.folder.resolve()),
            files=files,
            models=tuple(NamedModel(name, refer(model)) for name, model in self.models.items()),
            inputs=tuple(NamedType(spec.name, spec.dtype) for spec in self.inputs),
        )

    def load(
        self, samples: Samples, threads: int, listeners: Mapping[str, Listener] | None = None
    ) -> CombinedModel:
        """Load all models in this process.

        Args:
            samples: Samples that they will be run on.
            threads: Threads of each model.
            listeners: Called with the inputs of each run of a model, by its name.

        Raises:
            AgentError: A model cannot be loaded.
            UserError: The function cannot be imported.
        """
        check_function(self.run, self.folder)  # imports it again if its file has changed
        job = self.to_job(lambda m: ModelRef(str(m.path.resolve()), get_runtime(m), threads))
        return load_combined_model(job, samples, listeners)


@dataclass(frozen=True, kw_only=True)
class CombinedPart:
    """One model of a combination, which is compressed while the others stay as they are.

    Attributes:
        name: Name of the model.
        originals: The combination of all originals.
        combined: The combination, with the compressed models of earlier parts.
        samples: Inputs that the model gets when the combination runs on samples.
        calls: Mean number of runs of the model for each sample.
        on_device: Whether the function runs on the device too.
        reference: Statistics of the combination of all originals; ``None`` while all other models
            are originals.
    """

    name: str
    originals: CombinedModels
    combined: CombinedModels
    samples: Dataset
    calls: float
    on_device: bool = False
    reference: Tally | None = None

    def with_model(self, model: Model) -> CombinedModels:
        """Return the combination with a candidate in the place of this model."""
        return self.combined.with_model(self.name, model)

    @property
    def digest(self) -> str:
        """Return a digest of everything besides the model itself that decides the outputs."""
        others = {n: m for n, m in self.combined.models.items() if n != self.name}
        return f"{self.name} {replace(self.combined, models=others).digest}"


def check_function(run: str, folder: Path) -> tuple[tuple[Path, ...], str]:
    """Import the function that combines models, and check that it takes models and a sample.

    Args:
        run: ``module:function``.
        folder: Folder of the project.

    Returns:
        The files that define it, and a digest of them.

    Raises:
        UserError: There is no such function, or it takes other arguments.
    """
    base = folder.resolve()
    with search_modules_in(base):
        module = import_fresh(run, base)
        function = find_member(run, module)
    if not callable(function):
        raise UserError(f"{run}: {type(function).__name__} is not a function")
    try:
        inspect.signature(function).bind({}, {})
    except TypeError as error:
        raise UserError(
            f"{run}: must take the arguments (models, sample): {error}",
            hint="def run(models, sample): the models by name, and the arrays of a sample by name; "
            "return the outputs by name",
        ) from error
    except ValueError:
        pass  # written in C: it states no arguments
    files = find_files(module, base, function)
    return files, hash_files(files)
