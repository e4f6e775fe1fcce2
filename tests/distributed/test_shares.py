"""The mean of what processes compute from their shares is what one computes from the batch."""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, nn
from torch.nn import functional as F

from litlab.distributed.loss_scaling import counted, scaled
from litlab.distributed.sync_batchnorm import SyncedBatchNorm, synchronize


@settings(deadline=None)  # the first call warms torch up
@given(number=st.integers(1, 12), world=st.integers(1, 4), weighted=st.booleans())
def test_gradients_of_uneven_shares_average_to_the_batchs(number, world, weighted) -> None:
    torch.manual_seed(number)
    weight = torch.tensor([1.0, 2.0, 5.0]) if weighted else None
    w = torch.randn(4, 3, requires_grad=True)
    x, y = torch.randn(number, 4), torch.randint(3, (number,))
    (whole,) = torch.autograd.grad(F.cross_entropy(x @ w, y, weight), w)
    total = weight[y].sum() if weight is not None else None
    gradients = []
    for rank in range(world):
        own = slice(rank, None, world)
        share = (len(x[own]), number)
        part = own if share[0] else slice(1)  # a stand-in
        loss = F.cross_entropy(x[part] @ w, y[part], weight)
        divisor = None if weight is None else weight[y[part]].sum()
        scaled_loss = scaled(loss, divisor, share, world, lambda _: total)
        gradients.append(torch.autograd.grad(scaled_loss, w)[0])
    torch.testing.assert_close(torch.stack(gradients).mean(0), whole)


def test_a_stand_in_is_not_measured() -> None:
    outputs, targets, weight = torch.ones(1, 3), torch.ones(1), torch.tensor(2.0)
    assert counted(outputs, targets, weight, (1, 5)) == (outputs, targets, weight)
    nothing = counted(outputs, targets, weight, (0, 5))
    assert [len(nothing[0]), len(nothing[1]), float(nothing[2])] == [0, 0, 0.0]
    assert counted(outputs, targets, None, (0, 5))[2] is None


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm1d, (6, 4)), (nn.BatchNorm1d, (3, 4, 5)), (nn.BatchNorm2d, (2, 4, 3, 3))],
)
def test_synchronized_batch_norm_is_batch_norm(group, norm, shape, momentum) -> None:
    torch.manual_seed(0)
    expected = norm(4, momentum=momentum)
    nn.init.normal_(expected.weight)
    made = synchronize(copy.deepcopy(expected), on_cuda=False)
    assert isinstance(made, SyncedBatchNorm)
    for _ in range(2):
        x = torch.randn(shape) * 3 + 5
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        (expected(a) ** 3).sum().backward()
        (made(b) ** 3).sum().backward()
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.weight.grad, expected.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.state_dict(), expected.state_dict())
    torch.testing.assert_close(made.eval()(x), expected.eval()(x))


def test_every_batch_norm_of_a_model_is_synchronized_in_place() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()))
    parameters, names = list(model.parameters()), list(model.state_dict())
    assert synchronize(model, on_cuda=False) is model
    assert isinstance(model[1][0], SyncedBatchNorm)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == names
    on_cuda = synchronize(nn.Sequential(nn.BatchNorm1d(4)), on_cuda=True)
    assert isinstance(on_cuda[0], nn.SyncBatchNorm)
