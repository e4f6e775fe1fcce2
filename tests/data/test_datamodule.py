from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from litlab.config.schema import LoaderConfig
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.datamodule import ArrayDataModule
from litlab.data.loading import file_of
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, DataError
from made_data import make_raw, make_spec, prepare_raw


class Mark(Augmentation):
    """An augmentation that says what it saw and leaves a mark."""

    kinds = frozenset({"image"})

    def __init__(self) -> None:
        super().__init__(make_spec("image"))
        self.seen: list[torch.Tensor] = []
        self.draws: dict[tuple[int, int], float] = {}

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        self.seen.append(x)
        for place, number in zip(draws.index.tolist(), draws.uniform().tolist(), strict=True):
            self.draws[draws.epoch, place] = number
        return x + 100


class Watch(pl.LightningModule):
    """A module that keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: dict[str, list[torch.Tensor]] = {"train": [], "val": []}

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen["train"].append(batch[0])
        return self.layer(torch.zeros(1, 1)).sum()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.seen["val"].append(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, DataSpec]:
    return tmp_path, prepare_raw(make_raw("image"), tmp_path, monkeypatch)


def make_module(prepared, *, batch_size=8, drop_last=True, resident="memory", **settings):
    loader = LoaderConfig(
        batch_size=batch_size, eval_batch_size=5, drop_last=drop_last, resident=resident
    )
    return ArrayDataModule(*prepared, loader, **settings)


def make_trainer(folder: Path, **settings) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "log_every_n_steps": 1} | settings,
    )


QUIET = (
    # Lightning's own, about its own choices.
    "ignore:.*does not have many workers.*",
    "ignore:.*treespec, LeafSpec.*:FutureWarning",
    "ignore:.*isinstance.*LeafSpec.*:FutureWarning",
)


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("resident", ["memory", "device", "auto"])
def test_batches_are_augmented_only_while_training(prepared, resident) -> None:
    folder, spec = prepared
    mark, watch = Mark(), Watch()
    data = make_module(prepared, augmentations={"mark": mark}, resident=resident)
    make_trainer(folder).fit(watch, data)
    per_epoch = spec.sizes["train"] // 8
    assert len(watch.seen["train"]) == len(mark.seen) == 2 * per_epoch
    assert all((x >= 0).all() and (x <= 1).all() for x in mark.seen)  # before normalization
    offset = 100 / spec.std[0]
    assert all(x.mean() > offset / 2 for x in watch.seen["train"])
    assert all(x.mean().abs() < 3 for x in watch.seen["val"])
    # Two epochs and the sanity check of at most two batches.
    assert len(watch.seen["val"]) >= 2 * len(data.val_dataloader())
    # Each epoch has its own order.
    first, second = mark.seen[:per_epoch], mark.seen[per_epoch:]
    assert not torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.filterwarnings(*QUIET)
def test_validation_is_only_normalized(prepared) -> None:
    mark, watch = Mark(), Watch()
    data = make_module(prepared, augmentations={"mark": mark})
    make_trainer(prepared[0]).validate(watch, data, verbose=False)
    assert mark.seen == []
    assert torch.equal(torch.cat(watch.seen["val"]), data.preprocess(data.arrays["val"].x))


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("64-true", torch.float64), ("bf16-true", torch.bfloat16), ("16-true", torch.float16)],
)
def test_inputs_have_the_trainers_precision(prepared, precision, dtype) -> None:
    watch = Watch()
    data = make_module(prepared, augmentations={"mark": Mark()})
    make_trainer(prepared[0], precision=precision).validate(watch, data, verbose=False)
    assert {x.dtype for x in watch.seen["val"]} == {dtype}


def test_training_does_not_open_the_test_split(prepared) -> None:
    folder, _ = prepared
    file_of(folder, "test").unlink()
    data = make_module(prepared)
    data.setup("fit")  # the file is not even looked at
    assert set(data.arrays) == {"train", "val"}
    assert type(data).test_dataloader is pl.LightningDataModule.test_dataloader


def test_a_split_that_was_not_named_is_not_opened(prepared) -> None:
    data = make_module(prepared, splits=["val"])
    data.open()
    assert set(data.arrays) == {"val"}
    with pytest.raises(AssertionError, match="'train' is not among"):
        data.train_dataloader()


def test_a_batch_larger_than_the_data_is_refused(prepared) -> None:
    number = prepared[1].sizes["train"]
    data = make_module(prepared, batch_size=number + 1)
    data.open()
    with pytest.raises(ConfigError, match="gives no full batch") as caught:
        data.train_dataloader()
    assert caught.value.where == "loader.batch_size"
    assert str(number) in caught.value.fix
    data = make_module(prepared, batch_size=number + 1, drop_last=False)
    data.open()
    (batch,) = data.train_dataloader()
    assert len(batch[0]) == number


def test_evaluation_sees_every_sample_in_order(prepared) -> None:
    data = make_module(prepared)
    data.open()
    x = torch.cat([x for x, *_ in data.val_dataloader()])
    assert torch.equal(x, data.arrays["val"].x)


def test_an_altered_file_is_found_on_opening(prepared) -> None:
    path = file_of(prepared[0], "val")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match="checksum differs"):
        make_module(prepared).open()


def test_the_order_is_the_seeds(prepared) -> None:
    def order(seed: int) -> torch.Tensor:
        data = make_module(prepared, seed=seed)
        data.open()
        return torch.cat([y for _, y, _ in data.train_dataloader()])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


def test_each_process_takes_its_share(prepared) -> None:
    data = make_module(prepared)
    data.open()
    whole = [y for _, y, _ in data.train_dataloader()]
    shares = []
    for rank in range(2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        shares.append([(y, share) for _, y, _, share in data.train_dataloader()])
    for batch, (a, of_a), (b, of_b) in zip(whole, *shares, strict=True):
        assert torch.equal(batch[0::2], a)
        assert torch.equal(batch[1::2], b)
        assert (of_a, of_b) == ((len(a), len(batch)), (len(b), len(batch)))


@pytest.mark.filterwarnings(*QUIET)
def test_a_samples_random_numbers_are_its_own(prepared) -> None:
    def draws(batch_size: int, noise: int) -> dict[tuple[int, int], float]:
        torch.manual_seed(noise)  # the global generator has no say
        mark = Mark()
        data = make_module(
            prepared, augmentations={"mark": mark}, batch_size=batch_size, drop_last=False
        )
        make_trainer(prepared[0]).fit(Watch(), data)
        return mark.draws

    first = draws(8, 0)
    number = prepared[1].sizes["train"]
    assert set(first) == {(epoch, place) for epoch in range(2) for place in range(number)}
    assert len(set(first.values())) > 1.9 * number  # another draw for each sample and each epoch
    assert draws(5, 1) == first
