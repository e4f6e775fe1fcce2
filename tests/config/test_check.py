import pickle
from typing import Any, Literal

import pytest

from litlab.config import constraints
from litlab.config.compose import compose, load
from litlab.config.schema import Config, TrainerConfig
from litlab.config.validate import check_config, words
from litlab.utils.errors import ConfigError, Refused, refuse


@pytest.fixture
def content(project: object) -> dict[str, Any]:
    return compose()


def put(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split(".")
    node = content
    for part in parents:
        node = node[part]
    node[last] = value
    return content


def refusal(content: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        check_config(content, "here")
    assert error.value.exit_code == 2
    return error.value


REFUSED = [
    ("seed", "a", "seed=a, but must be a whole number"),
    ("seed", -1, "at least 0"),
    ("seed", None, "seed=null"),
    ("optimizer.lr", -1, "optimizer.lr=-1, but must be a number (above 0)"),
    ("optimizer.lr", float("inf"), "optimizer.lr=inf"),
    ("optimizer.betas", [2, 0], "optimizer.betas=[2, 0], but must be a list of 2"),
    ("optimizer.betas", [0.9], "optimizer.betas=[0.9]"),
    ("model.dropout", 1.5, "model.dropout=1.5, but must be a number (at least 0, below 1)"),
    ("model.blocks_per_stage", 10**8, "at most 1000"),
    ("model", "cnn", "model=cnn, but must be a mapping"),
    ("trainer.devices", "x", "or auto, or a list, each a whole number"),
    ("trainer.devices", [0, "x"], "trainer.devices=[0, 'x']"),
    ("trainer.devices", [], "trainer.devices=[]"),
    ("trainer.devices", 0, "at least 1"),
    ("trainer.limit_train_batches", 1.5, "a number (above 0, at most 1), or null"),
    ("trainer.deterministic", "maybe", "true or false, or warn"),
    ("trainer.strategy", "dpp", "ddp"),
    ("trainer.early_stopping", 3, "a mapping of patience, min_delta, or null"),
    ("trainer.early_stopping", {"patience": 0, "min_delta": 0}, "trainer.early_stopping.patience"),
    ("trainer.early_stopping", {"min_delta": 0.1}, "trainer.early_stopping.patience has no value"),
    ("name", "a/b", "a name of at most 100 letters"),
    ("name", "x" * 101, "name=xxxx"),
    ("data.name", "../out", "data.name=../out"),
    ("data.name", "/abs", "data.name=/abs"),
    ("data.name", "..", "data.name=.."),
    ("tracking.experiment", "", "tracking.experiment=''"),
    ("metrics", {"a.b": {}}, "metrics"),
]


@pytest.mark.parametrize(("path", "value", "says"), REFUSED)
def test_wrong_values(content: dict[str, Any], path: str, value: object, says: str) -> None:
    assert says in refusal(put(content, path, value)).what


def test_the_hint_names_the_nearest_choice(content: dict[str, Any]) -> None:
    assert refusal(put(content, "model.block", "residul")).fix == "did you mean 'residual'?"


def test_unknown_and_missing_settings(content: dict[str, Any]) -> None:
    error = refusal(put(content, "trainer.max_epoch", 3))
    assert (error.what, error.where) == ("no setting 'trainer.max_epoch'", "here")
    assert error.fix == "use trainer.max_epochs"
    del content["trainer"]["max_epoch"]
    assert refusal(put(content, "data.source.x", 3)).fix == "it has no settings"
    del content["data"]["source"]["x"], content["loader"]["batch_size"]
    assert refusal(content).what == "loader.batch_size has no value"


def test_values_arrive_in_their_declared_types(content: dict[str, Any]) -> None:
    put(content, "optimizer.lr", "1e-2")
    put(content, "tracking.tags", {"fold": 3})
    put(content, "trainer.limit_train_batches", 1.0)
    put(content, "trainer.limit_val_batches", 1)
    config = check_config(content, "here")
    assert config.optimizer["lr"] == 0.01
    assert config.optimizer["betas"] == (0.9, 0.999)
    assert config.tracking.tags == {"fold": "3"}
    # 1.0 is every batch and 1 is a single one: neither may turn into the other.
    assert isinstance(config.trainer.limit_train_batches, float)
    assert isinstance(config.trainer.limit_val_batches, int)


def test_no_metrics_and_no_augmentation(project: object) -> None:
    config = check_config(compose(["metrics=[]", "augment=[]"]), "here")
    assert config.metrics == config.augment == {}


def test_components(content: dict[str, Any]) -> None:
    error = refusal(put(content, "loss", {"label_smoothing": 0.1}))
    assert (error.what, error.where) == ("_target_ is missing", "loss")
    error = refusal(put(content, "loss", {"_target_": "litlab.tasks.losses.classification.Foca"}))
    assert (error.where, error.fix) == ("loss._target_", "did you mean 'Focal'?")
    error = refusal(put(content, "loss", {"_target_": "litlab.tasks.losses.fokal.Focal"}))
    assert "no module 'litlab.tasks.losses.fokal'" in error.what
    error = refusal(put(content, "loss", {"_target_": "os.system", "command": "true"}))
    assert error.fix.endswith("trust=[os]")


def test_a_users_module_beside_conf(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    (project / "my_loss.py").write_text("def f(spec, *, x: float = 1.0): ...")
    (project / "my_broken.py").write_text("def (")
    content = put(compose(), "trust", ["my_loss", "my_broken"])
    node = {"_target_": "my_loss.f", "x": "2"}
    assert check_config(put(content, "loss", node), "here").loss["x"] == 2.0
    assert refusal(put(content, "loss", {"_target_": "my_loss.f", "y": 2})).where == "my_loss.f"
    assert "line 1" in refusal(put(content, "loss", {"_target_": "my_broken.f"})).what


@pytest.mark.parametrize(
    ("monitor", "fix"),
    [
        ("val/acuracy", "did you mean 'val/accuracy'?"),
        ("test/accuracy", "use val/accuracy"),
        ("test/", "use val/loss"),
        ("loss", "did you mean"),
        ("", "one of: train/accuracy"),
    ],
)
def test_monitor(content: dict[str, Any], monitor: str, fix: str) -> None:
    assert fix in refusal(put(content, "monitor", monitor)).fix


def test_a_metric_cannot_take_the_losss_name(content: dict[str, Any]) -> None:
    error = refusal(
        put(
            content,
            "metrics",
            {"loss": {"_target_": "torchmetrics.classification.MulticlassAccuracy"}},
        )
    )
    assert error.where == "metrics.loss"


@pytest.fixture
def trainer(content: dict[str, Any]) -> TrainerConfig:
    return Config.model_validate(content).trainer


DEVICES: list[tuple[int, dict[str, Any], str | None]] = [
    (0, {"accelerator": "gpu"}, "trainer.accelerator, trainer.devices"),
    (0, {"accelerator": "cuda", "devices": "auto"}, "trainer.accelerator, trainer.devices"),
    (1, {"accelerator": "gpu", "devices": 2}, "trainer.accelerator, trainer.devices"),
    (1, {"accelerator": "gpu", "devices": [1]}, "trainer.accelerator, trainer.devices"),
    (2, {"accelerator": "gpu", "devices": [1]}, None),
    (1, {"accelerator": "mps"}, "trainer.accelerator, trainer.devices"),
    (0, {"accelerator": "auto", "devices": [0]}, "trainer.devices"),
    (1, {"accelerator": "auto", "devices": [0]}, None),
    (0, {"precision": "16-mixed"}, "trainer.precision"),
    (1, {"precision": "16-mixed"}, None),
    (1, {"precision": "16-mixed", "accelerator": "cpu"}, "trainer.precision"),
    (0, {"precision": "bf16-mixed"}, None),
    (0, {"accelerator": "cpu", "devices": 2}, None),
]


@pytest.mark.parametrize(("gpus", "settings", "where"), DEVICES)
def test_devices(
    trainer: TrainerConfig,
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    settings: dict[str, Any],
    where: str | None,
) -> None:
    monkeypatch.setattr(constraints, "_count_cuda", lambda: gpus)
    monkeypatch.setattr(constraints, "_has_mps", lambda: 0)
    monkeypatch.setattr(constraints.Path, "exists", lambda path: False)
    asked = trainer.model_copy(update=settings)
    if where is None:
        assert not list(constraints.device_reasons(asked))
        return
    with pytest.raises(ConfigError) as error:
        refuse(constraints.device_reasons(asked))
    assert error.value.where == where


def test_rocm_is_left_to_torch(trainer: TrainerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints.Path, "exists", lambda path: str(path) == "/dev/kfd")
    asked = trainer.model_copy(update={"accelerator": "gpu"})
    assert not list(constraints.device_reasons(asked))


def test_counting_gpus_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    if torch.version.hip is None:
        assert constraints._count_cuda() == torch.cuda.device_count()


def test_words() -> None:
    assert words(Literal["a"]) == "a"
    assert words(int | None) == "a whole number, or null"
    assert words(dict[str, int]) == "a mapping"
    assert words(list[str]) == "a list, each text"
    assert words(object) == "another value"


@pytest.mark.parametrize("setting", ["seed", "loader.batch_size", "optimizer.lr", "task.l1"])
def test_true_is_no_number(project, setting):
    with pytest.raises(ConfigError, match=setting.replace(".", r"\.") + "=true"):
        load([f"{setting}=true"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=diabetes", "loss=cross_entropy"],
        ["data=diabetes", "metrics=[accuracy]"],
        ["loss=mse"],
        ["metrics=[mae]"],
    ],
)
def test_shipped_parts_of_the_other_task_are_refused_before_anything_is_built(project, overrides):
    with pytest.raises(ConfigError, match=r"is not for (classification|regression)"):
        load(overrides)


def test_all_that_is_wrong_is_said_at_once(content: dict[str, Any]) -> None:
    put(content, "trainer.max_epochs", 0)
    put(content, "loader.batch_size", "many")
    with pytest.raises(Refused) as error:
        check_config(content, "here")
    lines = str(error.value).splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "error: loader.batch_size",
        "error: trainer.max_epochs",
    ]
    fixes = ("loader.batch_size=1", "trainer.max_epochs=1")
    assert [line.rpartition("| here | ")[2] for line in lines] == [f"use e.g. {f}" for f in fixes]


def test_all_settings_that_exclude_each_other_are_said_at_once(content: dict[str, Any]) -> None:
    put(content, "monitor", "val/accuraccy")
    put(content, "trainer.unfreeze_epoch", 1000)
    put(content, "trainer.gradient_clip_algorithm", "value")
    with pytest.raises(Refused) as error:
        check_config(content, "here")
    wheres = [reason.where for reason in error.value.reasons]
    assert wheres == [
        "monitor",
        "trainer.unfreeze_epoch",
        "trainer.unfreeze_epoch, trainer.max_epochs",
        "trainer.gradient_clip_algorithm",
    ]
    assert error.value.exit_code == 2
    assert str(error.value).count("error: ") == 4


def test_several_reasons_survive_pickle() -> None:
    with pytest.raises(Refused) as error:
        refuse([ConfigError("a", "b", "c"), ConfigError("d", "e", "f")])
    copied = pickle.loads(pickle.dumps(error.value))
    assert str(copied) == str(error.value) == "error: a | b | c\nerror: d | e | f"
