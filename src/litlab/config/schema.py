"""The schema of a configuration: names, types and ranges of all settings."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from litlab.config.hyperparameters import (
    NOT_BOOL,
    Count,
    Index,
    NonNegative,
    Positive,
    Probability,
)
from litlab.utils.errors import nearest
from litlab.utils.names import DataName, Name

Component = dict[str, Any]  # {"_target_": import path, **hyperparameters}
Precision = Literal[
    "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "transformer-engine"
]
# Without ddp_spawn and ddp_fork: the main process does not get what workers record. Without the
# first FSDP: it flattens weights, so the optimizer cannot distinguish them from biases.
Strategy = Literal[
    "auto",
    "ddp",
    "ddp_find_unused_parameters_true",
    "ddp_find_unused_parameters_false",
    "fsdp2",
]
# Findings that end `prepare` with an error, under their names in `data.allow`.
AllowedFinding = Literal["exact_duplicates", "near_duplicates", "group_leak", "single_class"]
MetricName = Annotated[
    str, Field(pattern=r"^\w+$", description="a name of letters, digits and '_'")
]
# YAML reads a bare `off` as false.
Find = Annotated[
    Literal["off", "suggest", "use"], BeforeValidator(lambda v: "off" if v is False else v)
]
Duration = Annotated[
    str,
    Field(
        pattern=r"^([1-9][0-9]*h)?([1-9][0-9]*m)?([1-9][0-9]*s)?$",
        min_length=2,
        description="a time such as 90s, 10m or 1h30m",
    ),
]
Share = Annotated[float, NOT_BOOL, Field(gt=0, lt=1)]  # of the samples, in (0, 1)
Portion = Annotated[float, Field(gt=0, le=1)]  # of the batches; 1.0 is all of them, 1 is one


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


class DataConfig(_Strict):
    """Everything that `prepare` reads: if one of these changes, data are prepared again."""

    name: DataName
    path: str | None = None  # of the user's files; conf/ passes it to the source
    source: Component
    val_fraction: Share
    test_fraction: Share | None
    split_seed: Index
    stratify: bool
    group: str | None = None  # column; samples with equal values stay in one split
    time: str | None = None  # column to sort by: train, then val, then test
    num_folds: Annotated[int, NOT_BOOL, Field(ge=2)] | None = None
    fold: Index | None = None  # the validation fold, counted from 0
    strict: bool = False  # refuse where a source would have to decide something by itself
    duplicates: Literal["drop", "keep", "refuse"] = "drop"  # equal samples in two splits
    allow: list[AllowedFinding] = []  # findings of the leakage check to accept
    # The split settings that the user has given: if the source brings its own splits, these cause a
    # warning, defaults do not. Not part of the configuration.
    _typed: frozenset[str] = PrivateAttr(default=frozenset())
    # The overrides it was composed from, as they are typed in a shell, for messages.
    _overrides: tuple[str, ...] = PrivateAttr(default=())


class LoaderConfig(_Strict):
    """Batch sizes, and where the arrays are kept."""

    batch_size: Count
    eval_batch_size: Count
    drop_last: bool
    resident: Literal["auto", "memory", "device"]


class EarlyStoppingConfig(_Strict):
    """When to stop training early."""

    patience: Count
    min_delta: NonNegative = 0.0


class EMAConfig(_Strict):
    """Exponential moving average of the weights."""

    decay: Probability = 0.999
    warmup: bool = True


class SWAConfig(_Strict):
    """Mean of the weights of the last epochs."""

    start: Share = 0.75  # share of the training before averaging starts
    lr: Positive  # the constant learning rate while averaging


class TrainerConfig(_Strict):
    """Settings of the Lightning Trainer, by Lightning's own names."""

    max_epochs: Count
    budget: Duration | None = None
    save_every_seconds: NonNegative | None = 10.0
    save_every_steps: Count | None = None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal["auto"] | Annotated[list[Index], Field(min_length=1)]
    num_nodes: Count
    strategy: Strategy
    sync_batchnorm: bool = False
    precision: Precision
    compile: bool = False
    channels_last: bool | Literal["auto"] = "auto"
    accumulate_grad_batches: Count
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"]
    deterministic: bool | Literal["warn"]
    benchmark: bool
    early_stopping: EarlyStoppingConfig | None
    progress: Literal["auto", "bar", "lines", "none"]
    limit_train_batches: Count | Portion | None
    limit_val_batches: Count | Portion | None
    ema: EMAConfig | None = None
    swa: SWAConfig | None = None
    log_norms: bool = False
    lr_find: Find = "off"
    batch_size_find: Find = "off"
    batch_size_limit: Count | None = None
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    overfit_batches: Index = 0
    detect_anomaly: bool = False
    freeze: list[str] = []  # glob patterns of parameters' names
    unfreeze_epoch: Count | None = None


