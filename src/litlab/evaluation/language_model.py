"""How a language model does on a text, token by token; nothing is kept of the logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

from litlab.data.encode.tokenizer import load_tokenizer
from litlab.data.loading.arrays import Split
from litlab.data.loading.loader import BatchLoader
from litlab.data.loading.preprocess import Preprocess
from litlab.data.spec import Array, DataSpec
from litlab.evaluation.inference import device
from litlab.report.intervals import bootstrap_interval
from litlab.tasks.metrics import FLUSH_BYTES, EpochMeter
from litlab.tasks.perplexity import BitsPerToken, Perplexity
from litlab.tasks.task import Task

SHOWN = 4000  # tokens in predictions.csv, from the beginning of the test split
BEFORE = 24  # tokens shown before a mistake
VISIBLE = str.maketrans({" ": "␣", "\n": "\\n", "\t": "\\t", "\r": "\\r"})


@dataclass(frozen=True)
class TokenOutputs:
    """What a language model says of each token of N windows of L, on the CPU; all `(N, L)`.

    Attributes:
        actual: The tokens that came, as ids.
        predicted: The likeliest ones.
        confidence: The probability of these.
        nats: `-log p` of the tokens that came.
    """

    actual: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor
    nats: torch.Tensor


@torch.inference_mode()
def read(
    task: Task, spec: DataSpec, split: Split, batch_size: int
) -> tuple[dict[str, float], TokenOutputs]:
    """Run a language model over a split; return loss and metrics, and what it says of each token.

    Args:
        task: The network.
        spec: The data it was trained on.
        split: The windows.
        batch_size: At most so many at a time; fewer where their logits would take much memory.
    """
    place = device()
    preprocess, meter = Preprocess(spec).to(place), EpochMeter(task.parts.metrics).to(place)
    window = spec.shape[0] * spec.num_outputs * torch.float32.itemsize
    size = min(batch_size, max(1, FLUSH_BYTES // window))
    found = []
    for x, y, _ in BatchLoader(split, batch_size=size):
        outputs, targets = task(preprocess(x.to(place))).float(), y.to(place)
        loss = task.loss(task.outputs_for_loss(outputs), task.targets_for_loss(targets))
        meter.add(loss, *task.measured(outputs, targets))
        logs = outputs.log_softmax(-1)
        confidence, predicted = logs.max(-1)
        nats = -logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        found.append([t.cpu() for t in (targets, predicted, confidence.exp(), nats)])
    return meter.compute(), TokenOutputs(*(torch.cat(list(t)) for t in zip(*found, strict=True)))


def intervals(
    outputs: TokenOutputs,
    metrics: Mapping[str, Metric],
    values: Mapping[str, float],
    rounds: int,
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of those metrics that are a function of the tokens' mean.

    Windows are drawn, not tokens, for a text's neighbouring tokens are not independent.

    Args:
        outputs: Of each token.
        metrics: The configured ones, by name.
        values: What they gave, the loss among them.
        rounds: Of the bootstrap.
    """
    rng = np.random.default_rng(0)
    nats = outputs.nats.double().mean(1).numpy()
    hits = (outputs.predicted == outputs.actual).double().mean(1).numpy()

    def interval(windows: Array, function: Any) -> tuple[float, float]:
        measure = lambda actual, _: float(function(actual.mean()))  # noqa: E731
        return bootstrap_interval(measure, windows, windows, rng, rounds)

    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, BitsPerToken):
            found[name] = interval(nats / np.log(2), float)
        elif isinstance(metric, Perplexity):
            found[name] = interval(nats, np.exp)
        elif name == "accuracy" and abs(hits.mean() - values[name]) < 1e-6:  # not by class
            found[name] = interval(hits, float)
    return found


def context(outputs: TokenOutputs, spec: DataSpec, place: int) -> tuple[str, str, str]:
    """Return the text before one of the flattened tokens, the token, and the one predicted."""
    assert spec.tokenizer is not None
    tokenizer, (window, at) = load_tokenizer(spec.tokenizer), divmod(place, spec.shape[0])
    before = outputs.actual[window, max(0, at - BEFORE) : at].tolist()
    one, other = (int(t[window, at]) for t in (outputs.actual, outputs.predicted))
    texts = (tokenizer.decode(before), *(_name(tokenizer, i) for i in (one, other)))
    shown, actual, predicted = (text.translate(VISIBLE) for text in texts)
    return shown, actual, predicted


def _name(tokenizer: Any, token: int) -> str:
    return tokenizer.decode([token]) or str(tokenizer.id_to_token(token))


def labels(outputs: TokenOutputs, spec: DataSpec) -> tuple[list[str], list[str], Array]:
    """Return the first tokens that came and that were predicted, as text, and the confidence."""
    assert spec.tokenizer is not None
    tokenizer = load_tokenizer(spec.tokenizer)
    actual, predicted = (t.flatten()[:SHOWN].tolist() for t in (outputs.actual, outputs.predicted))
    names = {i: _name(tokenizer, i).translate(VISIBLE) for i in {*actual, *predicted}}
    confidence: Array = outputs.confidence.flatten()[:SHOWN].numpy()
    return [names[i] for i in actual], [names[i] for i in predicted], confidence
