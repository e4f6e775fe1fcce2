"""What a user is told who types a wrong command line, or uses the Python API wrongly."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from torch import nn

import litlab
from litlab.data.inputs.read_input import read_values
from litlab.evaluation.run import Runs, _search, _unknown_names
from litlab.runs.checkpoint.changes import Change
from litlab.runs.checkpoint.resume import Interruption, _refuse_passed
from litlab.tasks.own_module import require_logged
from litlab.tuning.study.settings import StudySettings, load_settings
from litlab.utils.output import table
from run_helpers import SMALL, THIRD_PARTY, small

pytestmark = [*THIRD_PARTY, pytest.mark.filterwarnings("ignore:.*does not have many workers")]
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}

# The command line: what is typed, and parts of the one line that answers it.

TYPED = [
    (
        "tune study=quick --n-trials 3",
        "no option '--n-trials' | --n-trials 3 | use study.n_trials=3",
    ),
    ("tune study=quick --workers=2", "no option '--workers' | --workers=2 | use study.workers=2"),
    ("tune study=quick workers=2", "no setting 'workers' | workers=2 | use study.workers=2"),
    ("tune study=quick --lr 1e-3", "use optimizer.lr=1e-3"),
    ("train model=mlp,cnn", "model takes one choice, not 2 | model=mlp,cnn | run the command once"),
    ("train data=digits,wine", "data takes one choice, not 2 | data=digits,wine | run the command"),
    (
        "train data=table data.path=x.csv data.source.target=y data.source.drop=id",
        "use 'data.source.drop=[id]'",
    ),
    ("train trust=mine", "use 'trust=[mine]'"),
    ("train seed=1.5", "use e.g. seed=2"),
    ("train seed=-3", "use e.g. seed=3"),
    ("train data.val_fraction=7", "use e.g. data.val_fraction=0.1"),
    ("train optimizer.lr=fast", "use e.g. optimizer.lr=1"),
    ("tune quick", "no study is given | quick | use study=quick"),
    ("train augment=crop,flip", "use 'augment=[crop,flip]'"),
]


@pytest.mark.parametrize(("typed", "answer"), TYPED)
def test_a_wrong_command_line_is_answered(
    project: Any, litlab: Any, typed: str, answer: str
) -> None:
    code, _, err = litlab(*typed.split())
    assert code == 2
    assert answer in err
    assert len(err.splitlines()) == 1


def test_nothing_typed_is_answered_by_the_help(litlab: Any) -> None:
    code, out, err = litlab()
    assert (code, err) == (0, "")
    assert "Usage: litlab" in out
    assert len(out.splitlines()) > 20


def test_the_search_that_is_suggested_is_one(project: Any) -> None:
    with pytest.raises(litlab.ConfigError) as error:
        litlab.compose("data=digits", "model=mlp,cnn")
    words = error.value.fix.split("litlab tune ")[1].split(maxsplit=1)
    settings, _ = load_settings(["data=digits", words[0], words[1].strip("'")])
    assert settings.space["model"] == ["mlp", "cnn"]


def test_a_space_of_python_values_is_what_storage_gives_back() -> None:
    space = {"optimizer.lr": (1e-3, np.float32(0.5)), "model.depth": range(3), "loss": {"a": (1,)}}
    settings = StudySettings(name="x", space=space)
    assert settings.space == {
        "optimizer.lr": [1e-3, 0.5],
        "model.depth": [0, 1, 2],
        "loss": {"a": [1]},
    }


def test_a_number_of_epochs_that_is_passed_is_refused_before_the_start(tmp_path: Any) -> None:
    change = Change("trainer.max_epochs", 30, 22)
    found = Interruption(tmp_path, tmp_path / "last.ckpt", {"epoch": 23})
    with pytest.raises(litlab.ConfigError, match="is in epoch 24 already") as error:
        _refuse_passed([change], found)
    assert "use trainer.max_epochs=24 or more" in error.value.fix
    _refuse_passed([change._replace(new=24)], found)


# New data for a trained network.


@pytest.fixture(scope="module")
def image() -> Any:
    from made_data import make_spec

    return make_spec("image", (1, 8, 8))


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 1, 9, 9), "an array of shape (3, 1, 9, 9)"),
        ((3, 9, 9), "an array of shape (3, 9, 9)"),
        ((2, 5, 6, 7), "an array of shape (2, 5, 6, 7)"),
        ((0, 1, 8, 8), "there are no samples"),
    ],
)
def test_a_wrong_shape_is_told_as_it_was_given(image: Any, shape: Any, told: str) -> None:
    with pytest.raises(litlab.DataError) as error:
        read_values(np.zeros(shape, np.uint8), image)
    assert told in error.value.what


def test_what_is_no_image_is_told_so(image: Any, tmp_path: Any) -> None:
    import pandas as pd

    (tmp_path / "README.md").write_text("# text")
    for given, told in (
        (tmp_path / "README.md", "not an image"),
        (pd.DataFrame({"a": [1]}), "a DataFrame"),
    ):
        with pytest.raises(litlab.DataError) as error:
            read_values(given, image)
        assert error.value.what.startswith(told)
        assert "IDX" not in error.value.what


# Python: wrong arguments of public functions, each refused where it is given.


@pytest.fixture(scope="module")
def spec() -> Any:
    from made_data import make_spec

    return make_spec("tabular", (4,))


class Own(lightning.LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any: ...


WRONG: list[tuple[Callable[[Any, Any], object], str]] = [
    (lambda c, s: litlab.compose(["model=cnn"]), 'use litlab.compose("model=cnn")'),
    (lambda c, s: litlab.compose({"seed": 1, "name": None}), '("seed=1", "name=null")'),
    (lambda c, s: litlab.compose(model="cnn"), 'use litlab.compose("model=cnn")'),
    (lambda c, s: litlab.train("data=digits"), "str 'data=digits' was given, not Config"),
    (lambda c, s: litlab.train(c, task=Own), "task=Own(...)"),
    (lambda c, s: litlab.train(c, task=nn.Linear(4, 3)), "litlab.ClassificationTask(Linear(...))"),
    (lambda c, s: litlab.train(c, data=[1, 2]), "list was given, not LightningDataModule"),
    (lambda c, s: litlab.train(c, callbacks=lightning.Callback()), "callbacks=[...]"),
    (lambda c, s: litlab.train(c, task=Own(), monitor=3), "int was given, not str"),
    (lambda c, s: litlab.cross_validate("digits"), "give what litlab.compose("),
    (lambda c, s: litlab.tune("digits"), "give what litlab.compose("),
    (lambda c, s: litlab.tune(c, 3), "int was given, not str"),
    (lambda c, s: litlab.DataModule("digits"), "str 'digits' was given, not Config"),
    (lambda c, s: litlab.models.CNN(10), "give data.spec"),
    (lambda c, s: litlab.models.MLP("digits"), "give data.spec"),
    (lambda c, s: litlab.models.Transformer(None), "give data.spec"),
    (lambda c, s: litlab.runs(3), "litlab.runs(query)"),
    (lambda c, s: litlab.runs(trust="mine"), 'trust=["my_package"]'),
    (lambda c, s: litlab.Run.load(3), "litlab.Run.load(reference)"),
    (lambda c, s: litlab.ClassificationTask("cnn"), "model is 'cnn'"),
    (lambda c, s: litlab.ClassificationTask(nn.Linear), "model is the class Linear"),
    (lambda c, s: litlab.ClassificationTask(NET, 10), "spec is int"),
    (lambda c, s: litlab.ClassificationTask(NET, s, nn.CrossEntropyLoss()), "parts is Cross"),
    (lambda c, s: litlab.ClassificationTask(NET, loss=nn.CrossEntropyLoss), "loss is the class"),
    (lambda c, s: litlab.ClassificationTask(NET, optimizer="sgd"), "optimizer is 'sgd'"),
    (lambda c, s: litlab.ClassificationTask(NET, optimizer=SGD), "optimizer is SGD"),
    (lambda c, s: litlab.ClassificationTask(NET, scheduler="cosine"), "scheduler is 'cosine'"),
    (
        lambda c, s: litlab.ClassificationTask(NET, scheduler=torch.optim.lr_scheduler.StepLR),
        "scheduler is the class StepLR",
    ),
    (lambda c, s: litlab.ClassificationTask(NET, metrics=[1]), "metrics is list"),
    (lambda c, s: litlab.ClassificationTask(NET, metrics={"f1": 1}), "metrics is dict"),
    (lambda c, s: litlab.RegressionTask(NET, s), "use litlab.ClassificationTask"),
]
NET = nn.Linear(4, 3)
SGD = torch.optim.SGD(NET.parameters(), lr=0.1)


@pytest.mark.parametrize(("call", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_wrong_argument_is_answered_in_one_line(
    project: Any, spec: Any, call: Callable[[Any, Any], object], told: str
) -> None:
    with pytest.raises(litlab.ConfigError) as error:
        call(small(), spec)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (project / "runs").exists()


def test_a_given_task_that_does_not_fit_the_data_is_refused_before_a_step(project: Any) -> None:
    config = small()
    data = litlab.DataModule(config)
    two = litlab.ClassificationTask(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)))
    trainer = lightning.Trainer(max_epochs=1, **QUIET)
    for fit in (lambda: litlab.train(config, task=two), lambda: trainer.fit(two, data)):
        with pytest.raises(litlab.ConfigError, match=r"it returns \(3, 2\) for 3 samples, not"):
            fit()
    assert trainer.global_step == 0
    assert not (project / "runs").exists()
    regression = litlab.RegressionTask(two.model)
    with pytest.raises(litlab.ConfigError, match="RegressionTask does not fit"):
        trainer.fit(regression, data)


def test_a_loader_needs_no_setup_and_trainers_other_verbs_are_answered(project: Any) -> None:
    data = litlab.DataModule(small())
    x, y, _ = next(iter(data.train_dataloader()))
    assert len(x) == len(y) == 16
    task = litlab.ClassificationTask(litlab.models.SimpleNN(data.spec))
    trainer = lightning.Trainer(**QUIET)
    with pytest.raises(litlab.ConfigError, match=r"use litlab.train\(config, task=task\)"):
        trainer.test(task, data)
    with pytest.raises(litlab.ConfigError, match="validate"):
        trainer.test(task, data.val_dataloader())
    batches = trainer.predict(task, data)
    predicted = torch.cat(batches)
    assert predicted.shape == (data.spec.sizes["val"], data.spec.num_outputs)
    assert torch.allclose(predicted.sum(1), torch.ones(len(predicted)))


class Logs(Own):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_acc", torch.log(batch))
        self.log_dict({"val_loss": batch}, on_epoch=True)


class Hides(Logs):
    def on_train_epoch_end(self) -> None:
        for name in ("a", "b"):
            self.log(name, 1.0)


@pytest.mark.parametrize(
    ("kind", "monitor", "told"),
    [
        (Logs, "val_ac", "use monitor=val_acc"),
        (Logs, "val/loss", "use monitor=val_loss"),
        (Logs, "val_acc", None),
        (Logs, "val_loss_epoch", None),
        (Logs, "of_a_callback", None),
        (Hides, "val_ac", None),
    ],
)
def test_a_monitor_that_a_module_does_not_log(kind: Any, monitor: str, told: str | None) -> None:
    config = SimpleNamespace(monitor=monitor)
    if told is None:
        require_logged(config, kind())  # type: ignore[arg-type]
        return
    with pytest.raises(litlab.ConfigError) as error:
        require_logged(config, kind())  # type: ignore[arg-type]
    assert error.value.fix == told


def test_a_query_for_what_no_run_has_is_told(project: Any) -> None:
    def found(*_: Any, **__: Any) -> Any:
        return Page([SimpleNamespace(data=data)])

    data = SimpleNamespace(metrics={"best/val/accuracy": 1, "val/loss": 2}, params={"seed": "0"})
    client = SimpleNamespace(search_runs=found)
    query = "metrics.`best/val/acuracy` > 0.5 and params.sed = '1' and metrics.`val/loss` < 3"
    told = list(_unknown_names(client, ["0"], query))
    assert told == [
        "no run has the metric 'best/val/acuracy': did you mean 'best/val/accuracy'?",
        "no run has the param 'sed': did you mean 'seed'?",
    ]

    def refused(*_: Any, order_by: Any = None, **__: Any) -> Any:
        if order_by:
            raise MlflowException("Invalid attribute key 'accuracy' specified. {'status', ...}")
        return found()

    client.search_runs = refused
    with pytest.raises(litlab.ConfigError) as error:
        list(_search(client, ["0"], "accuracy > 0.5"))
    assert error.value.fix == "write metrics.`best/val/accuracy`"
    assert "status" not in str(error.value)


class Page(list[Any]):
    token = None


def test_found_runs_are_a_list_that_can_be_read(project: Any) -> None:
    none = litlab.runs()
    assert (len(none), repr(none)) == (0, "no runs")
    assert repr(Runs([1, 2])) == "1\n2"  # type: ignore[list-item]


# What is printed of an object, and read from it.


def test_objects_print_in_a_line(project: Any) -> None:
    config = litlab.compose(*SMALL, "model.width=9")
    data = litlab.DataModule(config)
    for shown, told in (
        (config, "Config(synthetic-simplenn, model SimpleNN, loss CrossEntropy, optimizer adamw"),
        (data.spec, "DataSpec(synthetic, image 1x12x12, classification, 3 outputs, 96 train"),
        (data, "DataModule(DataSpec(synthetic"),
    ):
        for text in (repr(shown), str(shown)):
            assert text.startswith(told)
            assert "\n" not in text
            assert len(text) < 200


def test_a_setting_is_read_by_its_path() -> None:
    config = litlab.compose("data=digits", "optimizer.lr=0.02")
    assert config["optimizer.lr"] == 0.02
    assert config["data.val_fraction"] == config.data.val_fraction
    assert config["trainer"] is config.trainer
    with pytest.raises(KeyError, match="did you mean 'lr'"):
        config["optimizer.lrr"]


def test_the_version_and_the_names() -> None:
    assert litlab.__version__.count(".") >= 1
    public = [name for name in dir(litlab) if not name.startswith("__")]
    assert public == sorted(litlab.__all__)


def test_a_choice_that_is_another_form_of_a_network_names_the_run() -> None:
    assert litlab.compose("data=digits", "model=text_cnn").run_name == "digits-text_cnn"
    assert litlab.compose("data=digits", "model=simple_nn").run_name == "digits-simplenn"
    assert litlab.compose("data=digits", "model=text_cnn", "name=mine").run_name == "mine"


# The help.


def test_the_help_of_all_commands_is_not_cut(litlab: Any) -> None:
    _, out, _ = litlab("--help")
    assert "..." not in out.partition("Commands:")[2]


def test_the_help_of_tune_has_every_setting_of_a_study(litlab: Any) -> None:
    _, out, _ = litlab("tune", "--help")
    missing = [name for name in StudySettings.model_fields if f"study.{name}" not in out]
    assert missing == []
    assert "trainer.max_epochs" not in out
    assert "list[str]" not in out


def test_all_settings_are_shown_without_writing_them(project: Any, litlab: Any) -> None:
    code, out, err = litlab("params", "--show", "data=digits", "seed=3")
    assert (code, err) == (0, "")
    assert "seed: 3" in out
    assert not (project / "params.yaml").exists()


def test_a_table_ends_lines_with_their_values() -> None:
    text = str(table("title", {"a": "1", "longer": "x" * 200}))
    assert text == f"title\na       1\nlonger  {'x' * 200}"
