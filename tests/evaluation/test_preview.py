"""The preview of a batch: what it shows is what a run trains on, and a run is as without it."""

import json
import random
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from litlab.config.compose import load
from litlab.config.schema import Config
from litlab.data.augment.base import Augmentation
from litlab.data.augmentations import build_augmentations
from litlab.data.datamodule import ArrayDataModule
from litlab.data.encode import decode
from litlab.data.encode.table import TableEncoder
from litlab.data.encode.text import TextEncoder
from litlab.data.loading import Split, padding_share
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import Column, DataSpec
from litlab.evaluation import preview
from litlab.utils import seeding
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from run_helpers import THIRD_PARTY, mlflow_run, small, small_run

pytestmark = THIRD_PARTY
KINDS = {
    "image": ("augment=[light,erasing,mixup_cutmix]",),
    "sequence": ("augment=[sequence_standard,mixup]", "model=simple_cnn"),
    "tabular": ("augment=tabular_standard",),
    "text": ("augment=text_standard", "model=transformer"),
}


def config_of(kind: str, *overrides: str) -> Config:
    made = (f"data.source.kind={kind}", "data.source.num_samples=150", f"data.name={kind}")
    return load(["data=synthetic", *made, "loader.batch_size=16", *overrides])


def module_of(config: Config) -> ArrayDataModule:
    folder, spec = open_or_prepare(config.data, config.trust)
    augmentations = build_augmentations(config.augment, spec, config.trust)
    data = ArrayDataModule(folder, spec, config.loader, augmentations, seed=config.seed)
    data.open()
    return data


def seen_in_training(data: ArrayDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    """The first batch of the first epoch as the Trainer gets it."""
    trainer = SimpleNamespace(training=True, current_epoch=0, global_rank=0, world_size=1)
    trainer.precision_plugin = SimpleNamespace(convert_input=lambda x: x)
    data.trainer = trainer  # type: ignore[assignment]
    first = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    data.trainer = None  # type: ignore[assignment]
    return first


@pytest.mark.parametrize("kind", KINDS)
def test_it_shows_the_batch_that_a_run_trains_on(project: Path, kind: str) -> None:
    data = module_of(config_of(kind, *KINDS[kind], "seed=3"))
    samples, batch = preview._look(data)
    x, y = seen_in_training(data)
    number = batch.shown
    assert batch.size == 16
    assert samples.new_labels == decode.labels(data.spec, y[:number])
    if kind in ("image", "sequence"):
        mean = np.reshape(data.spec.mean, (-1, *(1,) * (x.ndim - 2)))
        std = np.reshape(data.spec.std, (-1, *(1,) * (x.ndim - 2)))
        assert samples.after is not None
        np.testing.assert_allclose(samples.after, x[:number].numpy() * std + mean, atol=1e-5)
        assert not np.allclose(samples.before, samples.after)
    elif kind == "text":
        assert samples.after == decode.tokens(data.spec, x[:number])
    else:
        assert samples.after == decode.cells(
            data.spec, x[:number] * torch.tensor(data.spec.std) + torch.tensor(data.spec.mean)
        )
    train = data.arrays["train"]
    index = next(iter(data.train_dataloader()))[2][:number]
    assert samples.labels == [data.spec.classes[i] for i in train.y[index]]


def test_without_augmentation_the_samples_are_shown_once(project: Path) -> None:
    data = module_of(config_of("image", "augment=none"))
    samples, batch = preview._look(data)
    assert samples.after is None
    assert batch.changed == 0
    assert samples.new_labels == samples.labels
    index = next(iter(data.train_dataloader()))[2][: batch.shown]
    stored = data.arrays["train"].x[index].numpy()
    np.testing.assert_allclose(samples.before, stored / 255, atol=1e-6)


class Restless(Augmentation):
    """A user's own: it draws from every global generator, counts its calls, changes in place."""

    kinds = frozenset({"image"})

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.calls = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor, draws: Any) -> Any:
        self.calls += 1
        x *= 1 - 0.01 * self.calls
        x += 0.01 * (torch.rand(1) + random.random() + np.random.rand())  # noqa: NPY002
        return x, y


