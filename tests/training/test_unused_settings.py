"""Every hyperparameter of every part changes something, is refused, or is warned of."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor

from litlab.config import signature
from litlab.config.compose import load
from litlab.config.instantiate import build
from litlab.config.schema import NUM_GIVEN, Component, TrainerConfig
from litlab.data.augment.draws import Draws
from litlab.data.augmentations import build_augmentations
from litlab.data.spec import Column, DataSpec
from litlab.tasks.optim.schedules import Horizon
from litlab.training.preflight import warn_of_convolved_columns, warn_of_unused
from litlab.utils.errors import ConfigError
from test_conf import SHAPES, components, make_spec

CONF = Path(__file__).parents[2] / "conf"
SRC = Path(__file__).parents[2] / "src" / "litlab"
# Another value that matters, by setting; those of bool and Literal are found in the signature.
VALUES: dict[str, Any] = {
    **{"hidden": (7,), "width": 7, "embed_dim": 12, "depth": 2, "num_heads": 2, "ffn_dim": 7},
    **{"patch_size": 2, "channels": (4, 6), "blocks_per_stage": 2, "kernel_size": 5},
    **{"dropout": 0.3, "attention_dropout": 0.3, "label_smoothing": 0.2, "gamma": 0.5},
    **{"class_weights": (1.0, 2.0, 3.0), "alpha": (1.0, 2.0, 3.0), "pos_weight": 3.0},
    **{"delta": 0.1, "l1": 0.1, "lr": 0.02, "weight_decay": 0.5, "betas": (0.5, 0.9), "eps": 0.1},
    **{"momentum": 0.5, "ns_steps": 2, "layer_decay": 0.5, "pct_start": 0.6, "div_factor": 3.0},
    **{"final_div_factor": 7.0, "base_momentum": 0.5, "max_momentum": 0.6, "warmup": 0.3},
    **{"final_fraction": 0.5, "milestones": (0.2,), "factor": 0.7, "patience": 1},
    **{"threshold": 0.9, "cooldown": 3, "min_lr": 0.05, "share": 0.5, "p": 0.6, "area": (0.5, 0.6)},
    **{"cutmix_alpha": 0.5, "mixup_alpha": 0.5, "switch": 0.9, "amount": 0.5, "degrees": 40.0},
    **{"translate": 0.4, "scale": 0.4, "shear": 20.0, "horizontal": 0.9, "vertical": 0.9},
    **{"magnitude": 20, "num_ops": 1, "padding": 3, "std": 0.5, "steps": 2},
    "LabelFocal.alpha": 0.25,  # one for all labels
}


def choices(group: str) -> list[tuple[str, Component]]:
    """The components of a group of conf/, each with all its settings."""
    files = sorted((CONF / group).glob("*.yaml"))
    return [(f.stem, node) for f in files for _, node in components(group, f.stem)]


def others(node: Component, group: str) -> Iterator[tuple[str, Any]]:
    """Each setting of a component with another value."""
    schema = signature.schema(node["_target_"], NUM_GIVEN[group])
    assert schema is not None
    for name, field in schema.model_fields.items():
        if get_origin(field.annotation) is Literal:
            yield from ((name, v) for v in get_args(field.annotation) if v != node[name])
        elif field.annotation is bool:
            yield name, not node[name]
        else:
            own = f"{node['_target_'].rpartition('.')[2]}.{name}"
            yield name, VALUES[own if own in VALUES else name]  # a new one needs a value here


def walk(
    group: str, node: Component, look: Callable[[Component], Any], warned: set[str]
) -> list[str]:
    """The settings whose other values change nothing, are not refused and not warned of."""
    before = look(node)
    assert same(before, look(node)), "the same settings give two results"
    ignored = []
    for name, value in others(node, group):
        warned.clear()
        try:
            after = look(node | {name: value})
        except ConfigError:
            continue
        if same(before, after) and not any(f"{group}.{name}" in text for text in warned):
            ignored.append(f"{name}={value}")
    return ignored


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def categories() -> DataSpec:
    columns = [Column(name=f"n{i}", kind="numeric") for i in range(3)]
    more = {"kind": "categorical", "categories": [str(i) for i in range(400)]}
    columns += [Column.model_validate({"name": f"c{i}", **more}) for i in range(3)]
    return make_spec("tabular").model_copy(update={"columns": tuple(columns)})


SPECS = {**{kind: make_spec(kind) for kind in SHAPES}, "categories": categories()}
SPECS["tabular"] = make_spec("tabular").model_copy(update={"shape": (16,)})  # not pooled to one
SPECS["language_model"] = make_spec("text", "language_model")


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(("name", "node"), choices("model"), ids=[n for n, _ in choices("model")])
def test_models(name: str, node: Component, kind: str) -> None:
    spec, warned = SPECS[kind], set[str]()
    checked = load([f"model={name}"])
    x = torch.ones(4, *spec.shape, dtype=torch.long) if spec.kind == "text" else None
    x = (
        torch.arange(4.0).view(4, *(1,) * len(spec.shape)).expand(4, *spec.shape)
        if x is None
        else x
    )
    if spec.kind != "text":
        x = x + torch.arange(float(spec.shape[-1]))

    def look(node: Component) -> Any:
        torch.manual_seed(0)
        model = build(node, spec, where="model")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_unused(checked.model_copy(update={"model": node}), spec)
        warned.update(str(warning.message) for warning in caught)
        torch.manual_seed(1)
        return [*model.parameters(), model.train()(x.clone())]

    try:
        look(checked.model)
    except ConfigError:
        assert kind == "language_model"  # only the transformer predicts every token
        return
    assert not walk("model", checked.model, look, warned)


@pytest.mark.parametrize("name", [n for n, _ in choices("optimizer")])
def test_optimizers(name: str) -> None:
    def look(node: Component) -> list[Tensor]:
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)]
        model = torch.nn.Sequential(*layers)
        optimizer = build(node, model, where="optimizer")
        for step in range(3):
            optimizer.zero_grad()
            (model(torch.ones(3, 4) + step) ** 2).sum().backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert not walk("optimizer", load([f"optimizer={name}"]).optimizer, look, set())


@pytest.mark.parametrize("name", [n for n, _ in choices("scheduler")])
def test_schedules(name: str) -> None:
    warned = set[str]()
    config = load([f"scheduler={name}", "optimizer=sgd"])
    values = [1.0, *[0.5] * 14, 0.45, *[0.4] * 24]

    def look(node: Component) -> list[Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_unused(config.model_copy(update={"scheduler": node}), SPECS["image"])
        warned.update(str(warning.message) for warning in caught)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
        schedule = build(node, optimizer, Horizon(40, "val/loss", "min"), where="scheduler")
        seen = []
        for value in values[:40]:
            optimizer.step()
            seen += [optimizer.param_groups[0][key] for key in ("lr", "momentum")]
            schedule["scheduler"].step(*([value] if "monitor" in schedule else []))
        return seen

    assert not walk("scheduler", config.scheduler, look, warned)


@pytest.mark.parametrize("name", [n for n, _ in choices("loss")])
def test_losses(name: str) -> None:
    tasks = dict.fromkeys(("mse", "mae", "huber"), "regression")
    task = (tasks | dict.fromkeys(("bce", "label_focal"), "multi_label")).get(
        name, "classification"
    )
    outputs = torch.arange(18.0).view(6, 3).sin() * 3
    labels = torch.tensor([0, 1, 2, 0, 1, 1])
    ys = {"regression": outputs.flip(0), "multi_label": torch.eye(3)[labels]}
    y = ys.get(task, labels)
    spec = make_spec("tabular", "regression" if task == "regression" else "classification")
    fitting = {"target_mean": (0.0,) * 3, "target_std": (1.0,) * 3, "task": task}
    spec = spec.model_copy(update=fitting)
    config = load([f"loss={name}", f"task={task}"])

    def look(node: Component) -> Any:
        return build(node, spec, where="loss")(outputs, y)

    assert not walk("loss", config.loss, look, set())


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["model=mlp", "model.hidden=[]", "model.dropout=0.5"], "model.dropout=0.5"),
        (["model=cnn", "model.channels=[8]", "model.pooling=avg"], "model.pooling=avg"),
        (
            ["model=cnn", "model.kernel_size=1", "model.padding_mode=circular"],
            "model.padding_mode=circular",
        ),
        (
            ["scheduler=step", "scheduler.milestones=[]", "scheduler.gamma=0.5"],
            "scheduler.gamma=0.5",
        ),
        (
            ["optimizer=sgd", "optimizer.momentum=0.5", "scheduler.cycle_momentum=true"],
            "optimizer.momentum=0.5",
        ),
    ],
)
def test_combinations_are_warned_of(overrides: list[str], setting: str) -> None:
    with pytest.warns(UserWarning, match=f"{setting} has no effect: "):
        warn_of_unused(load(overrides), SPECS["image"])


def test_defaults_are_ignored_in_silence() -> None:
    for model in ("mlp", "cnn", "transformer", "simple_nn", "simple_cnn", "auto", "text_cnn"):
        for spec in SPECS.values():
            warn_of_unused(load([f"model={model}"]), spec)


def test_a_convolution_over_a_tables_columns() -> None:
    for name, expected in (("cnn", True), ("simple_cnn", True), ("mlp", False), ("auto", False)):
        model = build(load([f"model={name}"]).model, SPECS["tabular"], where="model")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_convolved_columns(SPECS["tabular"], model)
        assert bool(caught) == expected
        warn_of_convolved_columns(SPECS["sequence"], model)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["trainer.gradient_clip_algorithm=value"], "no gradient is clipped"),
        (["trainer.batch_size_limit=64"], "trainer.batch_size_find is off"),
        (["trainer=overfit", "trainer.limit_train_batches=3"], "number of training batches"),
        (["trainer.freeze=[a]", "trainer.unfreeze_epoch=40"], "is not below max_epochs=40"),
        (["+data.path=here"], "Digits takes no path"),
    ],
)
def test_refused_combinations(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(overrides)


def test_every_setting_of_the_trainer_is_read_somewhere() -> None:
    files = [path for path in SRC.rglob("*.py") if path.name != "schema.py"]
    source = "\n".join(path.read_text() for path in files)
    unread = [
        name
        for name in TrainerConfig.model_fields
        if f"trainer.{name}" not in source and f'"{name}"' not in source
    ]
    assert not unread


@pytest.mark.parametrize("name", [n for n, _ in choices("augment")])
def test_augmentations(name: str) -> None:
    from litlab.config.instantiate import locate

    (key, node), *_ = load([f"augment={name}"]).augment.items()
    ignored: set[str] | None = None
    for kind in sorted(locate(node["_target_"], "augment", ()).kinds):
        spec = make_spec(kind)
        x = torch.rand(32, *spec.shape) if kind != "text" else torch.randint(3, 11, (32, 12))

        def look(node: Component, spec: DataSpec = spec, x: Tensor = x) -> Any:
            made = build_augmentations({key: node}, spec, [])[key]
            draws = Draws(0, 0, torch.arange(len(x) // (2 if made.mixes else 1)))
            y = torch.arange(len(x)) % 3
            return made(x.clone(), y, draws.stream(key))

        found = set(walk("augment", node, look, set()))
        ignored = found if ignored is None else ignored & found
    assert not ignored
