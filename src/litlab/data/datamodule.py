from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn

from litlab.data.arrays import Split, open_split
from litlab.data.loader import BatchLoader
from litlab.data.preprocess import Preprocess
from litlab.data.spec import DataSpec
from litlab.errors import ConfigError
from litlab.schema import LoaderConfig

Batch = tuple[torch.Tensor, torch.Tensor]


class ArrayDataModule(pl.LightningDataModule):
    """Serves prepared arrays; augments whole batches, on their device, only while training.

    Args:
        folder: The prepared arrays.
        spec: Their description.
        loader: Batch sizes and where the arrays live.
        augmentations: Modules `(x, y) -> (x, y)`, in order.
        splits: What may be opened. Not "test": `litlab.evaluate` alone opens that, without this
            module.
        seed: Of the batches' order.
    """

    def __init__(
        self,
        folder: Path,
        spec: DataSpec,
        loader: LoaderConfig,
        augmentations: Sequence[nn.Module] = (),
        splits: Sequence[str] = ("train", "val"),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.spec, self.loader, self.splits = folder, spec, loader, tuple(splits)
        self.seed = seed
        self.augmentations = list(augmentations)
        self.preprocess = Preprocess(spec)
        self.arrays: dict[str, Split] = {}

    def open(self) -> None:
        """Map the arrays and compare their checksums; a second call does nothing.

        Raises:
            DataError: A file is missing or altered.
        """
        for split in self.splits:
            if split not in self.arrays:
                self.arrays[split] = open_split(self.folder, self.spec, split)

    def setup(self, stage: str | None = None) -> None:
        """Open the arrays, and move them to the device where they are to live there."""
        self.open()
        if self._on_device():
            device = self.trainer.strategy.root_device  # type: ignore[union-attr]
            moved = {name: Split(*(t.to(device) for t in s)) for name, s in self.arrays.items()}
            self.arrays = moved

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the train split."""
        loader = self._loader("train", self.loader.batch_size, shuffle=True)
        if not len(loader):
            raise ConfigError(
                f"batches of {self.loader.batch_size} from {len(loader.x)} samples leave no step",
                "loader.batch_size",
                f"at most {len(loader.x)}, or loader.drop_last=false",
            )
        return loader

    def val_dataloader(self) -> BatchLoader:
        """The validation split, in order, to the last sample."""
        return self._loader("val", self.loader.eval_batch_size, shuffle=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make floats, augment (training only), normalize: on the device the batch is on."""
        x, y = batch
        if self.preprocess.mean.device != x.device:
            self.preprocess.to(x.device)
        x = self.preprocess.to_float(x)
        if self.trainer is not None and self.trainer.training:
            for augmentation in self.augmentations:
                x, y = augmentation(x, y)
        x = self.preprocess.normalize(x)
        # Lightning converts to the Trainer's precision before this hook, which undoes it.
        return x if self.trainer is None else self.trainer.precision_plugin.convert_input(x), y

    def _loader(self, split: str, batch_size: int, *, shuffle: bool) -> BatchLoader:
        assert split in self.splits, f"'{split}' is not among the splits it may open: {self.splits}"
        x, y, _ = self.arrays[split]
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        return BatchLoader(
            x,
            y,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=shuffle and self.loader.drop_last,
            seed=self.seed,
            rank=rank,
            world=world,
        )

    def _on_device(self) -> bool:
        """Whether the arrays go to the device: asked for, or a GPU has four times the room."""
        if self.trainer is None or self.loader.resident == "memory":
            return False
        device = self.trainer.strategy.root_device
        if self.loader.resident == "device" or device.type != "cuda":
            return self.loader.resident == "device"
        free, _ = torch.cuda.mem_get_info(device)
        needed = sum(t.nbytes for split in self.arrays.values() for t in split)
        return needed * 4 < free
