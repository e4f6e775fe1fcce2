"""Texts come padded to the longest of their batch; a text's result must not depend on it."""

import pytest
import torch

from litlab.models.cnn import CNN
from litlab.models.mlp import MLP
from litlab.models.simple import SimpleCNN, SimpleNN
from litlab.models.transformer import Transformer
from model_specs import make_spec

LONGEST = 11
SPEC = make_spec("text").model_copy(update={"shape": (LONGEST,)})
BUILDS = {
    "simple_nn": lambda: SimpleNN(SPEC),
    "simple_cnn": lambda: SimpleCNN(SPEC),
    "mlp": lambda: MLP(SPEC),
    "transformer": lambda: Transformer(SPEC, depth=1),
    "class_token": lambda: Transformer(SPEC, depth=1, pool="class_token", positions="learned"),
    "cnn": lambda: CNN(SPEC, channels=(4, 5, 6)),
    "avg": lambda: CNN(SPEC, channels=(4, 5, 6), pooling="avg", activation="tanh"),
    "stride": lambda: CNN(SPEC, channels=(4, 5, 6), pooling="stride", block="residual"),
    "no_pool": lambda: CNN(SPEC, channels=(4, 5), pooling="none", kernel_size=5),
    "max": lambda: CNN(SPEC, channels=(4, 5), head="max", activation="tanh"),
    "flatten": lambda: CNN(SPEC, channels=(4, 5, 6), head="flatten"),
    "circular": lambda: CNN(SPEC, channels=(4, 5), padding_mode="circular"),
}


@pytest.mark.parametrize("name", BUILDS)
def test_a_text_gets_the_same_result_in_any_batch(name) -> None:
    torch.manual_seed(0)
    model = BUILDS[name]()
    with torch.no_grad():  # a normalization's bias would turn padding into something
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model(torch.randint(1, SPEC.vocab_size, (16, LONGEST)))  # statistics of batch normalization
    model.eval()
    for length in range(1, LONGEST + 1):
        text = torch.randint(1, SPEC.vocab_size, (2, length))
        alone = model(text)
        assert alone.isfinite().all()
        for longer in range(length + 1, LONGEST + 1):
            padded = torch.nn.functional.pad(text, (0, longer - length), value=SPEC.pad_id)
            torch.testing.assert_close(model(padded), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILDS)
def test_padding_alone_is_finite(name) -> None:
    """An empty text is one token of padding, by itself or beside others."""
    model = BUILDS[name]()
    empty = torch.full((3, 1), SPEC.pad_id)
    for training in (True, False):
        outputs = model.train(training)(empty)
        outputs.sum().backward()
        assert outputs.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        model.zero_grad()
