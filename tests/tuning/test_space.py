"""What a study varies is checked before anything runs."""

import re
from pathlib import Path

import optuna
import pytest

from litlab.config.compose import load
from litlab.tuning.study.composer import Composer
from litlab.tuning.study.settings import load_settings
from litlab.tuning.study.space import Space, overrides
from litlab.utils.errors import ConfigError

optuna.logging.set_verbosity(optuna.logging.WARNING)


def space(**content):
    return Space({path.replace("__", "."): entry for path, entry in content.items()})


def draws(space: Space, n: int = 200) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(n)]


def test_ranges_and_choices() -> None:
    found = draws(
        space(
            optimizer__lr={"low": "1e-4", "high": 0.1},
            model__depth={"low": 1, "high": 3},
            loader__batch_size={"low": 16, "high": 64, "step": 16},
            model__activation=["relu", "gelu"],
            trainer__gradient_clip_val=[None, 1.0],
        )
    )
    rates = sorted(v["optimizer.lr"] for v in found)
    assert 1e-4 <= rates[0] < 3e-4 < 0.03 < rates[-1] <= 0.1
    # On a log scale half of them lie below the geometric mean.
    assert 80 <= sum(rate < 10**-2.5 for rate in rates) <= 120
    assert {v["model.depth"] for v in found} == {1, 2, 3}
    assert {v["loader.batch_size"] for v in found} == {16, 32, 48, 64}
    assert {v["model.activation"] for v in found} == {"relu", "gelu"}
    assert {v["trainer.gradient_clip_val"] for v in found} == {None, 1.0}


def test_a_part_that_depends_on_another() -> None:
    found = draws(
        space(
            model=["mlp", "cnn"],
            model__kernel_size={"choices": [3, 5], "when": {"model": "cnn"}},
        )
    )
    for values in found:
        assert ("model.kernel_size" in values) == (values["model"] == "cnn")


def test_overrides_win_and_groups_come_first() -> None:
    values = {"model.dropout": 0.25, "model": "cnn"}
    made = overrides(["data=digits", "model=mlp", "seed=3"], values)
    assert made == ["data=digits", "seed=3", "model=cnn", "model.dropout=0.25"]
    config = Composer(["data=digits", "model=mlp"])(values)
    assert config.model["_target_"].endswith("CNN")
    assert config.model["dropout"] == 0.25


@pytest.mark.parametrize("name", ["quick", "models", "tradeoff"])
def test_composed_quickly_is_composed_the_same(name) -> None:
    settings, base = load_settings([f"study={name}", "data=digits", "trainer.max_epochs=3"])
    composer = Composer(base)
    for values in draws(Space(settings.space), 12):
        assert composer(values) == load(overrides(base, values))


@pytest.mark.parametrize(
    "values",
    [
        {"trainer.gradient_clip_val": None},
        {"trainer.benchmark": True, "optimizer.lr": 1e-05},
        {"model.hidden": "[16,8]", "model.activation": "gelu"},
        {"name": "it is"},
        {"name": "1e-3"},
        {"optimizer": "sgd", "optimizer.lr": 1},
    ],
)
@pytest.mark.parametrize("extra", [[], ["+tracking.tags.team=a", "~metrics.f1"]])
def test_any_value_is_composed_as_hydra_does(values, extra) -> None:
    base = ["data=digits", "model=mlp", *extra]
    try:
        expected = load(overrides(base, values))
    except ConfigError as error:
        with pytest.raises(ConfigError, match=re.escape(error.what)):
            Composer(base)(values)
        return
    assert Composer(base)(values) == expected


def test_what_conf_refers_to_is_composed_anew() -> None:
    base = ["data=table", "data.path=x.csv", "data.source.target=y"]
    values = {"data.path": "y.csv", "optimizer.lr": 0.5}
    made = Composer(base)(values)
    assert made == load(overrides(base, values))
    assert made.data.source["path"] == "y.csv"


def test_lists_are_choices_too() -> None:
    varied = space(model__hidden=[[8], [16, 8]])
    for values in draws(varied, 5):
        config = Composer(["data=digits", "model=mlp"])(values)
        assert list(config.model["hidden"]) in ([8], [16, 8])


def test_the_current_configuration() -> None:
    varied = space(
        model=["mlp", "cnn"],
        optimizer__lr={"low": 1e-4, "high": 0.1},
        model__dropout={"low": 0.3, "high": 0.5},  # it is 0
        trainer__gradient_clip_val={"low": 0.5, "high": 2.0},  # it is not set
        optimizer__weight_decay=[0.01, 0.1],
    )
    base = ["data=digits", "model=mlp", "optimizer.lr=0.02"]
    # In place of what the space leaves out there is the nearest that it does not.
    values, outside = varied.current(base)
    assert values == {
        "model": "mlp",
        "optimizer.lr": 0.02,
        "model.dropout": 0.3,
        "trainer.gradient_clip_val": 0.5,
        "optimizer.weight_decay": 0.01,
    }
    assert outside == {"model.dropout": 0.0, "trainer.gradient_clip_val": None}
    assert varied.current(["data=digits"])[0]["model"] == "cnn"


