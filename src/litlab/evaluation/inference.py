"""A trained network, run over data without training it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.modules import module as hooks

from litlab.config.constraints import GIVEN
from litlab.config.schema import Config
from litlab.data.augment.base import Augmentation
from litlab.data.augmentations import build_augmentations
from litlab.data.loading import BatchLoader, Key, Preprocess, Split
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.io import OTHER
from litlab.runs.checkpoint.metadata import Loaded, load, load_weights, refuse_another_model
from litlab.tasks.build import build_model, build_task
from litlab.tasks.own_module import is_own_module
from litlab.tasks.task import Task
from litlab.utils.errors import CheckpointError, ConfigError, LitlabError
from litlab.utils.paths import short

# Builds a checkpoint's network only if the file holds the weights for it.
#
# A few lines of metadata can ask for a layer of 10^9 units. So the network is first built on
# torch's "meta" device, where tensors have shapes and take no memory, and compared with the file.


MODEL = "model."  # what a task calls its network
MOST_TABLES = 2**26  # numbers in buffers that no checkpoint holds, such as sines of positions
FIX = "use another checkpoint, or the configuration it was trained with"


class _TooMuch(Exception):
    """A network registers more than the file has weights for."""


def require_held(loaded: Loaded, path: Path) -> None:
    """Refuse a configuration that asks for other or larger weights than the file holds.

    Raises:
        CheckpointError: It does.
    """
    weights = {k: v for k, v in loaded.weights.items() if k.startswith(MODEL)}
    own = sum(_numbers(weights).values())
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), _at_most(20 * len(weights)):
            model = build_model(loaded.metadata.config, loaded.metadata.spec)
    except _TooMuch:
        what = f"its configuration asks for more layers than the {len(weights)} weights it holds"
        raise CheckpointError(what, str(path), FIX) from None
    except LitlabError:
        raise
    except Exception:  # a network of the user's own may not know the device: it is built for real
        return
    asked = {MODEL + name: value for name, value in model.state_dict().items()}
    refuse_another_model(asked, weights, path)
    needed = sum(p.numel() for p in model.parameters())
    tables = sum(b.numel() for b in model.buffers())
    if needed > own or tables > own + MOST_TABLES:
        what = f"its configuration asks for {max(needed, tables):,} numbers, and it holds {own:,}"
        raise CheckpointError(what, str(path), FIX)


def _numbers(weights: Mapping[str, torch.Tensor]) -> dict[int, int]:
    """How many numbers each piece of memory really has; a tensor of strides 0 repeats them."""
    storages = ((w.untyped_storage(), w.element_size()) for w in weights.values())
    return {storage.data_ptr(): storage.nbytes() // size for storage, size in storages}


@contextmanager
def _at_most(number: int) -> Iterator[None]:
    """End a construction that registers more than so many modules, parameters and buffers."""
    counted = 0

    def count(*_: Any) -> None:
        nonlocal counted
        counted += 1
        if counted > 1000 + number:
            raise _TooMuch

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Outputs(NamedTuple):
    """What the network says of N samples, on the CPU.

    `raw`: logits `(N, C)` or standardized targets `(N, T)`; `predictions`: probabilities `(N, C)`
    or targets in their own unit `(N, T)`.
    """

    raw: torch.Tensor
    predictions: torch.Tensor


@dataclass(frozen=True)
class Views:
    """Augmented views of each sample that a prediction is averaged over, besides the sample."""

    number: int
    augmentations: Mapping[str, Augmentation]
    seed: int = 0


def views_of(config: Config, spec: DataSpec, number: int) -> Views | None:
    """Return views made by the run's own augmentations, those that mix samples left out.

    Raises:
        ConfigError: The run was trained without any.
    """
    if not number:
        return None
    if spec.task == "language_model":
        what = "test-time augmentation does not apply to language models"
        raise ConfigError(what, f"--tta {number}", "leave it out")
    built = build_augmentations(config.augment, spec, config.trust)
    kept = {name: augmentation for name, augmentation in built.items() if not augmentation.mixes}
    if not kept:
        what = "test-time augmentation uses the run's own augmentations, but it has none"
        raise ConfigError(what, f"--tta {number}", "leave it out, or train with augment=...")
    return Views(number, kept, config.seed)


def load_task(
    path: Path, trust: Sequence[str] = (), task: Task | None = None
) -> tuple[Loaded, Task]:
    """Rebuild the network of a checkpoint, with its weights, ready to predict.

    Args:
        path: The checkpoint.
        trust: The user's own packages that it may name.
        task: What to put the weights into, in place of what the checkpoint says. A task that was
            made in Python cannot be built again.

    Raises:
        CheckpointError: The file is damaged, of another model, or names code that is not trusted.
    """
    loaded = load(path, trust)
    if task is not None and loaded.metadata.config.task["_target_"] == GIVEN:
        load_weights(task, loaded.weights, path)
    else:
        task = rebuild(loaded, path)
    return loaded, task.eval().to(device())


def rebuild(loaded: Loaded, path: Path) -> Task:
    """Build the task of a checkpoint, and give it the weights.

    Args:
        loaded: The checkpoint.
        path: Its file, for the error.

    Raises:
        CheckpointError: It is of another model, or names code that is not trusted.
    """
    node = loaded.metadata.config.task
    if node["_target_"] == GIVEN:
        raise _of_python(node["name"], loaded.metadata.config.model.get("name"), path)
    try:
        if is_own_module(loaded.metadata.config):
            raise _of_python(node["_target_"], node["_target_"], path)
        require_held(loaded, path)
        task = build_task(loaded.metadata.config, loaded.metadata.spec, trial=False)
        load_weights(task, loaded.weights, path)
        _try(task, loaded.metadata.spec)
    except ConfigError as error:
        where = f"{path}: {error.where}"
        raise CheckpointError(
            f"its metadata do not match: {error.what}", where, error.fix
        ) from error
    except LitlabError:
        raise
    except Exception as error:  # metadata may hold anything, and raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"its metadata do not match: {reason}", str(path), OTHER) from error
    return task


def _of_python(task: str, model: str | None, path: Path) -> CheckpointError:
    """Return why a checkpoint's task cannot be built: a LightningModule's own model is itself."""
    name = task.rpartition(".")[2]
    if model == task:
        what = f"the run trained {name}, whose outputs litlab does not know"
        fix = f"use {name}.load_from_checkpoint({short(path)!r}) in Python"
    else:
        what = f"the run trained an object made in Python, {name}, which a checkpoint does not hold"
        fix = "make the same task again: litlab.Run.load(RUN, task=task)"
    return CheckpointError(what, str(path), fix)


@torch.no_grad()
def _try(task: Task, spec: DataSpec) -> None:
    """Run three made-up samples through: metadata may describe data of another shape or scale."""
    shape = (min(spec.shape[0], 64),) if spec.kind == "text" else spec.shape
    if math.prod(shape) > 2**24:  # nor do the metadata choose how much memory is used
        return
    kind = torch.uint8 if spec.dtype == "uint8" else torch.float32
    x = torch.zeros(3, *shape, dtype=torch.long if spec.kind == "text" else kind)
    task.predict(task.eval()(Preprocess(spec)(x)).float())
    task.train()


def device() -> torch.device:
    """The first accelerator that torch finds, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


