import math
from collections import Counter

import pytest
import torch
from test_language_model import TEXT, TINY, make_spec
from torch import nn

from litlab.config.compose import load
from litlab.data.encode.text import load_tokenizer, train_tokenizer
from litlab.evaluation.language_model import (
    Sampling,
    continue_ids,
    encode_prompt,
    first_token,
    generate,
)
from litlab.evaluation.predict import predict
from litlab.models.transformer import Transformer
from litlab.training.run import train
from litlab.utils.errors import CheckpointError, ConfigError, DataError
from run_helpers import THIRD_PARTY, ready_store, small_run

pytestmark = THIRD_PARTY
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5])
GREEDY = Sampling(temperature=0)


def draws(sampling, number=4000):
    generator = torch.Generator().manual_seed(0)
    counts = Counter(sampling.draw(LOGITS, generator) for _ in range(number))
    return torch.tensor([counts[i] / number for i in range(len(LOGITS))])


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chars(text=TEXT):
    return train_tokenizer([text], "char", vocab_size=300, min_frequency=1, lowercase=False)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_softmax_says(temperature):
    expected = (LOGITS / temperature).softmax(0)
    torch.testing.assert_close(draws(Sampling(temperature)), expected, atol=0.025, rtol=0)


def test_top_k_draws_among_the_k_likeliest_alone():
    expected = torch.zeros(5)
    expected[[0, 4]] = LOGITS[[0, 4]].softmax(0)
    torch.testing.assert_close(draws(Sampling(top_k=2)), expected, atol=0.025, rtol=0)
    torch.testing.assert_close(draws(Sampling(top_k=99)), LOGITS.softmax(0), atol=0.025, rtol=0)


def test_top_p_draws_among_the_fewest_that_reach_it():
    assert LOGITS.softmax(0).sort(descending=True).values.cumsum(0)[1] > 0.7
    expected = torch.zeros(5)
    expected[[0, 4]] = LOGITS[[0, 4]].softmax(0)
    torch.testing.assert_close(draws(Sampling(top_p=0.7)), expected, atol=0.025, rtol=0)
    assert draws(Sampling(top_p=1e-9), 50)[0] == 1


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1e-30), Sampling(top_k=1)])
def test_the_likeliest_token_alone(sampling):
    assert draws(sampling, 50)[0] == 1


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1}, {"temperature": math.inf}, {"temperature": math.nan}, {"top_k": 0},
     {"top_p": 0.0}, {"top_p": 1.1}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError) as caught:
        Sampling(**settings)
    assert caught.value.exit_code == 2


def test_token_by_token_is_the_forward_pass_over_the_whole():
    torch.manual_seed(0)
    model = Transformer(make_spec(), embed_dim=16, depth=2, num_heads=2, ffn_dim=16).eval()
    new = continue_ids(model, [5, 6], 6, 8, GREEDY, make_generator())
    logits = model(torch.tensor([[5, 6, *new]]))[0]
    logits[:, :3] = -torch.inf
    assert new == logits.argmax(1)[1:-1].tolist()


class Recorder(nn.Module):
    """Says token 7, after noting what it was shown."""

    def __init__(self):
        super().__init__()
        self.seen, self.weight = [], nn.Parameter(torch.zeros(1))

    def forward(self, ids):
        self.seen.append(ids[0].tolist())
        logits = torch.zeros(*ids.shape, 9)
        logits[..., 7], logits[..., 0] = 5.0, 99.0  # id 0 is <pad>: never drawn
        return logits


def test_the_model_sees_the_last_tokens_that_it_has_places_for():
    model = Recorder()
    assert continue_ids(model, [3, 4, 5], 4, 4, GREEDY, make_generator()) == [7] * 4
    assert model.seen == [[3, 4, 5], [3, 4, 5, 7], [4, 5, 7, 7], [5, 7, 7, 7]]


def test_special_tokens_are_never_drawn():
    model = Transformer(make_spec(), embed_dim=8, depth=1, num_heads=2, ffn_dim=8).eval()
    new = continue_ids(model, [4], 200, 8, Sampling(temperature=50), make_generator())
    assert min(new) >= 3


def test_a_prompt_with_an_unknown_character_is_refused_by_name():
    with pytest.raises(DataError, match=r"'ß' is not .* character 4 ") as caught:
        encode_prompt(chars(), "theß")
    assert caught.value.exit_code == 3


def test_bytes_know_every_prompt():
    tokenizer = train_tokenizer([TEXT], "bpe", vocab_size=300, min_frequency=2, lowercase=False)
    ids = encode_prompt(tokenizer, "ß → \n  ok")
    assert tokenizer.decode(ids) == "ß → \n  ok"


def test_an_empty_prompt_begins_a_line_or_anywhere():
    tokenizer = chars()
    assert first_token(tokenizer, make_generator()) == tokenizer.encode("\n").ids
    single = load_tokenizer(chars("one line").to_str())
    found = {first_token(single, make_generator(seed))[0] for seed in range(40)}
    assert found == set(range(3, single.get_vocab_size()))


@pytest.fixture
def run(project):
    (project / "text.txt").write_text(TEXT)
    ready_store(project)
    return train(load(list(TINY)))


def test_generate_from_a_run(run, project):
    text = generate("last", "the cat", max_tokens=40)
    assert text.startswith("the cat")
    assert len(text) == len("the cat") + 40
    assert set(text) <= set(TEXT)
    assert generate(str(run.folder), "the cat", max_tokens=40) == text
    assert generate("last", "the cat", max_tokens=40, seed=1) != text
    greedy = [generate("last", "the", max_tokens=9, temperature=0, seed=s) for s in (0, 1)]
    assert greedy[0] == greedy[1]
    assert len(generate("last", max_tokens=12)) == 12  # the line's end it begins with is not shown


def test_what_cannot_be_generated(run, project):
    with pytest.raises(ConfigError, match="0 tokens"):
        generate("last", max_tokens=0)
    with pytest.raises(CheckpointError, match="litlab generate") as caught:
        predict("last", project / "text.txt", project / "out.csv")
    assert caught.value.exit_code == 4


def test_a_run_of_another_task_writes_nothing(project):
    small_run(project)
    with pytest.raises(CheckpointError, match="trained for classification .* data=plain_text"):
        generate("last")


def test_the_verb(run, litlab):
    asked = ("--prompt", "the cat", "--max-tokens", "12", "--top-k", "5", "--seed", "3")
    code, out, _ = litlab("generate", "last", *asked)
    assert code == 0
    assert out.rstrip("\n") == generate("last", "the cat", max_tokens=12, top_k=5, seed=3).rstrip(
        "\n"
    )
    code, out, err = litlab("generate", "last", "--prompt", "the \u2603")
    assert (code, out) == (3, "")
    assert "\u2603" in err
