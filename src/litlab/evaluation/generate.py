"""Lets a trained language model write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from litlab.data.encode.tokenizer import SPECIALS, UNK_ID, load_tokenizer
from litlab.evaluation.inference import load_task
from litlab.runs.checkpoint.metadata import Loaded
from litlab.runs.folder import find
from litlab.tasks.task import Task
from litlab.utils.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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