@torch.inference_mode()
def run(
    task: Task,
    spec: DataSpec,
    split: Split,
    batch_size: int,
    views: Views | None = None,
) -> Outputs:
    """Run a network over samples, in full precision; outputs are in the samples' order.

    Args:
        task: The network.
        spec: The data it was trained on.
        split: The samples.
        batch_size: Samples at a time.
        views: Test-time augmentation: the outputs are the mean over the sample and its views.
    """
    place = device()
    preprocess = Preprocess(spec).to(place)
    raw = None
    loader = BatchLoader(split, batch_size=batch_size)
    for x, _, index in loader:
        outputs = _mean_output(task, preprocess, x.to(place), index.to(place), views).cpu()
        if raw is None:
            raw = outputs.new_empty(len(split), *outputs.shape[1:])
        raw[index] = outputs
    assert raw is not None, "a split is never empty"
    return Outputs(raw, task.predict(raw.to(place)).cpu())


def _mean_output(
    task: Task, preprocess: Preprocess, x: torch.Tensor, index: torch.Tensor, views: Views | None
) -> torch.Tensor:
    outputs: torch.Tensor = task(preprocess(x)).float()
    if views is None:
        return outputs
    for number in range(views.number):
        key = Key(views.seed, number, index)
        seen, _ = preprocess.augmented(x, index, views.augmentations, key)
        outputs = outputs + task(seen).float()
    return outputs / (1 + views.number)
