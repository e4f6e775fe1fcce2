"""What a user of Python sees: the public names, runs, tasks under a plain Trainer, own modules."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassF1Score

import forked
import litlab
from litlab.config.compose import load
from litlab.data.prepare.open import open_or_prepare
from litlab.evaluation.run import Run
from run_helpers import SMALL, THIRD_PARTY, mlflow_run, ready_store

pytestmark = [
    *THIRD_PARTY,
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]
ROOT = Path(__file__).parents[1]
NAMES = {
    *("compose", "inspect", "train", "tune", "cross_validate", "runs"),
    *("Config", "Run", "Study", "DataModule", "DataSpec", "models"),
    *("ClassificationTask", "MultiLabelTask", "RegressionTask", "LanguageModelTask"),
    *("LitlabError", "ConfigError", "DataError", "CheckpointError", "EnvironmentFault"),
    *("NonFiniteError", "Interrupted"),
}
MODELS = {"MLP", "CNN", "Transformer", "SimpleNN", "SimpleCNN"}
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


# The names.


def test_the_public_names() -> None:
    assert set(litlab.__all__) == NAMES
    assert set(litlab.models.__all__) == MODELS
    for name in NAMES:
        found = getattr(litlab, name)
        assert name in dir(litlab)
        assert found.__doc__, name
    for name in MODELS:
        assert issubclass(getattr(litlab.models, name), nn.Module)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        litlab.trian  # noqa: B018


def test_the_public_names_are_on_the_page_and_typed() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert {
        name for name in NAMES if f"`{name}" not in page and f"litlab.{name}" not in page
    } == set()
    source = (ROOT / "src" / "litlab" / "__init__.py").read_text()
    typed = source.partition("if TYPE_CHECKING:")[2].partition("# Public name")[0]
    assert {name for name in NAMES if name not in typed} == set()


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = """
import sys, time
before = time.perf_counter()
import litlab
seconds = time.perf_counter() - before
heavy = {"torch", "lightning", "mlflow", "hydra", "pandas", "numpy", "pydantic"}
print(seconds, sorted(heavy & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    seconds, heavy = done.stdout.split(" ", 1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.2


# Runs.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, litlab.Run]]:
    """A project with one small run."""
    folder = tmp_path_factory.mktemp("api")
    shutil.copytree(ROOT / "conf", folder / "conf")
    ready_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
            patch.delenv(name)
        config = litlab.compose(*SMALL, "trainer.max_epochs=2")
        yield folder, litlab.train(config, preview=False)


@pytest.fixture
def run(trained: tuple[Path, litlab.Run], monkeypatch: pytest.MonkeyPatch) -> litlab.Run:
    monkeypatch.chdir(trained[0])
    return trained[1]


def test_compose_is_what_the_command_line_composes(project: Path) -> None:
    words = ["data=digits", "model=mlp", "optimizer.lr=1e-2"]
    config = litlab.compose(*words)
    assert isinstance(config, litlab.Config)
    assert config.model_dump() == load(words).model_dump()
    with pytest.raises(litlab.ConfigError) as refused:
        litlab.compose("modle=cnn")
    assert str(refused.value) == "error: no setting 'modle' | modle=cnn | use model=cnn"


def test_a_run(run: litlab.Run) -> None:
    assert run.id == mlflow_run(run.folder.parents[1], run.id).info.run_id
    assert run.checkpoint == run.folder / "best.ckpt"
    assert run.checkpoint.is_file()
    history = run.history
    assert list(history["epoch"]) == [0, 1]
    best = history.loc[history["val/loss"].idxmin()]
    assert run.metrics["val/loss"] == best["val/loss"] == run.record.metrics["val/loss"]
    assert "val/accuracy" in repr(run)
    assert "\n" not in repr(run)


def test_an_earlier_run(run: litlab.Run) -> None:
    for reference in (run.id, run.folder, run.name, "last"):
        again = litlab.Run.load(reference)
        assert (again.id, again.metrics) == (run.id, run.metrics)
    with pytest.raises(litlab.CheckpointError, match="no such run"):
        litlab.Run.load("nothing-of-the-kind")
    alone = shutil.copy(run.checkpoint, run.folder.parents[1] / "alone.ckpt")
    with pytest.raises(litlab.CheckpointError, match="no run.json beside it"):
        litlab.Run.load(alone)


def test_searching_runs(run: litlab.Run) -> None:
    assert [one.id for one in litlab.runs()] == [run.id]
    last = run.history["val/accuracy"].iloc[-1]
    assert [one.id for one in litlab.runs(f"metrics.`val/accuracy` >= {last}")] == [run.id]
    assert list(litlab.runs(f"metrics.`val/accuracy` > {last + 0.01}")) == []
    with pytest.raises(litlab.ConfigError, match="error: Invalid"):
        list(litlab.runs("metrics.val/accuracy >"))


def test_a_folder_with_a_later_run_is_not_the_run_that_was_found(project: Path) -> None:
    ready_store(project)
    words = [*SMALL, "trainer.max_epochs=1"]
    for rate in ("0.01", "0.02"):
        shutil.rmtree(project / "one", ignore_errors=True)
        litlab.train(litlab.compose(*words, f"optimizer.lr={rate}"), project / "one", preview=False)
    with pytest.warns(UserWarning, match="1 more runs match, but their folders"):
        assert list(litlab.runs("params.`optimizer.lr` = '0.01'")) == []
    (found,) = litlab.runs("params.`optimizer.lr` = '0.02'")
    assert found.record.run_id == found.id


def test_no_runs_and_no_store(project: Path) -> None:
    assert list(litlab.runs()) == []
    assert not (project / "mlflow.db").exists()


def test_measuring_a_run(run: litlab.Run) -> None:
    evaluation = run.evaluate()
    assert set(evaluation.metrics) == {"loss", "accuracy", "f1"}
    assert (evaluation.folder / "report.html").is_file()
    stored = mlflow_run(run.folder.parents[1], run.id).data.metrics
    assert stored["test/accuracy"] == pytest.approx(evaluation.metrics["accuracy"])


def test_predicting_arrays(run: litlab.Run, tmp_path: Path) -> None:
    spec = open_or_prepare(litlab.compose(*SMALL).data, [])[1]
    images = np.random.default_rng(0).integers(0, 256, (4, *spec.shape)).astype(np.uint8)
    table = run.predict(images)
    assert list(table.columns[:3]) == ["input", "prediction", "confidence"]
    assert set(table["prediction"]) <= set(spec.classes)
    np.testing.assert_allclose(table.iloc[:, 3:].sum(axis=1), 1, rtol=1e-5)
    np.save(tmp_path / "images.npy", images)
    for same in (torch.from_numpy(images), list(images), tmp_path / "images.npy"):
        pd.testing.assert_frame_equal(run.predict(same).iloc[:, 1:], table.iloc[:, 1:])
    twice = run.predict([tmp_path / "images.npy", str(tmp_path / "images.npy")])
    assert len(twice) == 8
    for wrong, what in (
        (images[:, :, :3], "an array of shape"),
        (images / 255, "images of float64"),
        ([images[0], images[1, :, :2]], "arrays of several shapes"),
        ([], "there are no samples"),
        (7, "cannot read data from int"),
        (tmp_path / "no.npy", "there is no such input"),
    ):
        with pytest.raises(litlab.DataError, match=what):
            run.predict(wrong)


def test_predicting_tables(project: Path) -> None:
    frame = pd.DataFrame(
        {
            "a": np.random.default_rng(0).normal(size=80),
            "b": ["x", "y"] * 40,
            "y": ["no", "yes"] * 40,
        }
    )
    frame.to_csv("people.csv", index=False)
    ready_store(project)
    words = [o for o in SMALL if "data" not in o]
    words += ["data=table", "data.path=people.csv", "data.source.target=y", "augment=none"]
    run = litlab.train(litlab.compose(*words, "data.allow=[exact_duplicates]"), preview=False)
    new = pd.DataFrame({"b": ["y", "x"], "a": [1.5, 2.5]}, index=["first", "second"])
    table = run.predict(new)
    assert list(table["input"]) == ["first", "second"]
    new.to_csv("new.csv", index=False)
    pd.testing.assert_frame_equal(run.predict("new.csv").iloc[:, 1:], table.iloc[:, 1:])
    with pytest.raises(litlab.DataError) as refused:
        run.predict(new.drop(columns="a"))
    assert "DataFrame" in refused.value.where
    assert "/" not in refused.value.where
    with pytest.raises(
        litlab.DataError, match="not named as in training: 0, 1, ... for a, b"
    ) as bad:
        run.predict(new.set_axis([0, 1], axis=1))
    assert "to_numpy" not in bad.value.fix  # a cell is a category
    assert len(run.predict(new.assign(**{"c": 1}).rename(columns={"c": 7}))) == 2
    with pytest.raises(litlab.ConfigError, match="DataFrame was given, .*save a table as a file"):
        litlab.train(litlab.compose(*words), data=frame)
    with pytest.raises(litlab.ConfigError, match="Linear was given, not LightningModule"):
        litlab.train(litlab.compose(*words), task=nn.Linear(2, 2))
    with pytest.raises(litlab.DataError, match="cannot hold a table's categories"):
        run.predict(np.zeros((2, 2)))


def test_predicting_texts(project: Path) -> None:
    texts = [f"{'good' if i % 2 else 'bad'} film {'of' if i % 3 else 'with'} us" for i in range(80)]
    pd.DataFrame({"text": texts, "label": ["yes" if i % 2 else "no" for i in range(80)]}).to_csv(
        "films.csv", index=False
    )
    ready_store(project)
    words = [o for o in SMALL if "data" not in o]
    words += [
        "data=text",
        "data.path=films.csv",
        "augment=none",
        "data.allow=[near_duplicates,exact_duplicates]",
    ]
    run = litlab.train(litlab.compose(*words), preview=False)
    table = run.predict(["good film with us", "bad film with us"])
    assert list(table["input"]) == ["0", "1"]
    frame = pd.DataFrame({"text": ["good film with us", "bad film with us"]})
    pd.testing.assert_frame_equal(run.predict(frame), table)


def test_an_error_shows_no_traceback_in_a_notebook() -> None:
    error = litlab.ConfigError("what", "where", "fix")
    assert error._render_traceback_() == ["error: what | where | fix"]  # what IPython asks for


# Under a plain Trainer.


@pytest.fixture(scope="module")
def data(trained: tuple[Path, litlab.Run]) -> litlab.DataModule:
    return litlab.DataModule(litlab.compose(*SMALL))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "loss": nn.CrossEntropyLoss(label_smoothing=0.1),
            "optimizer": partial(torch.optim.SGD, lr=0.1),
            "metrics": {"f1": MulticlassF1Score(num_classes=3, average="macro")},
            "monitor": "val/f1",
        },
        {"optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=0.01)},
    ],
    ids=["defaults", "parts", "function of the model"],
)
def test_a_task_under_lightnings_own_trainer(data: litlab.DataModule, settings: Any) -> None:
    torch.manual_seed(0)
    task = litlab.ClassificationTask(litlab.models.SimpleNN(data.spec, width=8), **settings)
    trainer = lightning.Trainer(max_epochs=3, **QUIET)
    (before,) = trainer.validate(task, data, verbose=False)
    trainer.fit(task, data)
    metric = "f1" if "metrics" in settings else "accuracy"
    assert {f"val/{metric}", f"train/{metric}", "val/loss"} <= trainer.callback_metrics.keys()
    if "monitor" in settings:
        assert task.parts.mode == "max"
    (measured,) = trainer.validate(task, data, verbose=False)
    assert measured["val/loss"] < before["val/loss"]
    assert measured["val/loss"] == pytest.approx(float(trainer.callback_metrics["val/loss"]))


def test_a_regression_under_lightnings_own_trainer(project: Path) -> None:
    config = litlab.compose("data=diabetes", "model=mlp")
    data = litlab.DataModule(config)
    torch.manual_seed(0)
    model = litlab.models.MLP(data.spec, hidden=(16,))
    task = litlab.RegressionTask(model, data.spec)
    trainer = lightning.Trainer(max_epochs=2, **QUIET)
    trainer.fit(task, data)
    # In the target's own unit, whose deviation is about 77; a mean that is not standardized is 152.
    assert 20 < float(trainer.callback_metrics["val/mae"]) < 120


def test_a_task_takes_parts_or_what_they_hold(data: litlab.DataModule) -> None:
    model = litlab.models.SimpleNN(data.spec)
    parts = litlab.ClassificationTask(model).parts
    with pytest.raises(ValueError, match="either parts"):
        litlab.ClassificationTask(model, data.spec, parts, loss=nn.CrossEntropyLoss())


def test_a_task_made_in_python_is_recorded_and_measured(
    trained: tuple[Path, litlab.Run], data: litlab.DataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained[0])
    torch.manual_seed(0)
    task = litlab.ClassificationTask(litlab.models.SimpleCNN(data.spec))
    config = litlab.compose(*SMALL, "trainer.max_epochs=1", "tracking.experiment=python")
    run = litlab.train(config, task=task, data=data, preview=False)
    stored = mlflow_run(trained[0], run.id).data
    assert stored.params["model.name"] == "litlab.models.simple.SimpleCNN"
    assert run.name == "synthetic-simplecnn"
    assert set(run.evaluate().metrics) == {"loss", "accuracy"}
    again = litlab.Run.load(run.folder)
    assert (run.can_evaluate, again.can_evaluate) == (True, False)
    with pytest.raises(litlab.CheckpointError, match="an object made in Python"):
        again.evaluate()
    fresh = litlab.ClassificationTask(litlab.models.SimpleCNN(data.spec))
    assert litlab.Run.load(run.folder, task=fresh).evaluate().metrics == run.evaluate().metrics
    with pytest.raises(litlab.ConfigError, match="not available"):
        litlab.train(litlab.compose(*SMALL, "trainer.lr_find=use"), task=task)


def test_the_record_says_what_a_data_module_was_made_of(project: Path) -> None:
    ready_store(project)
    other = litlab.compose(*SMALL)
    rest = [word for word in SMALL if not word.startswith("data")]
    made = litlab.DataModule(litlab.compose(*rest, "data=wine", "loader.batch_size=20"))
    task = litlab.ClassificationTask(litlab.models.MLP(made.spec, hidden=[4]))
    run = litlab.train(other, task=task, data=made, preview=False)
    stored = mlflow_run(project, run.id).data.params
    assert (stored["data.name"], stored["loader.batch_size"]) == ("wine", "20")
    with pytest.raises(litlab.ConfigError, match="another seed"):
        litlab.train(litlab.compose(*SMALL, "seed=3"), task=task, data=made)


# A LightningModule and a LightningDataModule of one's own.

OWN = '''
import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import litlab


class Module(lightning.LightningModule):
    def __init__(self, lr: float = 0.1, width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3)
        )
        self.net(torch.zeros(1, 20))

    def training_step(self, batch, batch_idx):
        x, y = batch[:2]
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch[:2]
        self.log("val_acc", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Data(lightning.LightningDataModule):
    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        x = torch.randn(96, 20, generator=torch.Generator().manual_seed(0))
        self.samples = TensorDataset(x, x[:, :3].argmax(1))

    def train_dataloader(self):
        return DataLoader(self.samples, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.samples, 48)


class Derived(litlab.ClassificationTask):
    """Cross entropy, and how far the logits lie from zero."""

    def __init__(self, model, spec, parts, *, weight: float = 0.01):
        super().__init__(model, spec, parts)
        self.weight = weight

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + self.weight * self(batch[0]).square().mean()
'''
TASK = ["task._target_=mine.Module", "trust=[mine]", "monitor=val_acc"]
DATA = ["data=datamodule", "data.source._target_=mine.Data", "augment=none"]
TRAINER = [o for o in SMALL if o.startswith("trainer")]


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (project / "mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    ready_store(project)
    import mine

    yield mine
    sys.modules.pop("mine", None)


def test_own_classes_by_the_command_line(own: Any, project: Path, litlab: Any) -> None:
    more = ["+task.width=4", "+data.source.batch_size=32", "trainer.max_epochs=2"]
    code, out, err = litlab("train", *DATA, *TASK, *TRAINER, *more, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["epochs"] == 2
    assert set(facts["metrics"]) == {"val_acc", "train_loss"}
    (said,) = [line for line in err.splitlines() if line.startswith("Module and Data:")]
    assert "without" in said
    assert "evaluate" in said
    assert "next:" not in err
    assert not Run.load("last", trust=["mine"]).can_evaluate
    stored = mlflow_run(project, facts["run_id"])
    assert stored.info.status == "FINISHED"
    assert "loader.batch_size" not in stored.data.params
    text = (Path(facts["folder"]) / "config.yaml").read_text()
    assert text.startswith("# no effect in this run: loader, augment\n")
    assert stored.data.params["task.width"] == "4"
    assert stored.data.metrics["best/val_acc"] == facts["metrics"]["val_acc"]
    again = own.Module.load_from_checkpoint(facts["checkpoint"])
    assert again.hparams.width == 4
    code, _, err = litlab("evaluate", "--trust", "mine")
    assert code == 4
    assert "whose outputs litlab does not know" in err


def test_what_a_module_logs_in_steps_is_recorded_once_an_epoch(own: Any, project: Path) -> None:
    class Steps(own.Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("last_loss", loss)
            return loss

    words = [*TRAINER, "data=synthetic", "trainer.max_epochs=2"]
    run = litlab.train(
        litlab.compose(*words), task=Steps(), data=own.Data(), monitor="val_acc", preview=False
    )
    assert not run.history["last_loss"].isna().any()
    assert len(run.history) == 2
    assert run.metrics["last_loss"] == run.history["last_loss"][run.record.best_epoch]
    assert mlflow_run(project, run.id).data.metrics["last_loss"] == run.history["last_loss"][1]


def test_parts_that_a_module_has_itself_are_not_recorded_as_used(own: Any, project: Path) -> None:
    words = [*DATA, *TASK, *TRAINER]
    typed = ["optimizer.lr=1e-9", "loader.batch_size=8"]
    with pytest.warns(UserWarning, match="no effect") as warned:
        run = litlab.train(litlab.compose(*words, *typed))
    said = [str(warning.message) for warning in warned]
    assert "optimizer.lr=1e-9: no effect, mine.Module has its own" in said
    assert "loader.batch_size=8: no effect, the data have their own" in said
    stored = mlflow_run(project, run.id).data.params
    assert stored["optimizer._target_"].endswith("given_in_python")
    assert "optimizer.lr" not in stored
    assert not [name for name in stored if name.startswith("metrics.")]
    for space in ({"optimizer.lr": [0.1, 0.01]}, {"loader.batch_size": [16, 32]}):
        with pytest.raises(litlab.ConfigError, match="varying it changes nothing"):
            litlab.tune(litlab.compose(*words), name="none", space=space, n_trials=2)


def test_manual_optimization_counts_its_steps_on(own: Any) -> None:
    always = "trainer.save_every_seconds=0"
    config = litlab.compose("data=synthetic", *TRAINER, "trainer.max_epochs=3", always)

    class Manual(own.Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def train(**more: Any) -> int:
        torch.manual_seed(0)
        run = litlab.train(config, task=Manual(), data=own.Data(), monitor="val_acc", **more)
        return int(torch.load(run.folder / "last.ckpt")["global_step"])

    whole = train()
    assert whole == 3 * 3  # batches in an epoch of trainer=debug
    with pytest.raises(litlab.Interrupted):
        train(callbacks=[_Stop()])
    assert train(resume=True) == whole


def test_what_is_refused_of_own_classes(own: Any, litlab: Any) -> None:
    for words, what in (
        (["+task.widht=4"], "did you mean 'width'"),
        (["monitor=score"], "set monitor_mode=min or monitor_mode=max"),
        (["trainer.compile=true"], "not available with a class of your own, Module"),
        (["task._target_=mine.Data"], "Data is not a LightningModule"),
        (["data.num_folds=3", "data.fold=0"], "not available with a class of your own, Module"),
        (["trainer.budget=1m"], "not available with a class of your own, Module"),
        (["trainer.swa={start: 0.5, lr: 0.01}"], "not available with a class of your own, Module"),
    ):
        code, _, err = litlab("train", *DATA, *TASK, *TRAINER, *words)
        assert code == 2, err
        assert what in err
    code, _, err = litlab("train", *DATA, "trust=[mine]", *TRAINER)
    assert code == 2
    assert "Data has no `spec`" in err


class _Stop(lightning.Callback):
    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (2, 1):
            raise KeyboardInterrupt


def test_own_classes_resume_from_the_last_epoch_bit_for_bit(own: Any) -> None:
    always = "trainer.save_every_seconds=0"
    config = litlab.compose("data=synthetic", *TRAINER, "trainer.max_epochs=4", always)

    def parts() -> dict[str, Any]:
        torch.manual_seed(0)
        return {"task": own.Module(), "data": own.Data(), "monitor": "val_acc"}

    whole = litlab.train(config, **parts())
    with pytest.raises(litlab.Interrupted):
        litlab.train(config, **parts(), callbacks=[_Stop()])
    rest = litlab.train(config, **parts(), resume=True)
    assert rest.record.resumed == 1
    pd.testing.assert_frame_equal(rest.history, whole.history)
    one, other = (torch.load(r.folder / "last.ckpt")["state_dict"] for r in (whole, rest))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_task_derived_from_litlabs(own: Any, litlab: Any) -> None:
    words = ["task._target_=mine.Derived", "trust=[mine]", "+task.weight=0.1"]
    code, _, err = litlab("train", *SMALL, *words)
    assert code == 0, err
    assert "without" not in err
    code, _, err = litlab("evaluate", "--trust", "mine")
    assert code == 0, err


def test_what_is_not_finite_is_never_the_best(own: Any) -> None:
    module = own.Module()
    module.validation_step = lambda batch, batch_idx: module.log(
        "val_acc", torch.tensor(float("nan"))
    )
    config = litlab.compose("data=synthetic", *TRAINER).model_copy(update={"monitor": "val_acc"})
    with pytest.raises(litlab.NonFiniteError, match="val_acc is nan"):
        litlab.train(config, task=module, data=own.Data(), monitor="val_acc")


# Studies, in a process of their own: they fork, and pytest has threads.

STUDY = """
import sys
import torch
torch.set_num_threads(2)
torch.ones(2**20).exp()  # threads that a forked process would wait for
import litlab

config = litlab.compose({small})
study = litlab.tune(config, name="tiny", space={{"optimizer.lr": [0.01, 0.05]}}, n_trials=2,
                    pruner="none", sampler="grid", finalists=0)
assert torch.get_num_threads() == 2
print(study)
assert study.outcome.trials["complete"] == 2
assert len(study.runs) == 2
assert study.config.optimizer["lr"] == study.best.get("optimizer.lr", 0.01)
assert study.page.is_file() and study.experiment.is_file()
own = litlab.compose(*{own}, *{trainer}, "trainer.max_epochs=1")
study = litlab.tune(own, name="own", space={{"task.lr": [0.1, 0.5]}}, n_trials=2, pruner="none",
                    sampler="grid", finalists=0)
assert study.outcome.trials["complete"] == 2, study.outcome.failed
"""


def test_studies(own: Any, project: Path) -> None:
    small = ", ".join(map(repr, SMALL))
    words = [*DATA, *TASK, "+task.lr=0.1"]
    code = STUDY.format(small=small, own=words, trainer=TRAINER)
    path = os.pathsep.join([str(ROOT / "src"), str(project)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    done = forked.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Study(tiny, 2 complete")


def test_what_a_study_refuses(project: Path) -> None:
    config = litlab.compose(*SMALL)
    changed = config.model_copy(update={"seed": 7})
    for arguments, what in (
        ((changed, "quick"), "was changed after it was composed"),
        ((config, "quik"), "did you mean 'quick'"),
        ((config,), "study.name"),
    ):
        with pytest.raises(litlab.ConfigError, match=what):
            litlab.tune(*arguments)
    with pytest.raises(litlab.ConfigError, match="did you mean 'n_trials'"):
        litlab.tune(config, "quick", n_trails=3)


# The notebook.


def test_the_notebook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    path = ROOT / "docs" / "notebooks" / "quickstart.ipynb"
    assert path.stat().st_size < 300_000
    notebook = json.loads(path.read_text())
    ready_store(project)
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell.replace("max_epochs=5", "max_epochs=1"), "<cell>", "exec"), names)
    assert names["run"].metrics["val/loss"] > 0
    assert len(list(litlab.runs())) == 2
    assert set(names["evaluation"].metrics) == {"loss", "accuracy", "f1"}
