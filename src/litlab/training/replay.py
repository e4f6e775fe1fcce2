"""Saves a step that was not finite, and repeats it to show where NaN appears first."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from litlab.config.compose import untrusted
from litlab.config.constraints import GIVEN
from litlab.evaluation.inference import rebuild
from litlab.runs.checkpoint.io import KEY, OTHER, read, write
from litlab.runs.checkpoint.metadata import CheckpointMetadata, Loaded, load_weights, unpack
from litlab.tasks.task import Task
from litlab.training.callbacks.nan_guard import StepInputs
from litlab.training.freeze import frozen_names, frozen_norms
from litlab.utils.errors import CheckpointError, LitlabError
from litlab.utils.output import command
from litlab.utils.paths import runs_folder, short

NAME = "failed-step.ckpt"
CONTENT = "failed_step"
# What earlier versions called the file and its content.
OLD_PATTERN, OLD_CONTENT = "capsule*.ckpt", "capsule"


@dataclass(frozen=True)
class FailedStep:
    """A step that was refused because something was not finite.

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
    """Writes a run's failed step, `failed-step.ckpt`, beside its checkpoints.

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
        """Write the step; return where it is, for the error's line.

        If it cannot be written, that is a warning: the user must see the error itself.
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
        name = NAME if trainer.global_rank == 0 else f"failed-step-{trainer.global_rank}.ckpt"
        path = self.folder / name
        try:
            write(content, path)
        except LitlabError as error:
            warnings.warn(f"the failed step was not saved: {error.what}", stacklevel=2)
            return "training"
        config = self.metadata.config
        if config.task["_target_"] == GIVEN:  # no command can build it
            return f"saved for {_in_python(path)}"
        return f"saved for `{command('replay', short(path), trust=untrusted(config.trust))}`"


def _in_python(path: Path) -> str:
    return f"litlab.training.replay.replay({short(path)!r}, task=...)"


def _named(name: str) -> Path:
    folders = {folder for folder in runs_folder().glob("*") if _files(folder)}
    if name == "last" and folders:
        return max(folders, key=lambda folder: folder.stat().st_mtime)
    return runs_folder() / name


def _files(folder: Path) -> list[Path]:
    """Return the failed steps in a run's folder, one per process."""
    return sorted([*folder.glob("failed-step*.ckpt"), *folder.glob(OLD_PATTERN)])


def _of_run(folder: Path) -> Path:
    """Return a run's failed step: of several processes' that whose own loss was not finite.

    Raises:
        CheckpointError: It has none.
    """
    found = _files(folder)
    if not found:
        fix = "name a run that ended with exit code 6"
        raise CheckpointError("this run has no failed step", short(folder), fix)
    own = [path for path in found if "loss" in str(_kept(read(path), path).get("what"))]
    return (own or found)[0]


