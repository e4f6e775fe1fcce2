"""Profilers, and the presets that find mistakes."""

import pytest
import torch
from torch import nn

from litlab.config.compose import load
from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.runs.tracking.history import read_rows
from litlab.training.run import train
from litlab.utils.errors import NonFiniteError
from run_helpers import THIRD_PARTY, ready_store, small, small_run

pytestmark = THIRD_PARTY
LITTLE = (
    "data=synthetic",
    "data.source.num_samples=150",
    "trainer.accelerator=cpu",
    "trainer.progress=none",
    "loader.batch_size=16",
)


def overfit(batches):
    return f"trainer.overfit_batches={batches}", "trainer.limit_train_batches=null"


@pytest.mark.parametrize(
    ("kind", "word"),
    [("simple", "run_training_batch"), ("advanced", "ncalls"), ("pytorch", "aten")],
)
def test_a_profilers_report_is_kept(project, kind, word):
    result = small_run(project, f"trainer.profiler={kind}")
    (table,) = result.folder.glob("*profile*.txt")
    assert word in table.read_text()
    assert (kind == "pytorch") == bool(list(result.folder.glob("*profile*.json")))
    from mlflow.tracking import MlflowClient

    store = MlflowClient(ready_store(project))
    kept = {item.path for item in store.list_artifacts(result.record.run_id)}
    assert {path.name for path in result.folder.glob("*profile*")} <= kept
    plain = small_run(project)
    assert not list(plain.folder.glob("*profile*"))
    assert plain.record.metrics == result.record.metrics


def test_a_training_too_short_for_a_profile_says_so(project, capsys):
    result = small_run(
        project, "trainer.profiler=pytorch", "trainer.max_epochs=1", "trainer.limit_train_batches=1"
    )
    assert "no profile" in capsys.readouterr().err
    assert not list(result.folder.glob("*profile*"))


def test_one_batch_is_one_batch(project):
    ready_store(project)
    result = train(load([*LITTLE, "trainer=one_batch", "trainer.progress=none"]))
    assert result.record.epochs == 1
    assert torch.load(result.folder / "last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_one_batch_is_learnt_by_heart(project, capsys, model):
    ready_store(project)
    times = {"mlp": 200}.get(model, 100)
    settings = [f"model={model}", "trainer=overfit", "trainer.progress=none"]
    config = load([*LITTLE, *settings, f"trainer.max_epochs={times}"])
    result = train(config)
    said = capsys.readouterr().err
    assert "memorized, as expected" in said
    losses = [row["train/loss"] for row in read_rows(result.folder / "history.csv")]
    assert losses[-1] < 0.01 * losses[0]
    assert torch.load(result.folder / "last.ckpt", weights_only=True)["global_step"] == times


def test_what_cannot_learn_is_said(project, capsys):
    small_run(project, *overfit(2), "optimizer.lr=1e-9", "trainer.max_epochs=3")
    said = capsys.readouterr().err
    assert "which is not near zero" in said
    assert "2 batches" in said


@pytest.mark.parametrize("kind", ["image", "text"])
def test_it_is_the_same_batch_each_epoch_and_a_mixed_one(project, kind):
    config = small(f"data.source.kind={kind}")
    prepared, spec = open_or_prepare(config.data, config.trust)
    data = ArrayDataModule(prepared, spec, config.loader, {}, seed=0, repeat=True)
    data.open()

    def first(epoch):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return next(iter(loader))

    assert torch.equal(first(0)[2], first(7)[2])
    assert torch.equal(first(0)[0], first(7)[0])
    assert len(first(0)[1].unique()) > 1
    assert not torch.equal(first(0)[2], torch.arange(16))


def test_it_is_not_augmented(project):
    noise = {"noise": {"_target_": "litlab.data.augment.noise.Noise"}}
    plain = small_run(project, *overfit(1))
    noisy = small_run(project, *overfit(1), augment=noise)
    assert plain.record.metrics == noisy.record.metrics


class Wrong(nn.Module):
    """The slope of the square root at zero, from the third step on: finite on the way there."""

    def __init__(self, spec):
        super().__init__()
        self.layer, self.steps = nn.Linear(144, spec.num_outputs), 0

    def forward(self, x):
        self.steps += self.training
        out = self.layer(x.flatten(1))
        return out + 0 * (0 * out).sqrt() if self.steps > 2 else out


@pytest.mark.filterwarnings("always:Error detected in:UserWarning")
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_anomaly_detection_names_the_operation(project):
    with pytest.raises(NonFiniteError, match="SqrtBackward0") as caught:
        small_run(
            project,
            "trainer.detect_anomaly=true",
            model={"_target_": "test_debugging.Wrong"},
            trust=["test_debugging"],
        )
    assert caught.value.exit_code == 6
    assert "test_debugging.py, line" in caught.value.where
    assert "(0 * out).sqrt()" in caught.value.where
    assert load(["trainer=anomaly"]).trainer.detect_anomaly
