"""How a language model does on a text, token by token; nothing is kept of the logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric

from litlab.data.encode.text import SPECIALS, UNK_ID, load_tokenizer
from litlab.data.loading import BatchLoader, Preprocess, Split
from litlab.data.spec import Array, DataSpec
from litlab.evaluation.inference import device, load_task
from litlab.report.intervals import bootstrap_interval
from litlab.runs.checkpoint.metadata import Loaded
from litlab.runs.folder import find
from litlab.tasks.metrics import FLUSH_BYTES, EpochMeter
from litlab.tasks.perplexity import BitsPerToken, Perplexity
from litlab.tasks.task import Task
from litlab.utils.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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


# Lets a trained language model write.


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: The logits are divided by it: below 1 the likely becomes likelier; 0 takes the
            likeliest.
        top_k: Only the k likeliest tokens are drawn (Fan et al. 2018, §5.3).
        top_p: Only the likeliest tokens that together have this probability are drawn (nucleus
            sampling, Holtzman et al. 2020, §3.1); 1 is all.

    Raises:
        ConfigError: A value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            _refuse(f"a temperature of {self.temperature}", "--temperature", "0 or more")
        if self.top_k is not None and self.top_k < 1:
            _refuse(f"{self.top_k} tokens to choose from", "--top-k", "1 or more")
        if not 0 < self.top_p <= 1:
            _refuse(f"a probability of {self.top_p}", "--top-p", "more than 0, at most 1")

    def draw(self, logits: torch.Tensor, generator: torch.Generator) -> int:
        """Draw a token id from logits `(V,)`."""
        if self.temperature == 0:
            return int(logits.argmax())
        logits = (logits - logits.max()) / self.temperature  # the largest is 0: nothing overflows
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, len(logits))).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities, order = logits.softmax(0).sort(descending=True, stable=True)
        before = probabilities.cumsum(0) - probabilities
        probabilities = probabilities.masked_fill(before >= self.top_p, 0)
        return int(order[torch.multinomial(probabilities, 1, generator=generator)])


def _refuse(what: str, where: str, fix: str) -> None:
    raise ConfigError(what, where, f"give {fix}")


def generate(
    reference: str,
    prompt: str = "",
    *,
    max_tokens: int = 500,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    trust: Sequence[str] = (),
    task: Task | None = None,
) -> str:
    """Return the prompt, as the model reads it, and how the model continues it.

    Args:
        reference: Run or checkpoint, as `litlab.runs.folder.find` takes it.
        prompt: Text to start from. Empty, the model is shown a line's end (which is not
            returned), or where it knows none, a token drawn at random.
        max_tokens: Tokens to write.
        temperature: See `Sampling`, as for `top_k` and `top_p`.
        top_k: None: any token.
        top_p: 1: any token.
        seed: The same gives the same text.
        trust: The user's own packages that the checkpoint may name.
        task: As `load_task` takes it.

    Raises:
        ConfigError: A setting is out of its range.
        CheckpointError: There is no such run, or it is not a language model.
        DataError: The prompt has characters that the model does not know.
    """
    sampling = Sampling(temperature, top_k, top_p)
    if max_tokens < 1:
        _refuse(f"{max_tokens} tokens", "--max-tokens", "1 or more")
    found = find(reference)
    loaded, task = load_task(found.checkpoint, trust, task)
    _require_language_model(loaded, str(found.checkpoint))
    return write(loaded, task.model, prompt, max_tokens, sampling, seed)


def _require_language_model(loaded: Loaded, where: str) -> None:
    spec = loaded.metadata.spec
    if spec.task != "language_model" or spec.tokenizer is None:
        raise CheckpointError(
            f"trained for {spec.task} of '{spec.name}', it cannot generate text",
            where,
            "train a language model: litlab train data=plain_text data.path=FILE",
        )


def write(
    loaded: Loaded, model: nn.Module, prompt: str, max_tokens: int, sampling: Sampling, seed: int
) -> str:
    """Let a model write that is loaded already, as `generate` does."""
    assert loaded.metadata.spec.tokenizer is not None
    tokenizer = load_tokenizer(loaded.metadata.spec.tokenizer)
    generator = torch.Generator().manual_seed(seed)  # the CPU's: the same on every device
    start = encode_prompt(tokenizer, prompt)
    shown = start or first_token(tokenizer, generator)
    length = loaded.metadata.spec.shape[0]
    new = continue_ids(model, shown, max_tokens, length, sampling, generator)
    text: str = tokenizer.decode(start + new)
    return text


def encode_prompt(tokenizer: "Tokenizer", prompt: str) -> list[int]:
    """Return a prompt's token ids.

    Raises:
        DataError: It has a character or word that the tokenizer does not know.
    """
    encoding = tokenizer.encode(prompt)
    if UNK_ID in encoding.ids:
        start, end = encoding.offsets[encoding.ids.index(UNK_ID)]
        raise DataError(
            f"'{prompt[start:end]}' is not in the model's vocabulary of "
            f"{tokenizer.get_vocab_size():,} tokens",
            f"the prompt, character {start + 1}",
            "remove or replace it",
        )
    return list(encoding.ids)


def first_token(tokenizer: "Tokenizer", generator: torch.Generator) -> list[int]:
    """Return what a model is shown before a text without a beginning: a line's end, or a token."""
    ids = tokenizer.encode("\n").ids
    if ids and UNK_ID not in ids:
        return list(ids)
    number = tokenizer.get_vocab_size()
    return [int(torch.randint(len(SPECIALS), number, (), generator=generator))]


@torch.inference_mode()
def continue_ids(
    model: nn.Module,
    ids: Sequence[int],
    number: int,
    length: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[int]:
    """Return so many token ids that the model draws after `ids`, of which there is at least one.

    The model sees the last `length` tokens. Special tokens are never drawn.
    """
    place = next(model.parameters()).device
    text = list(ids)
    for _ in range(number):
        seen = torch.tensor([text[-length:]], device=place)
        logits = model(seen)[0, -1].float().cpu()
        logits[: len(SPECIALS)] = -torch.inf
        text.append(sampling.draw(logits, generator))
    return text[len(ids) :]
