"""What benchmarks/training.py compares with: the loop by hand, the ordinary Lightning way."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from litlab.data.loading import Split
from litlab.training.compile import use_channels_last, wants_channels_last

Seconds = dict[str, float]  # of one epoch, a step, by part
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock()


@contextmanager
def usual_torch() -> Iterator[None]:
    """Torch as a hand-written loop finds it, without the `deterministic` of a Trainer."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(was)


@dataclass
class Job:
    """What all variants share.

    Attributes:
        config: litlab's configuration.
        spec: The data.
        model: The network, as it is initialized.
        x, y: The train split, normalized, on the device; `val_x`, `val_y`: the validation split.
        arrays: Both splits as they are stored.
        epochs: How many are run; the first is warm-up.
        steps: In an epoch.
    """

    config: object
    spec: object
    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    val_x: torch.Tensor
    val_y: torch.Tensor
    arrays: dict[str, Split]
    epochs: int
    steps: int

    def optimizer(self, model: nn.Module, fused: bool | None):
        from litlab.tasks.optim.optimizers import parameter_groups

        settings = self.config.optimizer
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings["weight_decay"]),
            lr=settings["lr"],
            betas=tuple(settings["betas"]),
            eps=settings["eps"],
            fused=fused,
        )
        total = self.epochs * self.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings["lr"], total, cycle_momentum=False
        )
        return optimizer, schedule


class Bare:
    """The loop as written by hand: normalized data in memory, an index permutation an epoch."""

    def __init__(self, job: Job, fused: bool | None) -> None:
        self.job, self.model = job, copy.deepcopy(job.model).to(job.x.device)
        wish = job.config.trainer.channels_last  # else layout, not loops, would be compared
        if wants_channels_last(wish, self.model, job.x.device, plain=True):
            use_channels_last(self.model)
        self.optimizer, self.schedule = job.optimizer(self.model, fused)

    def epoch(self) -> Seconds:
        with usual_torch():
            began = now(self.job.x.device)
            self._train()
            trained = now(self.job.x.device)
            self._validate()
            ended = now(self.job.x.device)
        training, everything = (trained - began) / self.job.steps, (ended - began) / self.job.steps
        return {"steps": training, "no validation": training, "everything": everything}

    def _train(self) -> None:
        job, size = self.job, self.job.config.loader.batch_size
        self.model.train()
        order = torch.randperm(len(job.x), device=job.x.device)
        for index in order.split(size)[: job.steps]:
            loss = F.cross_entropy(self.model(job.x[index]), job.y[index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        job, size = self.job, self.job.config.loader.eval_batch_size
        self.model.eval()
        loss, correct = torch.zeros((), device=job.x.device), torch.zeros((), device=job.x.device)
        for x, y in zip(job.val_x.split(size), job.val_y.split(size), strict=True):
            outputs = self.model(x)
            loss += F.cross_entropy(outputs, y, reduction="sum")
            correct += (outputs.argmax(1) == y).sum()
        return loss.item() / len(job.val_y), correct.item() / len(job.val_y)


class Samples(Dataset):
    """Samples made one by one, as tensors; without Pillow, which would only slow it."""

    def __init__(self, job: Job, split: str) -> None:
        arrays, spec = job.arrays[split], job.spec
        self.x, self.y = arrays.take(torch.arange(len(arrays)))
        tail = (1,) * (len(spec.shape) - 1)
        self.mean, self.std = (torch.tensor(v).reshape(-1, *tail) for v in (spec.mean, spec.std))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int):
        x = self.x[place]
        x = x.float().div(255) if x.dtype == torch.uint8 else x
        return (x - self.mean) / self.std, self.y[place]


class Ordinary(pl.LightningModule):
    """The Lightning way of the tutorials."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job, self.model = job, copy.deepcopy(job.model)
        classes = job.spec.num_outputs
        self.metrics = nn.ModuleDict(
            {
                f"{split}_{name}": kind(classes)
                for split in ("train", "val")
                for name, kind in (("accuracy", MulticlassAccuracy), ("f1", MulticlassF1Score))
            }
        )

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def _step(self, batch, split: str) -> torch.Tensor:
        x, y = batch
        outputs = self.model(x)
        loss = F.cross_entropy(outputs, y)
        self.log(f"{split}_loss", loss)
        for name in (f"{split}_accuracy", f"{split}_f1"):
            self.metrics[name](outputs, y)
            self.log(name, self.metrics[name])
        return loss

    def configure_optimizers(self):
        optimizer, schedule = self.job.optimizer(self.model, None)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def fit_ordinary(job: Job, turns: pl.Callback, *, whole: bool) -> None:
    """Fit as the tutorials do; `whole`: the data were normalized beforehand, all at once."""
    loader, device = job.config.loader, job.x.device
    if whole:
        train, val = (
            TensorDataset(job.x.cpu(), job.y.cpu()),
            TensorDataset(job.val_x.cpu(), job.val_y.cpu()),
        )
    else:
        train, val = Samples(job, "train"), Samples(job, "val")
    trainer = pl.Trainer(
        max_epochs=job.epochs,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        limit_train_batches=job.steps,
        callbacks=[turns],
        logger=pl.loggers.CSVLogger("ordinary"),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Ordinary(job),
        DataLoader(train, loader.batch_size, shuffle=True, drop_last=True),
        DataLoader(val, loader.eval_batch_size),
    )


def prepare(overrides: list[str], epochs: int, steps: int | None, device: str) -> Job:
    from litlab.config.compose import load
    from litlab.data.loading import Preprocess, open_split
    from litlab.data.prepare.open import open_or_prepare
    from litlab.tasks.build import build_model
    from litlab.utils import seeding

    accelerator = "gpu" if device == "cuda" else "cpu"
    fixed = [f"trainer.max_epochs={epochs}", f"trainer.accelerator={accelerator}"]
    config = load(
        [*overrides, *fixed, *([f"trainer.limit_train_batches={steps}"] if steps else [])]
    )
    folder, spec = open_or_prepare(config.data, config.trust)
    seeding.seed_everything(config.seed)
    model = build_model(config, spec)
    arrays = {split: open_split(folder, spec, split) for split in ("train", "val")}
    tensors, normalize = [], Preprocess(spec)
    for split in arrays.values():
        x, y = split.take(torch.arange(len(split)))
        tensors += [normalize(x).to(device), y.to(device)]
    whole = spec.sizes["train"] // config.loader.batch_size
    steps = min(whole, steps or whole)
    return Job(config, spec, model, *tensors, arrays, epochs, steps)