def load_failed_step(path: Path, trust: Sequence[str] = ()) -> FailedStep:
    """Read a failed step.

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
        what = f"an incomplete failed step: {place}: {first['msg']}"
        raise CheckpointError(what, str(file), OTHER) from None
    batches = [(x, y) for x, y in kept.batches]
    return FailedStep(loaded, kept.what, content[KEY]["step"], batches, kept.rng)


def _kept(content: dict[str, Any], file: Path) -> dict[str, Any]:
    kept = content.get(CONTENT, content.get(OLD_CONTENT))
    if not isinstance(kept, dict):
        fix = f"name the {NAME} of a run that ended with exit code 6"
        raise CheckpointError("a checkpoint, not a failed step", str(file), fix)
    return kept


class _Kept(BaseModel):
    """The content of the file."""

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


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
TYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


@dataclass
class Replay:
    """What the step did this time.

    Attributes:
        what: What the run had found.
        epoch: When, from 0.
        step: After how many optimizer steps.
        loss: Of the step, the mean over its batches.
        first: The first layer whose output is not finite, and how much of it; empty if all are.
        gradients: Names of parameters whose gradient is not finite.
        inputs: The batch: its shape and range.
        weights: The largest weight before the step, and whether all were finite.
    """

    what: str
    epoch: int
    step: int
    loss: float = math.nan
    first: str = ""
    gradients: list[str] = field(default_factory=list)
    inputs: str = ""
    weights: str = ""

    @property
    def reproduced(self) -> bool:
        """Whether it was not finite again."""
        return bool(self.gradients) or not math.isfinite(self.loss)


def replay(path: Path | str, trust: Sequence[str] = (), *, task: Task | None = None) -> Replay:
    """Repeat a failed step on the CPU: forward and backward, not the optimizer.

    Args:
        path: The file, or the folder of the run that left it.
        trust: Packages of the user's own that it may name.
        task: The task that the run trained, where it was given to `litlab.train`.

    Raises:
        CheckpointError: It cannot be read, or its task was made in Python and is not given.
    """
    path = Path(path)
    failed = load_failed_step(path, trust)
    made = failed.loaded.metadata.config.task
    if made["_target_"] != GIVEN:
        task = rebuild(failed.loaded, path)
    elif task is None:
        what = f"its task, {made['name']}, was an object of Python"
        raise CheckpointError(what, str(path), f"make it again, and call {_in_python(path)}")
    else:
        load_weights(task, failed.loaded.weights, path)
    try:
        return _repeat(task, failed)
    except LitlabError:
        raise
    except Exception as error:  # batches may have any shape
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"its step cannot be repeated: {reason}", str(path), OTHER) from error


def _repeat(task: Any, failed: FailedStep) -> Replay:
    loaded = failed.loaded
    trainer = loaded.metadata.config.trainer
    thawed = trainer.unfreeze_epoch is not None and loaded.epoch >= trainer.unfreeze_epoch
    frozen = set() if thawed else frozen_names(task.model, trainer.freeze)
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    task.train()
    for norm in frozen_norms(task.model, frozen):
        norm.eval()
    result = Replay(failed.what, loaded.epoch, failed.step)
    result.inputs, result.weights = _inputs(failed), _weights(task)
    precision = trainer.precision
    task.to(TYPES.get(precision, torch.float32))
    kind = AUTOCAST.get(precision)
    losses = []
    with _watch(task.model, result):
        for number, ((x, y), rng) in enumerate(zip(failed.batches, failed.rng, strict=True)):
            torch.set_rng_state(rng[0])
            with torch.autocast("cpu", kind) if kind else nullcontext():
                loss = task.training_step((x, y), number)
            (loss / len(failed.batches)).backward()
            losses.append(loss.item())
    result.loss = sum(losses) / len(losses)
    result.gradients = [
        name
        for name, p in task.named_parameters()
        if p.grad is not None and not p.grad.isfinite().all()
    ]
    return result


@contextmanager
def _watch(model: nn.Module, result: Replay) -> Iterator[None]:
    """Note the first layer that gives NaN or infinity: in time, so the innermost."""

    def hook(name: str, module: nn.Module, output: Any) -> None:
        if result.first or not isinstance(output, torch.Tensor):
            return
        bad = int((~output.isfinite()).sum())
        if bad:
            kind = type(module).__name__
            result.first = f"{name} ({kind}): {bad:,} of {output.numel():,} outputs"

    handles = [
        m.register_forward_hook(lambda m, _, out, name=name: hook(name or "model", m, out))
        for name, m in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _inputs(failed: FailedStep) -> str:
    x = torch.cat([x.flatten().float() for x, _ in failed.batches])
    sizes = " + ".join(str(len(x)) for x, _ in failed.batches)
    shape = "x".join(map(str, failed.batches[0][0].shape[1:]))
    odd = int((~x.isfinite()).sum())
    finite = x[x.isfinite()]
    low, high = (finite.min().item(), finite.max().item()) if len(finite) else (math.nan,) * 2
    state = f"{odd:,} values not finite" if odd else "all finite"
    return f"{sizes} samples of {shape}, from {low:.4g} to {high:.4g}, {state}"


def _weights(task: nn.Module) -> str:
    largest = {name: p.detach().abs().max().item() for name, p in task.named_parameters()}
    name = max(largest, key=lambda key: largest[key] if math.isfinite(largest[key]) else math.inf)
    odd = [key for key, value in largest.items() if not math.isfinite(value)]
    state = f"not finite: {', '.join(odd[:5])}" if odd else "all finite"
    return f"{state}; the largest is {largest[name]:.4g}, in {name}"
