import torch
from torch import nn

from litlab.tasks.losses.classification import l1_penalty


def test_sum_of_absolute_weights_without_biases_and_norms():
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 2))
    expected = model[0].weight.abs().sum() + model[3].weight.abs().sum()
    penalty = l1_penalty(model.parameters())
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    torch.testing.assert_close(model[3].weight.grad, model[3].weight.sign())
    assert model[3].bias.grad is None
    assert model[1].weight.grad is None


def test_without_weights_it_is_zero():
    assert l1_penalty([torch.ones(3)]) == 0
    assert l1_penalty([]) == 0
