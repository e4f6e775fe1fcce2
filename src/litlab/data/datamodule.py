from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch

from litlab.config.compose import COMPOSED
from litlab.config.schema import Config, LoaderConfig
from litlab.data.augment.base import Augmentation, needs_partners
from litlab.data.augmentations import build_augmentations
from litlab.data.loading import (
    BatchLoader,
    Indexed,
    Key,
    Preprocess,
    Split,
    check_descriptions,
    open_split,
)
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, require

Batch = tuple[torch.Tensor, torch.Tensor]


def no_full_batch(batch_size: int, available: int) -> ConfigError:
    """Return the error of an epoch without a full batch."""
    return ConfigError(
        f"loader.batch_size={batch_size} gives no full batch of {available} samples",
        "loader.batch_size",
        f"use at most {available}, or loader.drop_last=false",
    )


class ArrayDataModule(pl.LightningDataModule):
    """Batches of prepared arrays; training batches are augmented on their device.

    Args:
        folder: The prepared arrays.
        spec: Their description.
        loader: Batch sizes and where the arrays live.
        augmentations: In order, by name; each name has its own random numbers.
        splits: Those that may be opened. Not "test": only `litlab.evaluation.evaluate` opens it,
            without this module.
        seed: Of the batches' order and of augmentation.
        repeat: Whether every epoch of training is the first one again, batch for batch.
    """

    def __init__(
        self,
        folder: Path,
        spec: DataSpec,
        loader: LoaderConfig,
        augmentations: Mapping[str, Augmentation] | None = None,
        splits: Sequence[str] = ("train", "val"),
        seed: int = 0,
        *,
        repeat: bool = False,
    ) -> None:
        super().__init__()
        self.folder, self.spec, self.loader, self.splits = folder, spec, loader, tuple(splits)
        self.seed, self.repeat = seed, repeat
        self.augmentations = dict(augmentations or {})
        self.preprocess = Preprocess(spec)
        self.arrays: dict[str, Split] = {}

    def open(self) -> None:
        """Memory-map the arrays and verify all checksums; a second call does nothing.

        Raises:
            DataError: A file is missing or altered.
        """
        if not self.arrays:
            check_descriptions(self.folder, self.spec)
        for split in self.splits:
            if split not in self.arrays:
                self.arrays[split] = open_split(self.folder, self.spec, split)

    def setup(self, stage: str | None = None) -> None:
        """Open the arrays, and move them to the device if they are to be kept there."""
        self.open()
        if self._on_device():
            device = self.trainer.strategy.root_device  # type: ignore[union-attr]
            self.arrays = {name: split.to(device) for name, split in self.arrays.items()}

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of the train split."""
        loader = self._loader("train", self.loader.batch_size, training=True)
        if not len(loader):
            raise no_full_batch(self.loader.batch_size, len(loader.split))
        return loader

    def val_dataloader(self) -> BatchLoader:
        """Return the whole validation split, in order."""
        return self._loader("val", self.loader.eval_batch_size, training=False)

    def on_after_batch_transfer(self, batch: Indexed, dataloader_idx: int) -> Batch:
        """Convert to floats, augment (training only) and normalize, on the batch's device."""
        x, y, index = batch[:3]
        if self.preprocess.mean.device != x.device:
            self.preprocess.to(x.device)
        if self.augmentations and self.trainer is not None and self.trainer.training:
            key = Key(self.seed, self.trainer.current_epoch, index)
            x, y = self.preprocess.augmented(x, y, self.augmentations, key)
        else:
            x = self.preprocess(x)
        # Lightning converts to the Trainer's precision before this hook, so convert again after it.
        x = x if self.trainer is None else self.trainer.precision_plugin.convert_input(x)
        return x, y, *batch[3:]  # with several processes: this process's share of the batch

    def _loader(self, split: str, batch_size: int, *, training: bool) -> BatchLoader:
        assert split in self.splits, f"'{split}' is not among the splits it may open: {self.splits}"
        if split not in self.arrays:  # `setup` was not called, as Lightning does
            self.open()
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        return BatchLoader(
            self.arrays[split],
            batch_size=batch_size,
            shuffle=training,
            repeat=training and self.repeat,
            drop_last=training and self.loader.drop_last,
            seed=self.seed,
            rank=rank,
            world=world,
            partners=training and needs_partners(list(self.augmentations.values())),
        )

    def _on_device(self) -> bool:
        """Whether arrays are kept on the device: if set, or if a GPU has four times their size."""
        if self.trainer is None or self.loader.resident == "memory":
            return False
        device = self.trainer.strategy.root_device
        if self.loader.resident == "device" or device.type != "cuda":
            return self.loader.resident == "device"
        free, _ = torch.cuda.mem_get_info(device)
        needed = sum(split.nbytes for split in self.arrays.values())
        return needed * 4 < free


class DataModule(ArrayDataModule):
    """The data of a configuration, prepared if necessary, with its augmentation.

    Batches are `(x, y)`: images `(B, C, H, W)`, sequences `(B, C, L)` and table rows `(B, F)` as
    normalized float32, texts as token ids `(B, L)`; `y` is class numbers `(B,)` int64, targets
    `(B, T)` in their own unit, or a language model's next tokens `(B, L)`. Augmentation and
    normalization happen after the batch has been moved to its device, in Lightning's
    `on_after_batch_transfer`. There is no test split: `Run.evaluate` alone opens that.

    A loader by itself gives stored values and row numbers, `(x, y, index)`; that hook makes floats
    of them. `Trainer.predict` predicts the validation split, in order.

    Attributes:
        spec: What a model is told of the data, such as `spec.shape` and `spec.num_outputs`.

    Args:
        config: A configuration that `litlab.compose` returned.
        prepared: Folder of the prepared data; `data/prepared/<name>` if None.

    Raises:
        ConfigError: An augmentation does not fit the data.
        DataError: The data are missing or damaged, or were prepared with other settings.
    """

    def __init__(self, config: Config, prepared: Path | None = None) -> None:
        require(config, Config, "litlab.DataModule(config)", COMPOSED)
        self.config = config
        prepared = None if prepared is None else Path(prepared)
        folder, spec = open_or_prepare(config.data, config.trust, prepared)
        repeat = config.trainer.overfit_batches > 0
        nodes = {} if repeat else config.augment
        augmentations = build_augmentations(nodes, spec, config.trust)
        super().__init__(
            folder, spec, config.loader, augmentations, seed=config.seed, repeat=repeat
        )

    def __repr__(self) -> str:
        return f"DataModule({self.spec!r})"

    __str__ = __repr__  # Lightning's shows the loaders, of which there are none before a fit

    def predict_dataloader(self) -> BatchLoader:
        """Return the whole validation split, in order; new data go to `Run.predict`."""
        return self.val_dataloader()

    def test_dataloader(self) -> BatchLoader:
        """Refuse: the test split is for one measurement of a trained run.

        Raises:
            ConfigError: Always.
        """
        what = "the test split is opened by an evaluation of a recorded run alone"
        fix = "use litlab.train(config, task=task).evaluate(), or trainer.validate(task, data)"
        raise ConfigError(what, "trainer.test", fix)