class TrackingConfig(_Strict):
    """Where runs are recorded."""

    uri: str | None
    experiment: Annotated[str, Field(min_length=1, max_length=250)]
    tags: dict[str, str]
    log_checkpoint: bool
    tensorboard: bool


class Config(_Strict):
    """A whole configuration, resolved and checked."""

    name: Name | None
    seed: Annotated[int, NOT_BOOL, Field(ge=0, lt=2**32)]
    monitor: str
    monitor_mode: Literal["min", "max"] | None = None  # None: read from the metric
    plot: Literal["confusion", "confusion_normalized", "scatter"]
    trust: list[str]
    init_from: str | None = None
    data: DataConfig
    loader: LoaderConfig
    augment: dict[str, Component] = {}  # `augment=[]` removes the key
    model: Component
    task: Component
    loss: Component
    metrics: dict[MetricName, Component] = {}
    optimizer: Component
    scheduler: Component
    trainer: TrainerConfig
    tracking: TrackingConfig
    # The overrides it was composed from, because a study composes it again with other values; None
    # if it was read from a file. Not part of the configuration.
    _overrides: tuple[str, ...] | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Whether all settings are equal, whether composed or read from a file."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    def __getitem__(self, path: str) -> Any:
        """Return a setting by its dotted path, such as `config["optimizer.lr"]`.

        Raises:
            KeyError: There is no such setting.
        """
        node: Any = self
        for part in str(path).split("."):
            known = node if isinstance(node, dict) else getattr(type(node), "model_fields", {})
            if part not in known:
                raise KeyError(f"no setting '{path}': {nearest(part, known)}")
            node = node[part] if isinstance(node, dict) else getattr(node, part)
        return node

    def __repr__(self) -> str:
        """Return what is chosen; `config["optimizer"]` has all of a group."""
        groups = ("model", "loss", "optimizer", "scheduler")
        parts = [f"{g} {getattr(self, g)['_target_'].rpartition('.')[2]}" for g in groups]
        parts += [f"lr {self.optimizer['lr']}"] if "lr" in self.optimizer else []
        length = self.trainer.budget or f"{self.trainer.max_epochs} epochs"
        return f"Config({', '.join((self.run_name, *parts, length))})"

    __str__ = __repr__

    @property
    def run_name(self) -> str:
        """The given name, or `<data>-<model class>`."""
        kind = self.model["_target_"].rpartition(".")[2].lower()
        chosen = [o[len("model=") :] for o in self._overrides or () if o.startswith("model=")]
        if chosen and chosen[-1].replace("_", "") != kind and chosen[-1].isidentifier():
            kind = chosen[-1]  # another choice of that network, such as text_cnn
        return self.name or f"{self.data.name}-{kind}"


# Arguments that litlab passes to its own tasks and to classes derived from them; any other
# LightningModule gets the first two, if its constructor has them. Those after the first three are
# for Python: a configuration has groups for them.
GIVEN_TO_TASK = (
    *("model", "spec", "parts"),
    *("loss", "optimizer", "scheduler", "metrics", "monitor"),
)
# How many positional arguments litlab itself passes to a component of each group, or their names.
NUM_GIVEN: dict[str, int | tuple[str, ...]] = {
    "data.source": 0,
    "augment": 1,  # spec
    "model": 1,  # spec
    "task": GIVEN_TO_TASK,
    "loss": 1,  # spec
    "metrics": 0,
    "optimizer": 1,  # model
    "scheduler": 2,  # optimizer, horizon
}
# Passed by keyword to constructors that have it, unless the configuration sets it.
GIVEN_BY_NAME = {"metrics": ("num_classes", "num_labels")}