def test_the_current_value_however_it_is_written() -> None:
    varied = space(
        optimizer__lr=["1e-3", "1e-2"],
        optimizer__weight_decay=[1, 2],
        model__dropout={"low": 0.1, "high": 0.5, "step": "1e-1"},
    )
    base = ["data=digits", "optimizer.lr=0.01", "optimizer.weight_decay=1.0", "model.dropout=0.3"]
    assert varied.current(base) == (
        {"optimizer.lr": "1e-2", "optimizer.weight_decay": 1, "model.dropout": 0.3},
        {},
    )


@pytest.mark.parametrize(
    ("content", "says", "where"),
    [
        ({}, "nothing to vary", "study.space"),
        ({"optimizer.lr": 3}, "neither choices nor a range", "study.space.optimizer.lr"),
        ({"data.val_fraction": [0.1, 0.2]}, "cannot be varied", "study.space.data.val_fraction"),
        ({"seed": {"low": 0, "high": 5}}, "cannot be varied", "study.space.seed"),
        ({"optimizer.lr": {"lo": 1, "high": 2}}, "'lo'", "study.space.optimizer.lr"),
        ({"optimizer.lr": {"low": 2, "high": 1}}, "not below", "study.space.optimizer.lr"),
        ({"optimizer.lr": {"low": 0, "high": "x"}}, "not a range", "study.space.optimizer.lr"),
        ({"optimizer.lr": {"high": 1}}, "low", "study.space.optimizer.lr"),
        ({"model.dropout": []}, "no choices", "study.space.model.dropout"),
        (
            {"model.dropout": {"choices": [1], "when": {"model": "cnn"}}},
            "not varied",
            "study.space.model.dropout",
        ),
    ],
)
def test_what_is_no_space(content, says, where) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Space(content)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"optimizer.lrr": [0.1]}, "optimizer.lrr"),
        ({"model.dropout": {"low": 0.0, "high": 1.5}}, "1.5"),
        ({"model": ["mlp", "cmm"]}, "cmm"),
        ({"model": ["cnn", "mlp"], "model.kernel_size": [3, 5]}, "when: {model: ...}"),
        ({"optimizer.lr": {"low": -0.1, "high": 0.1, "log": False}}, "-0.1"),
    ],
)
def test_what_the_configuration_does_not_know(content, says) -> None:
    with pytest.raises(ConfigError) as caught:
        Space(content).check(Composer(["data=digits"]))
    assert says in str(caught.value)
    assert caught.value.where.startswith("study.space.")


def test_a_space_that_fits() -> None:
    Space(
        {
            "model": ["mlp", "cnn"],
            "model.kernel_size": {"choices": [3, 5], "when": {"model": "cnn"}},
            "model.dropout": {"low": 0.0, "high": 0.5},
            "optimizer": ["adamw", "sgd"],
            "model.padding_mode": {"choices": ["zeros", "circular"], "when": {"model": "cnn"}},
            "model.block": {"choices": ["plain"], "when": {"model.padding_mode": "circular"}},
        }
    ).check(Composer(["data=digits"]))


def test_settings_from_the_command_line() -> None:
    words = ["study=quick", "data=digits", "study.n_trials=3", "study.name=mine"]
    settings, base = load_settings([*words, "study.space={optimizer.lr: [0.1, 0.2]}"])
    assert (settings.name, settings.n_trials) == ("mine", 3)
    assert settings.space == {"optimizer.lr": [0.1, 0.2]}
    assert base == ["data=digits"]


CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "study").glob("*.yaml")))
def test_every_shipped_study(name) -> None:
    settings, base = load_settings([f"study={name}", "data=digits"])
    Space(settings.space).check(Composer(base))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "study=quick"),
        (["study=quik"], "did you mean 'quick'"),
        (["study=quick", "study.trials=3"], "n_trials"),
        (["study=quick", "study.n_trials=0"], "study.n_trials"),
        (["study=quick", "study.sampler=bayes"], "study.sampler"),
        (["study=quick", "study.name=../x"], "study.name"),
        (["study=quick", "study.name=Pipeline"], "is reserved for the folders of the DVC pipeline"),
        (["study=quick", "study.workers=0"], "study.workers=0 |"),
        (["study=quick", "study.space.optimizer.lrr.low=0.1"], "did you mean 'optimizer.lr'"),
        (["study=quick", "study.space.optimizer.lr.hihg=0.1"], "did you mean 'high'"),
        (["study=quick", "~study.space.model.dropoutt"], "did you mean 'model.dropout'"),
        (["study=quick", "study.objectives=[train/loss]"], "not a validation metric"),
        (["study=quick", "study.objectives=[val/loss,val/loss]"], "appears twice"),
        (["study=quick", "study.objectives=[val/loss]", "monitor=val/f1"], "leave one of them out"),
        (["study=quick", "study.storage='postgresql://u:hidden@h/d"], "study.storage"),
    ],
)
def test_wrong_settings(overrides, says) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(overrides)
    assert says in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_parts_of_the_space_from_the_command_line() -> None:
    words = ["study.space.optimizer.lr.high=0.5", "~study.space.model.dropout"]
    new = ["study.space.loader.batch_size={low: 8, high: 16}", "study.objectives=[val/accuracy]"]
    settings, base = load_settings(["study=quick", "data=digits", *words, *new])
    assert settings.space == {
        "optimizer.lr": {"low": 1e-4, "high": 0.5},
        "loader.batch_size": {"low": 8, "high": 16},
    }
    assert base == ["data=digits", "monitor=val/accuracy"]
