"""What a checkpoint must hold for a run to continue from it, and of which types."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from litlab.config.hyperparameters import Index
from litlab.utils.errors import CheckpointError, LitlabError
from litlab.utils.paths import short

MOMENTS = {"exp_avg", "exp_avg_sq", "momentum_buffer"}
NEEDED = ("loops", "callbacks", "optimizer_states", "lr_schedulers", "resume")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class _Place(_Part):
    epochs: Index
    batches: Index
    total_batches: Index
    steps: Index
    logged_steps: Index
    should_stop: bool


class _Loops(_Part):
    fit_loop: _Place


class _Optimizer(_Part):
    state: dict[Any, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class _Recorded(_Part):
    rows: dict[int, dict[str, float | None]]
    started: str
    resumed: Index
    seconds: float


class _Random(_Part):
    python: list[Any] = Field(min_length=3, max_length=3)
    numpy: list[Any] = Field(min_length=5, max_length=5)
    torch: Any
    cuda: list[Any]


class _Resume(_Part):
    rng: list[_Random] = Field(min_length=1)
    meters: list[dict[str, Any]] | None
    tracked: _Recorded


class _State(_Part):
    loops: _Loops
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: list[_Optimizer]
    lr_schedulers: list[dict[str, Any]]
    resume: _Resume


def require_parts(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint that a run cannot continue from, such as a `best.ckpt` under its name.

    Raises:
        CheckpointError: Parts are missing, or not what they should be.
    """
    missing = [name for name in NEEDED if name not in content]
    if missing:
        what = f"holds weights, but not what a run needs to continue: {', '.join(missing)}"
        raise CheckpointError(what, short(path), from_its_weights(path))
    try:
        _State.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        what = f"a run cannot continue from it: {place}: {first['msg']}"
        raise CheckpointError(what, short(path), from_its_weights(path)) from None


def from_its_weights(path: Path) -> str:
    """Return what to do with a checkpoint that is good for nothing but its weights."""
    return f"start a new run from its weights: init_from={short(path)}, without --resume"


@contextmanager
def restoring(path: Path, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Blame a checkpoint for what goes wrong while a run takes it over.

    Args:
        path: The checkpoint.
        passing: Errors that are of something else.

    Raises:
        CheckpointError: In place of whatever else was raised.
    """
    try:
        yield
    except Exception as error:  # a stranger's values can raise anything, deep within torch
        if isinstance(error, (LitlabError, *passing)):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        what = f"a run cannot continue from it: {reason}"
        raise CheckpointError(what, short(path), from_its_weights(path)) from error


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Compare the shapes of restored moments with the weights': torch leaves that to the step.

    Raises:
        ValueError: They differ.
    """
    for weight, state in optimizer.state.items():
        for name in MOMENTS & state.keys():
            if state[name] is not None and state[name].shape != weight.shape:
                raise ValueError(f"{name} has the shape of another weight")
