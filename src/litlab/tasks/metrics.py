"""Metrics of an epoch: collected while it runs, computed once at its end."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn
from torchmetrics import Metric

from litlab.config.instantiate import build, locate

FLUSH_BYTES = 64 * 2**20  # outputs kept before they go into the metrics' own states
Reduce = Callable[[torch.Tensor], torch.Tensor]


def build_metrics(
    nodes: Mapping[str, dict[str, Any]], num_classes: int, trust: list[str]
) -> dict[str, Metric]:
    """Build the configured metrics, telling them the number of classes or labels where they ask.

    Args:
        nodes: Name to component.
        num_classes: Of the data, or labels; tokens of a language model; 0 for regression.
        trust: Packages of the user's own that may be named.
    """
    built = {}
    for name, node in nodes.items():
        where = f"metrics.{name}"
        known = _parameters(locate(node["_target_"], where, trust))
        numbers = [key for key in ("num_classes", "num_labels") if key in known and num_classes]
        extra: dict[str, Any] = dict.fromkeys(numbers, num_classes)
        built[name] = build({**extra, **node}, where=where, trust=trust)
    return built


def _parameters(target: Callable[..., Any]) -> set[str]:
    """Names a class takes; torchmetrics' facade classes spell them in __new__."""
    constructors = [target, getattr(target, "__init__", target), getattr(target, "__new__", target)]
    return {name for c in constructors for name in inspect.signature(c).parameters}


def direction(monitor: str, metrics: Mapping[str, Metric]) -> str:
    """Return "max" where more of the monitored quantity is better, else "min"."""
    metric = metrics.get(monitor.partition("/")[2])
    return "max" if metric is not None and metric.higher_is_better else "min"


class EpochMeter(nn.Module):
    """Mean loss and metrics over one epoch of one split.

    Updating torchmetrics in each step costs more than a small network's step. So outputs are kept
    on their device and go into the metrics together: at the end, or before they fill the memory.
    The result is the same, for a metric's update is additive over samples.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        super().__init__()
        # A list and not a ModuleDict, which refuses names such as "forward" and "top.1".
        self._names = tuple(metrics)
        self._metrics = nn.ModuleList(m.clone() for m in metrics.values())
        self._clear()

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by their configured names."""
        pairs = zip(self._names, self._metrics, strict=True)
        return {name: m for name, m in pairs if isinstance(m, Metric)}

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._weights: list[torch.Tensor | int] = []
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._bytes = [0]  # in a list, for setting a module's attribute takes ten times as long

    def add(
        self,
        loss: torch.Tensor,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> None:
        """Take in one batch.

        Args:
            loss: Its mean loss.
            outputs: `(B, C)`.
            targets: `(B,)` or `(B, C)`.
            weight: What the loss was divided by, a scalar; None is the number of samples. Given
                for all batches of an epoch, or for none.
        """
        self._losses.append(loss.detach())
        self._weights.append(len(targets) if weight is None else weight.detach())
        if not self._names:
            return
        self._outputs.append((outputs.detach(), targets))
        self._bytes[0] += outputs.nbytes
        if self._bytes[0] > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._outputs:
            return
        outputs, targets = self._outputs[0]  # a language model's batch may fill it: not copied
        if len(self._outputs) > 1:
            outputs = torch.cat([o for o, _ in self._outputs])
            targets = torch.cat([t for _, t in self._outputs])
        outputs = outputs.float()
        self._outputs, self._bytes = [], [0]
        for metric in self.metrics.values():
            with _counting_fast(metric, outputs.device):
                metric.update(outputs, targets)

    def state(self) -> dict[str, Any]:
        """Return what was collected since the epoch began, as tensors and plain values."""
        counts = isinstance(next(iter(self._weights), 0), int)
        parts = zip(*self._outputs, strict=True)
        kept: dict[str, Any] = {
            "losses": torch.stack(self._losses) if self._losses else None,
            "weights": self._weights if counts else torch.stack(_tensors(self._weights)),
            # Joined, for a file has a record for each tensor.
            "outputs": [torch.cat(part) for part in parts],
            "sizes": [len(outputs) for outputs, _ in self._outputs],
            "metrics": [
                {"updates": m._update_count, "values": m.metric_state} for m in self._all_metrics()
            ],
        }
        on_cpu: dict[str, Any] = apply_to_collection(kept, torch.Tensor, lambda t: t.cpu())
        return on_cpu

    def load_state(
        self, states: Sequence[Mapping[str, Any]], device: torch.device | None = None
    ) -> None:
        """Continue from what a process, or several together, had collected.

        Args:
            states: What `state` returned in each of them; with none, the epoch is empty so far.
            device: Where the rest of the epoch will be collected; where it is, if None.
        """
        self._clear()
        if device is not None:
            states = apply_to_collection(list(states), torch.Tensor, lambda t: t.to(device))
        for state in states:
            if state["losses"] is not None:
                self._losses += state["losses"].unbind()
            self._weights += list(state["weights"])
            parts = [torch.split(part, state["sizes"]) for part in state["outputs"]]
            self._outputs += list(zip(*parts, strict=True))
        self._bytes = [sum(outputs.nbytes for outputs, _ in self._outputs)]
        for place, metric in enumerate(self._all_metrics()):
            for state in states:
                _add_state(metric, **state["metrics"][place])

    def _all_metrics(self) -> list[Metric]:
        return [m for m in self._metrics.modules() if isinstance(m, Metric)]

    def compute(self, reduce: Reduce = lambda x: x) -> dict[str, float]:
        """Return the epoch's means and forget the epoch.

        Args:
            reduce: Sums a tensor over all processes. (torchmetrics does its own.)
        """
        self._flush()
        # On the CPU, for MPS has no float64; one transfer an epoch.
        losses = torch.tensor([]) if not self._losses else torch.stack(self._losses)
        losses, weights = losses.cpu().double(), torch.tensor([])
        if self._weights:
            weights = torch.stack(_tensors(self._weights)).cpu().double()
        # A batch of nothing (this process's share of a short last batch) has no mean.
        total = reduce(torch.stack([losses[weights > 0] @ weights[weights > 0], weights.sum()]))
        values = {"loss": (total[0] / total[1]).item()}
        for name, metric in self.metrics.items():
            with _counting_fast(metric, metric.device):
                values[name] = float(metric.compute())
            metric.reset()
        self._clear()
        return values


@contextmanager
def _counting_fast(metric: Metric, device: torch.device) -> Iterator[None]:
    """Let torchmetrics count in one pass on the CPU, where counting is deterministic anyhow.

    With deterministic algorithms asked for, it compares every sample with every bin: an epoch's
    AUROC took 2.3 s for 100 samples.
    """
    strict = torch.are_deterministic_algorithms_enabled()
    own = type(metric).__module__.startswith("torchmetrics.")
    if not (strict and own and device.type == "cpu"):
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


def _tensors(values: Sequence[torch.Tensor | int]) -> list[torch.Tensor]:
    return [torch.as_tensor(value) for value in values]


def _add_state(metric: Metric, updates: int, values: Mapping[str, Any]) -> None:
    """Add to a metric what another one of its kind has seen."""
    if not updates:
        return
    before = metric._update_count
    other = metric if not before else metric.clone()
    for name, value in values.items():
        moved = value.to(metric.device) if isinstance(value, torch.Tensor) else value
        setattr(other, name, moved)
    if other is not metric:
        metric.merge_state(other)
    metric._update_count = before + updates
