"""Settings of litlab's own parts that have no effect with these data, or with each other."""

import warnings
from collections.abc import Iterator

from torch import nn

from litlab.config import signature
from litlab.config.schema import NUM_GIVEN, Component, Config
from litlab.data.spec import DataSpec

Unused = tuple[str, str]  # a setting, and why it has no effect
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
EMBEDDING = ("mlp.MLP", "cnn.CNN", "simple.SimpleNN", "simple.SimpleCNN", "auto.auto")


def warn_of_unused(config: Config, spec: DataSpec) -> None:
    """Warn of each setting that differs from its default and is ignored."""
    found = [
        *_explicit("model", config.model, _of_model(config.model, spec)),
        *_explicit("scheduler", config.scheduler, _of_schedule(config.scheduler)),
        *_explicit("optimizer", config.optimizer, _of_optimizer(config)),
    ]
    for setting, why in found:
        warnings.warn(f"{setting} has no effect: {why}", stacklevel=2)


def warn_of_convolved_columns(spec: DataSpec, model: nn.Module) -> None:
    """Warn of a convolution over a table's columns, whose order means nothing."""
    if spec.kind == "tabular" and any(
        isinstance(module, CONVOLUTIONS) and max(module.kernel_size) > 1
        for module in model.modules()
    ):
        warnings.warn(
            "the model convolves over a table's columns, whose order has no meaning: "
            "set model=mlp or model=transformer",
            stacklevel=2,
        )


def _explicit(group: str, node: Component, unused: Iterator[Unused]) -> Iterator[Unused]:
    """Those that are not at the default of the constructor, with their values."""
    for name, why in unused:
        schema = signature.schema(node["_target_"], NUM_GIVEN[group])
        default = schema.model_fields[name].default if schema else None
        if name in node and node[name] != default:
            yield f"{group}.{name}={node[name]}", why


def _of_model(model: Component, spec: DataSpec) -> Iterator[Unused]:
    name = model["_target_"].removeprefix("litlab.models.")
    if name in EMBEDDING and spec.kind != "text" and not spec.cardinalities:
        yield "embed_dim", "the data have neither tokens nor categories"
    if name == "mlp.MLP" and model.get("hidden") == ():
        for setting in ("activation", "norm", "dropout"):
            yield setting, "there is no hidden layer"
    if name == "cnn.CNN" and len(model.get("channels", "several")) == 1:
        yield "pooling", "a single stage does not reduce the resolution"
    if name == "cnn.CNN" and model.get("kernel_size") == 1:
        yield "padding_mode", "a kernel of size 1 needs no padding"
    if name == "transformer.Transformer" and spec.kind in ("tabular", "text"):
        yield "patch_size", "only images and sequences have patches"
    if name == "transformer.Transformer" and spec.kind == "tabular":
        yield "positions", "a table's columns have no positions"


def _of_schedule(scheduler: Component) -> Iterator[Unused]:
    name = scheduler["_target_"].removeprefix("litlab.tasks.optim.schedules.")
    if name == "one_cycle" and not scheduler.get("cycle_momentum", False):
        for setting in ("base_momentum", "max_momentum"):
            yield setting, "scheduler.cycle_momentum is false"
    if name == "step" and scheduler.get("milestones") == ():
        yield "gamma", "there are no milestones"


def _of_optimizer(config: Config) -> Iterator[Unused]:
    name = config.optimizer["_target_"].removeprefix("litlab.tasks.optim.optimizers.")
    cycles = config.scheduler.get("cycle_momentum", False)
    if name == "sgd" and cycles:
        yield "momentum", "scheduler.cycle_momentum replaces it"
