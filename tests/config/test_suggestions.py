import shlex
from typing import Any

import pytest

from litlab.config.compose import compose, load, outline
from litlab.config.suggestions import suggest, translate
from litlab.config.validate import check_config
from litlab.utils.errors import ConfigError

READY = [
    ("lr=1e-3", "optimizer.lr=1e-3"),
    ("learning_rate=0.1", "optimizer.lr=0.1"),
    ("optimizer.learning_rate=0.1", "optimizer.lr=0.1"),
    ("epochs=5", "trainer.max_epochs=5"),
    ("max_epochs=5", "trainer.max_epochs=5"),
    ("Trainer.max_epochs=5", "trainer.max_epochs=5"),
    ("batch_size=32", "loader.batch_size=32"),
    ("weight_decay=0.1", "optimizer.weight_decay=0.1"),
    ("dropout=0.1", "model.dropout=0.1"),
    ("devices=2", "trainer.devices=2"),
    ("device=cpu", "trainer.accelerator=cpu"),
    ("gpus=0", "trainer.accelerator=cpu"),
    ("early_stopping=true", "'trainer.early_stopping={patience: 10}'"),
    ("early_stopping=5", "'trainer.early_stopping={patience: 5}'"),
    ("patience=5", "'trainer.early_stopping={patience: 5}'"),
    ("scheduler=plateau patience=5", "scheduler.patience=5"),
    ("precision=bf16", "trainer.precision=bf16-mixed"),
    ("optimizer=Adam", "optimizer=adam"),
    ("model=resnet", "model=cnn model.block=residual"),
    ("model=CNNN", "model=cnn"),
    ("dataset=wine", "data=wine"),
    ("modle=cnn", "model=cnn"),
    ("model=mlp hidden=64", "'model.hidden=[64]'"),
    ("data=table data.path=x.csv data.target=Y", "data.source.target=Y"),
    ("data=text data.path=x.csv data.target=Y", "data.source.label=Y"),
    ("data=npz data.path=x.npz data.target=Y", "data.source.y=Y"),
    ("data=table data.path=x.csv 'target=CO(GT)'", """'data.source.target="CO(GT)"'"""),
    ("lr=1e-3 epochs=5 optimizer=Adam", "optimizer.lr=1e-3 trainer.max_epochs=5 optimizer=adam"),
]


@pytest.mark.parametrize(("typed", "fix"), READY)
def test_the_fix_is_ready_to_type_and_works(project: Any, typed: str, fix: str) -> None:
    words = shlex.split(typed)
    with pytest.raises(ConfigError) as error:
        load(words)
    assert error.value.fix == f"use {fix}"
    wrong = shlex.split(error.value.where)
    rest = [word for word in words if word not in wrong]
    load([*rest, *shlex.split(fix)])


ADVICE = [
    ("num_workers=4", "leave num_workers out: batches are cut from arrays in memory"),
    ("data.target=Y", "data.source.target is a setting of data=hub, data=table, "),
    ("momentum=0.9", "optimizer.momentum is a setting of optimizer=muon, optimizer=sgd"),
    ("model=mlp model.kernel_size=3", "model.kernel_size is a setting of model=cnn"),
    ("study=quick", "only `litlab tune` takes a study"),
    ("gpus=1", "use trainer.accelerator=gpu trainer.devices=1"),
    ("precision=16", "use trainer.precision=16-mixed"),
    ("data=./file.csv", "use data=auto data.path=./file.csv data.target=COLUMN"),
    ("data=a/b.npz", "use data=auto data.path=a/b.npz"),
    ("data=photos/", "use data=auto data.path=photos/"),
    ("trainer.early_stopping=true", "use 'trainer.early_stopping={patience: 10}'"),
    ("trainer.precision=bf16", "use trainer.precision=bf16-mixed"),
    ("seed.x=3", "seed holds a value and no further settings"),
]


@pytest.mark.parametrize(("typed", "fix"), ADVICE)
def test_what_cannot_be_typed_is_explained(project: Any, typed: str, fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(shlex.split(typed))
    assert fix in error.value.fix


def test_all_slips_of_a_command_line_are_answered_at_once(project: Any) -> None:
    with pytest.raises(ConfigError) as error:
        load(["seed=3", "lr=1", "num_workers=2", "model=resnett", "patience=3"])
    assert error.value.what == (
        "no setting 'lr', 'num_workers', 'patience'; model has no choice 'resnett'"
    )
    assert error.value.where == "lr=1 num_workers=2 model=resnett patience=3"
    assert "use optimizer.lr=1 'trainer.early_stopping={patience: 3}'; " in error.value.fix


def test_unknown_keys_of_a_file_are_answered_at_once() -> None:
    content = {**compose(), "lr": 0.1, "epochs": 3}
    with pytest.raises(ConfigError) as error:
        check_config(content, origin="params.yaml")
    assert error.value.what == "no setting 'lr', 'epochs'"
    assert error.value.where == "params.yaml"
    assert error.value.fix == "use optimizer.lr trainer.max_epochs"


def test_a_password_is_not_repeated(project: Any) -> None:
    with pytest.raises(ConfigError) as error:
        load(["mlflow_uri=http://me:secret-word@host"])
    assert "secret-word" not in str(error.value)
    assert "tracking.uri=" in error.value.fix


def test_every_alias_leads_to_a_setting_that_exists() -> None:
    from litlab.config import suggestions

    fields = ("study.n_trials", "study.time_limit")
    chosen = (
        [],
        ["model=mlp"],
        ["model=transformer"],
        ["data=table"],
        ["data=text"],
        ["data=npz"],
    )
    known = {path for overrides in chosen for path in suggestions.paths(outline(overrides))}
    for path in (path for paths in suggestions._ALIASES.values() for path in paths):
        assert path in known or path in fields


def test_choices_that_stand_for_others_exist(project: Any) -> None:
    from litlab.config import suggestions

    for overrides in suggestions._CHOICES.values():
        compose(overrides)


@pytest.mark.parametrize(
    ("setting", "value", "meant"),
    [
        ("trainer.precision", 16, "16-mixed"),
        ("trainer.early_stopping", False, "null"),
        ("trainer.ema", True, "{decay: 0.999}"),
        ("trainer.ema", "x", None),
        ("seed", "x", None),
    ],
)
def test_translated_values(setting: str, value: object, meant: str | None) -> None:
    assert translate(setting, value) == meant


def test_nothing_known_lists_what_there_is() -> None:
    assert str(suggest("xyzzy", {"seed": 0}, "1")).startswith("one of: augment, data")