def test_a_run_is_the_same_with_and_without(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "litlab.data.datamodule.build_augmentations", lambda _, spec, __: _restless(spec)
    )
    model = {"_target_": "litlab.models.mlp.MLP", "hidden": [8], "dropout": 0.3}
    first = small_run(project, preview=True, model=model).folder
    monkeypatch.setattr("litlab.training.run.preview_of_run", lambda *_: [])
    second = small_run(project, preview=True, model=model).folder
    assert (first / "preview.png").is_file()
    assert not (second / "preview.png").exists()
    assert (first / "history.csv").read_text() == (second / "history.csv").read_text()


def _restless(spec: DataSpec) -> dict[str, Augmentation]:
    return {"restless": Restless(spec)}


@pytest.mark.draws
def test_what_a_run_keeps(project: Path) -> None:
    run = small_run(project, "augment=light", preview=True)
    statistics = json.loads((run.folder / "preview.json").read_text())
    assert statistics["augment"] == list(small("augment=light").augment)
    assert statistics["seed"] == 0
    with Image.open(run.folder / "preview.png") as picture:
        assert picture.width > 1000
    found = mlflow_run(project, run.record.run_id)
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    for name in ("preview.png", "preview.json"):
        assert (artifacts / name).read_bytes() == (run.folder / name).read_bytes()


def test_a_preview_that_fails_does_not_end_the_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(preview, "draw", fail)
    with pytest.warns(UserWarning, match="there is no preview of this run: no ink"):
        run = small_run(project, preview=True)
    assert run.record.status == "FINISHED"
    assert not (run.folder / "preview.png").exists()


def test_batches_larger_than_the_data(project: Path) -> None:
    with pytest.raises(ConfigError, match="gives no full batch"):
        preview.preview(config_of("image", "loader.batch_size=5000"))


def test_the_test_split_is_not_opened(project: Path) -> None:
    config = config_of("image")
    preview.preview(config)
    (project / "data/prepared/image/test.safetensors").unlink()
    _, statistics = preview.preview(config)
    assert set(statistics["splits"]) == {"train", "val"}
    assert statistics["sizes"]["test"] == 30


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_against_numpy(project: Path, kind: str) -> None:
    data = module_of(config_of(kind, *KINDS[kind]))
    statistics = preview.write_preview(data, project / "p.png")
    for name, found in statistics.splits.items():
        split = data.arrays[name]
        assert found.size == len(split)
        counts = np.bincount(split.y.numpy(), minlength=3)
        assert found.classes == dict(zip(data.spec.classes, counts, strict=True))
        if kind == "text":
            check_lengths(found.lengths, split, data, name)
            continue
        x = split.x.numpy() / (255 if kind == "image" else 1)
        axes = tuple(a for a in range(x.ndim) if a != 1)
        for place, value in enumerate(found.values.values()):
            ends = (x.min(axes)[place], x.mean(axes, dtype=np.float64)[place], x.max(axes)[place])
            np.testing.assert_allclose((value.low, value.mean, value.high), ends, rtol=1e-5)
        assert len(found.values) == x.shape[1]
    assert statistics.leakage[0].startswith("leakage check: ")
    x, _ = seen_in_training(data)
    if statistics.batch.model_input:
        x = x[: statistics.batch.shown]
        np.testing.assert_allclose(statistics.batch.model_input.low, x.min())
        np.testing.assert_allclose(statistics.batch.model_input.mean, x.mean(), atol=1e-6)


def check_lengths(found: Any, split: Split, data: ArrayDataModule, name: str) -> None:
    assert split.lengths is not None
    lengths = split.lengths.numpy()
    assert (found.minimum, found.maximum) == (lengths.min(), lengths.max())
    assert found.median == np.median(lengths)
    assert found.p95 == np.percentile(lengths, 95)
    assert found.at_limit == (lengths == data.spec.shape[0]).sum() > 0
    loader = data.train_dataloader() if name == "train" else data.val_dataloader()
    assert found.padding == padding_share(split.lengths, loader.sampler)
    assert 0 < found.padding < 0.5
    assert sum(found.histogram.counts) == len(lengths)


def test_statistics_of_a_regression(project: Path) -> None:
    config = config_of("tabular", "data.source.num_classes=0", "task=regression", "data.name=r")
    config = config.model_copy(update={"data": config.data.model_copy(update={"stratify": False})})
    data = module_of(config)
    statistics = preview.write_preview(data, project / "p.png")
    y = data.arrays["val"].y.numpy()
    found = statistics.splits["val"]
    target = found.targets["target"]
    np.testing.assert_allclose((target.low, target.mean, target.high), (y.min(), y.mean(), y.max()))
    assert found.histogram is not None
    assert sum(found.histogram.counts) == len(y)
    assert found.classes == {}


