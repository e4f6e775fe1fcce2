"""Every YAML in conf/ composes, passes the checks, builds, and lists its constructor's defaults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from litlab.config import signature
from litlab.config.compose import compose, load
from litlab.config.schema import NUM_GIVEN
from litlab.data.spec import DataSpec, Kind

CONF = Path(__file__).parents[1] / "conf"
SHAPES: dict[Kind, tuple[int, ...]] = {
    "image": (3, 16, 16),
    "sequence": (2, 16),
    "tabular": (6,),
    "text": (12,),
}

# Tuned for the default data and model; the function keeps the paper's value.
DELIBERATE = {"optimizer=adamw": {"lr"}}


OWN = "datamodule"  # names a class of the user's: see test_api.py


def choices(group: str) -> list[str]:
    names = (path.stem for path in (CONF / group).glob("*.yaml"))
    return sorted(name for name in names if name != OWN)


# A study is no part of a configuration: it varies one.
EVERY = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name != "study" and path.stem != OWN
)


def make_spec(kind: Kind, task: str = "classification") -> DataSpec:
    names = ("a", "b", "c")
    width = 0 if kind == "text" else SHAPES[kind][0]
    return DataSpec.model_validate(
        {
            "name": "made",
            "source": "made",
            "kind": kind,
            "task": task,
            "shape": SHAPES[kind],
            "dtype": {"image": "uint8", "text": "int32"}.get(kind, "float32"),
            "classes": () if task == "regression" else names,
            "targets": names if task == "regression" else (),
            "class_counts": () if task == "regression" else (9, 9, 9),
            "mean": (0.0,) * width,
            "std": (1.0,) * width,
            "vocab_size": 11 if kind == "text" else None,
            "pad_id": 0 if kind == "text" else None,
            "sizes": {"train": 27, "val": 9, "test": 9},
            "licence": "none",
            "origin": "made here",
        }
    )


@pytest.fixture(autouse=True)
def _eight_gpus(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litlab.config.constraints._count_cuda", lambda: 8)


REGRESSION = {"loss=mse", "loss=mae", "loss=huber", "metrics=mae", "metrics=rmse", "metrics=r2"}


SEVERAL = {
    *("loss=bce", "loss=label_focal", "metrics=average_precision", "metrics=multi_label_f1"),
    *("metrics=exact_match", "metrics=hamming_loss"),
}


def task_of(choice: str) -> list[str]:
    if choice in SEVERAL:
        return ["task=multi_label"]
    return ["task=regression"] if choice in REGRESSION else []


def listed_path(choice: str) -> str | None:
    """Where a data set's YAML looks for its files; ??? asks the user for the place."""
    group, _, name = choice.partition("=")
    if group != "data":
        return None
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    path: str | None = content["data"].get("path")
    return path


def path_of(choice: str) -> list[str]:
    """What only the user can say: where the files are, and which column is the target."""
    path = ["data.path=data/raw/mine"] if listed_path(choice) == "???" else []
    return [*path, "data.source.target=y"] if choice.startswith("data=table") else path


@pytest.mark.parametrize("choice", EVERY)
def test_composes_and_passes_the_checks(choice: str) -> None:
    load([choice, *task_of(choice), *path_of(choice)])


MODELS = {"tabular": "mlp.MLP", "text": "cnn.CNN", "image": "cnn.CNN", "sequence": "cnn.CNN"}
KINDS = {
    **dict.fromkeys(["table", "table_regression", "adult", "adult_hub"], "tabular"),
    **dict.fromkeys(["breast_cancer", "wine", "diabetes", "california_housing"], "tabular"),
    **dict.fromkeys(["text", "trec", "sst2", "mr", "imdb", "ag_news"], "text"),
    "mnist1d": "sequence",
}


@pytest.mark.parametrize("name", choices("data"))
def test_the_data_choose_the_model(name: str) -> None:
    overrides = [f"data={name}", *path_of(f"data={name}")]
    model = load(overrides).model
    if model["_target_"] == "litlab.models.transformer.Transformer":
        assert name in ("plain_text", "tinyshakespeare")
    elif name in ("hub", "npz"):  # whose kind is known when they are read
        assert model["_target_"] == "litlab.models.auto.auto"
    else:
        kind = KINDS.get(name, "image")
        assert model["_target_"] == f"litlab.models.{MODELS[kind]}"
        assert model.get("head", "average") == ("max" if kind == "text" else "average")
    for typed in (["model=simple_nn", *overrides], [*overrides, "model=simple_nn"]):
        assert load(typed).model["_target_"] == "litlab.models.simple.SimpleNN"


