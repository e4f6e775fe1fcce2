"""What is kept of a step that was refused: enough to take it again, here or elsewhere."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from litlab.runs.checkpoint.io import KEY, OTHER, read, write
from litlab.runs.checkpoint.metadata import CheckpointMetadata, Loaded, unpack
from litlab.training.callbacks.nan_guard import StepInputs
from litlab.utils.errors import CheckpointError, LitlabError
from litlab.utils.output import command
from litlab.utils.paths import runs_folder, short

NAME = "capsule.ckpt"
CONTENT = "capsule"


@dataclass(frozen=True)
class FailedStep:
    """A refused step.

    Attributes:
        loaded: The run's configuration and data, and the weights before the step.
        what: What was not finite.
        step: How many optimizer steps had been taken.
        batches: Inputs and targets as the model got them; several where gradients accumulate.
        rng: torch's random state on the CPU (and the GPU) before each of them.
    """

    loaded: Loaded
    what: str
    step: int
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    rng: list[list[torch.Tensor]]


class FailedStepWriter:
    """Writes the capsule of a run, `capsule.ckpt`, beside its checkpoints.

    Args:
        metadata: What the run is of.
        folder: The run's.
    """

    def __init__(self, metadata: CheckpointMetadata, folder: Path) -> None:
        self.metadata, self.folder = metadata, folder

    def __call__(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        inputs: Sequence[StepInputs],
        what: str,
        step: int,
    ) -> str:
        """Write the step down; return where, for the error's line.

        A capsule that cannot be written is a warning: what the user is to see is the error.
        """
        weights = task.state_dict()
        content = {
            "state_dict": weights,
            KEY: self.metadata.as_written(trainer.current_epoch, step, weights),
            CONTENT: {
                "what": what,
                "batches": [[part.detach() for part in one.batch[:2]] for one in inputs],
                "rng": [one.rng for one in inputs],
            },
        }
        name = NAME if trainer.global_rank == 0 else f"capsule-{trainer.global_rank}.ckpt"
        path = self.folder / name
        try:
            write(content, path)
        except LitlabError as error:
            warnings.warn(f"no capsule was kept: {error.what}", stacklevel=2)
            return "training"
        return f"kept for `{command('replay', short(path), trust=self.metadata.config.trust)}`"


def _named(name: str) -> Path:
    folders = {path.parent for path in runs_folder().glob("*/capsule*.ckpt")}
    if name == "last" and folders:
        return max(folders, key=lambda folder: folder.stat().st_mtime)
    return runs_folder() / name


def _of_run(folder: Path) -> Path:
    """Return a run's capsule: of several processes' that whose own loss was not finite.

    Raises:
        CheckpointError: It has none.
    """
    found = sorted(folder.glob("capsule*.ckpt"))
    if not found:
        fix = "a run leaves one when it ends with exit code 6"
        raise CheckpointError("this run has no capsule", short(folder), fix)
    own = [path for path in found if "loss" in str(_kept(read(path), path).get("what"))]
    return (own or found)[0]


def open_capsule(path: Path, trust: Sequence[str] = ()) -> FailedStep:
    """Read a capsule.

    Args:
        path: The file, or the folder of the run that left it.
        trust: Packages of the user's own that it may name.

    Raises:
        CheckpointError: There is none, it is damaged, or it is a checkpoint of another kind.
    """
    if not path.exists():  # a run by its name, or the last one
        path = _named(str(path))
    file = _of_run(path) if path.is_dir() else path
    content = read(file)
    loaded = unpack(content, file, trust)
    try:
        kept = _Kept.model_validate(_kept(content, file))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        what = f"not a whole capsule: {place}: {first['msg']}"
        raise CheckpointError(what, str(file), OTHER) from None
    batches = [(x, y) for x, y in kept.batches]
    return FailedStep(loaded, kept.what, content[KEY]["step"], batches, kept.rng)


def _kept(content: dict[str, Any], file: Path) -> dict[str, Any]:
    kept = content.get(CONTENT)
    if not isinstance(kept, dict):
        fix = f"name a {NAME}, which a run leaves that ended with exit code 6"
        raise CheckpointError("a checkpoint, not a capsule", str(file), fix)
    return kept


class _Kept(BaseModel):
    """A capsule's content as it lies in the file."""

    model_config = ConfigDict(arbitrary_types_allowed=True, strict=True)

    what: str
    batches: list[Annotated[list[torch.Tensor], Field(min_length=2, max_length=2)]] = Field(
        min_length=1
    )
    rng: list[Annotated[list[torch.Tensor], Field(min_length=1)]]

    @model_validator(mode="after")
    def _as_many(self) -> "_Kept":
        if len(self.rng) != len(self.batches):
            raise ValueError("as many random states as batches are needed")
        return self