def test_a_table_without_names_and_two_targets(project: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(project / "two.npz", x=rng.normal(size=(60, 3)), y=rng.normal(size=(60, 2)))
    source = ["data.source.kind=tabular", "data.source.task=regression", "task=regression"]
    source += ["data.stratify=false", "loader.batch_size=16"]
    config = load(["data=npz", "data.path=two.npz", *source])
    data = module_of(config)
    statistics = preview.write_preview(data, project / "p.png")
    assert list(statistics.batch.values) == ["feature 0", "feature 1", "feature 2"]
    assert list(statistics.splits["val"].targets) == ["y0", "y1"]
    assert (project / "p.png").is_file()


def test_large_data_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec.model_validate(
        {"name": "n", "source": "s", "kind": "tabular", "task": "classification", "shape": (2,)}
        | {"dtype": "float32", "classes": ("a", "b"), "features": ("x", "y"), "mean": (0, 0)}
        | {"std": (1, 1), "sizes": {}, "licence": "", "origin": ""}
    )
    number = 50_000
    x = torch.arange(number, dtype=torch.float32)[:, None].expand(-1, 2)
    split = Split(x.contiguous(), torch.zeros(number, dtype=torch.int64), torch.arange(number))
    looked: list[int] = []
    take = Split.take

    def spy(self: Split, index: torch.Tensor) -> Any:
        looked.append(len(index))
        return take(self, index)

    monkeypatch.setattr(Split, "take", spy)
    found = preview.describe(split, spec, [])
    assert looked == [found.looked_at] == [preview.SAMPLES]
    assert found.classes == {"a": number, "b": 0}
    assert (found.values["x"].low, found.values["x"].high) == (0, number - 1)


def test_a_language_model(project: Path) -> None:
    (project / "play.txt").write_text("to be or not to be, that is the question\n" * 60)
    overrides = ("data=plain_text", "data.path=play.txt", "data.source.context_length=16")
    config = load([*overrides, "data.allow=[exact_duplicates]", "loader.batch_size=8"])
    data = module_of(config)
    samples, _ = preview._look(data)
    for read, targets in zip(samples.before, samples.targets, strict=True):
        assert list(read[1:]) == targets[:-1]
    assert "⏎" in "".join(t for row in samples.targets for t in row)
    statistics = preview.write_preview(data, project / "p.png")
    text = "".join(data_text(data))
    assert statistics.splits["train"].tokens["t"] == text.count("t")


def data_text(data: ArrayDataModule) -> list[str]:
    names = decode.token_names(data.spec, data.arrays["train"].x.numpy())
    return [names[i] for i in data.arrays["train"].x.tolist()]


def spec_like(**fields: Any) -> DataSpec:
    settings = {"name": "n", "source": "s", "kind": "tabular", "task": "classification"}
    more = {"dtype": "float32", "sizes": {}, "licence": "", "origin": "", "shape": (1,)}
    return DataSpec.model_validate(settings | more | fields)


@pytest.mark.parametrize("scale", ["standard", "quantile"])
def test_cells_are_those_of_the_table(scale: Any) -> None:
    rng = np.random.default_rng(0)
    ages, work = rng.integers(17, 90, 400).astype(float), rng.choice(["clerk", "nurse"], 400)
    table = pd.DataFrame({"age": ages, "work": pd.Series(work, dtype="string")})
    encoder = TableEncoder(["age"], ["work"], scale=scale)
    encoder.fit(lambda: iter([table]))
    spec = spec_like(columns=encoder.describe()["columns"], shape=(2,))
    stored = torch.from_numpy(encoder.encode(table))
    shown = decode.cells(spec, stored)
    shown_ages = [float(age) for age, _ in shown]
    # Through the quantiles and back, float32 between them: years to a tenth.
    np.testing.assert_allclose(shown_ages, ages, atol=0.1)
    assert [work for _, work in shown] == work.tolist()
    assert decode.cells(spec, torch.tensor([[0.0, 0.0], [0.0, 1.4]]))[0][1] == "<unseen>"
    assert decode.cells(spec, torch.tensor([[0.0, 1.4]]))[0][1] == "1.40"


def test_numbers_are_short() -> None:
    spec = spec_like(columns=(Column(name="x", kind="numeric"),))
    x = torch.tensor([[0.000012345], [29.0], [102345.0], [-1234567.0], [3e12]])
    assert [row[0] for row in decode.cells(spec, x)] == [
        "1.234e-05",
        "29",
        "102,345",
        "-1,234,567",
        "3e+12",
    ]


@pytest.mark.parametrize("unit", ["word", "char", "bpe"])
def test_tokens_are_those_of_the_text(unit: Any) -> None:
    encoder = TextEncoder(unit=unit, vocab_size=300, min_frequency=1, lowercase=False)
    text = "a film\tof some\nlength , that is good"
    encoder.fit(lambda: iter([[text]]))
    spec = spec_like(kind="text", dtype="int32", **encoder.describe())
    ids = torch.from_numpy(np.append(encoder.encode([text])[0], [0, 0]))[None].long()
    (found,) = decode.tokens(spec, ids)
    expected = text.replace("\n", "⏎").replace("\t", "⇥")
    if unit == "word":
        expected = " ".join(text.split())
    assert decode.joint(spec).join(found) == expected


def test_labels_in_words() -> None:
    spec = spec_like(classes=("cat", "dog", "eel", "fox"))
    soft = [[0.7, 0.3, 0, 0], [1, 0, 0, 0], [0.4, 0.3, 0.2, 0.1], [0, 0.004, 0.996, 0]]
    assert decode.labels(spec, torch.tensor([1, 0])) == ["dog", "cat"]
    assert decode.labels(spec, torch.tensor(soft)) == [
        "cat 0.7 / dog 0.3",
        "cat",
        "cat 0.4 / dog 0.3 / eel 0.2",
        "eel",
    ]
    one = spec_like(task="regression", targets=("price",))
    assert decode.labels(one, torch.tensor([[12.5]])) == ["12.5"]
    two = spec_like(task="regression", targets=("price", "rent"))
    assert decode.labels(two, torch.tensor([[12.5, 3.0]])) == ["price 12.5, rent 3"]


def test_random_numbers_are_kept() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    seeding.seed_everything(1)
    expected = draw()
    seeding.seed_everything(1)
    with suppress(KeyError), seeding.kept():
        draw()
        raise KeyError
    assert draw() == expected


SYNTHETIC = ("data=synthetic", "data.source.num_samples=150")


def test_the_verb(litlab: Any, project: Path) -> None:
    code, out, err = litlab("preview", *SYNTHETIC, "--json")
    assert code == 0
    said = json.loads(out)
    picture = project / "reports" / "preview-synthetic.png"
    assert Path(said["picture"]) == picture
    with Image.open(picture) as image:
        image.verify()
    written = json.loads(picture.with_suffix(".json").read_text())
    assert said["statistics"] == written
    assert "reports/preview-synthetic.png" in err
    content = picture.read_bytes()
    code, out, _ = litlab("preview", *SYNTHETIC, "--out", "deep/own.png")
    assert (code, out) == (0, "")
    assert (project / "deep" / "own.png").read_bytes() == content
    assert not (project / "runs").exists()


def test_where_it_cannot_go(litlab: Any, project: Path) -> None:
    code, out, err = litlab("preview", *SYNTHETIC, "--out", "own.jpg")
    assert (code, out) == (2, "")
    assert err.startswith("error: 'own.jpg' is not a .png file | --out | ")
    (project / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write there") as fault:
        preview.preview(config_of("image"), project / "file" / "own.png")
    assert fault.value.exit_code == 5


def test_an_altered_leakage_report_is_not_shown(project: Path) -> None:
    config = config_of("image")
    folder = module_of(config).folder
    file = folder / "leakage.json"
    whole = file.read_bytes()
    place = whole.index(b'"sizes"') + 20
    for damaged in (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], b"{}", None):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(DataError, match="altered|missing") as fault:
            preview.preview(config, project / "p.png")
        assert fault.value.where == str(file)
    file.write_bytes(whole)
    preview.preview(config, project / "p.png")


def test_a_leakage_report_of_an_earlier_version_or_none(project: Path) -> None:
    data = module_of(config_of("image"))
    (data.folder / "leakage.json").rename(data.folder / "guard.json")
    assert preview.write_preview(data, project / "p.png").leakage
    (data.folder / "guard.json").unlink()
    (data.folder / "leakage.json").write_text("{}")
    assert preview.write_preview(data, project / "p.png").leakage == ()
    (data.folder / "leakage.json").unlink()
    assert preview.write_preview(data, project / "p.png").leakage == ()