@pytest.mark.parametrize("kind", SHAPES)
def test_the_automatic_model_is_the_one_of_its_kind(kind: Kind) -> None:
    import torch

    from litlab.tasks.build import build_model

    names = {"tabular": "mlp", "text": "text_cnn"}
    built = []
    for name in ("auto", names.get(kind, "cnn")):
        torch.manual_seed(0)
        built.append(build_model(load([f"model={name}"]), make_spec(kind)))
    assert str(built[0]) == str(built[1])
    for ours, theirs in zip(*(model.parameters() for model in built), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("choice", ["trainer=gpu", "trainer=ddp"])
def test_without_a_gpu_it_is_refused(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litlab.config.constraints._count_cuda", lambda: 0)
    with pytest.raises(Exception, match="this machine has 0"):
        load([choice])


def components(group: str, choice: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes with a `_target_` that a file itself spells out."""
    content = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text()) or {}
    if group == "data":
        source = content["data"]["source"]
        if "_target_" in source:  # else it says what differs from the file it builds on
            yield "data.source", source
    elif group == "task":
        yield group, content.get("task", content)
    elif group in ("augment", "metrics"):
        yield from ((group, node) for node in content.values() if "_target_" in node)
    elif "_target_" in content:
        yield group, content


SPELT = [
    (f"{group}={choice}", where, node)
    for group in (*(g for g in NUM_GIVEN if "." not in g), "data")
    if group != "metrics"  # torchmetrics' constructors, which have many more
    for choice in choices(group)
    for where, node in components(group, choice)
]


@pytest.mark.parametrize(("choice", "where", "node"), SPELT, ids=[c[0] for c in SPELT])
def test_lists_each_hyperparameter_with_its_default(
    choice: str, where: str, node: dict[str, Any]
) -> None:
    model = signature.schema(node["_target_"], NUM_GIVEN[where])
    assert model is not None, "its constructor cannot be read"
    given = {key: value for key, value in node.items() if key != "_target_"}
    assert set(given) == set(model.model_fields)
    if listed_path(choice) not in (None, "???"):
        return  # a known data set, whose settings are its own, read by a source for anybody's files
    needed = {key: given[key] for key, f in model.model_fields.items() if f.is_required()}
    defaults = model.model_validate(model(**needed).model_dump()).model_dump()
    listed = model.model_validate(given).model_dump()
    # ${data.group} and ${data.time} hand on what is not set unless the user sets it.
    own = {key for key in listed if not str(listed[key]).startswith("${data.")}
    differing = {key for key in own if listed[key] != defaults[key]}
    assert differing == DELIBERATE.get(choice, set())


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("choice", choices("model"))
def test_builds_models(choice: str, kind: Kind) -> None:
    from litlab.tasks.build import build_model

    config = load([f"model={choice}"])
    model = build_model(config, make_spec(kind))
    assert sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("choice", choices("loss"))
def test_builds_losses(choice: str) -> None:
    from litlab.config.instantiate import build

    config = load([f"loss={choice}", *task_of(f"loss={choice}")])
    task = (task_of(f"loss={choice}") or ["task=classification"])[0].removeprefix("task=")
    build(config.loss, make_spec("tabular", task), where="loss")


@pytest.mark.parametrize("choice", choices("optimizer"))
def test_builds_optimizers(choice: str) -> None:
    from torch import nn

    from litlab.config.instantiate import build
    from litlab.utils.errors import ConfigError

    config = load([f"optimizer={choice}"])
    perceptron = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    optimizer = build(config.optimizer, perceptron, where="optimizer")
    assert optimizer.param_groups[0]["lr"] == config.optimizer["lr"]
    if choice == "muon":
        convolutions = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))
        with pytest.raises(ConfigError):
            build(config.optimizer, convolutions, where="optimizer")


@pytest.mark.parametrize("choice", choices("scheduler"))
def test_builds_schedulers(choice: str) -> None:
    import torch

    from litlab.config.instantiate import build
    from litlab.tasks.optim.schedules import Horizon

    config = load([f"scheduler={choice}"])
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.1)
    horizon = Horizon(total_steps=100, monitor="val/loss", mode="min")
    entry = build(config.scheduler, optimizer, horizon, where="scheduler")
    assert entry["interval"] in ("step", "epoch")


@pytest.mark.parametrize("choice", choices("metrics"))
def test_builds_metrics(choice: str) -> None:
    from litlab.tasks.metrics import build_metrics

    config = load([f"metrics={choice}", *task_of(f"metrics={choice}")])
    regression = any(".regression." in node["_target_"] for node in config.metrics.values())
    built = build_metrics(config.metrics, 0 if regression else 3, [])
    assert list(built) == list(config.metrics)


@pytest.mark.parametrize("choice", choices("augment"))
def test_builds_augmentations(choice: str) -> None:
    import torch

    from litlab.config.instantiate import locate
    from litlab.data.augment.draws import Draws
    from litlab.data.augmentations import build_augmentations

    nodes = load([f"augment={choice}"]).augment
    kinds = set(SHAPES)
    for node in nodes.values():
        kinds &= locate(node["_target_"], "augment", ()).kinds
    assert kinds, "its parts are for different kinds of data"
    for kind in kinds:
        spec = make_spec(kind)
        x, y = torch.ones(8, *spec.shape), torch.arange(8) % 3
        for name, augmentation in build_augmentations(nodes, spec, []).items():
            draws = Draws(0, 0, torch.arange(len(x) // (2 if augmentation.mixes else 1)))
            x, y = augmentation(x.long() if kind == "text" else x, y, draws.stream(name))
        assert x.shape[1:] == spec.shape
        assert len(x) == len(y) > 0


@pytest.mark.parametrize("choice", choices("data"))
def test_builds_sources_without_reading_them(choice: str) -> None:
    from litlab.config.instantiate import build

    config = load([f"data={choice}", *path_of(f"data={choice}")])
    assert config.data.name == choice
    assert callable(build(config.data.source, where="data.source").read)


@pytest.mark.parametrize("choice", choices("task"))
def test_tasks_name_the_class_of_their_name(choice: str) -> None:
    content = compose([f"task={choice}"])
    name = choice.title().replace("_", "")
    module = "multi_label" if choice == "multi_label" else "task"
    assert content["task"]["_target_"] == f"litlab.tasks.{module}.{name}Task"
