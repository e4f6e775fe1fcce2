import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error

from litlab.tasks.losses.regression import MAE, MSE, Huber

ALL = [MSE, MAE, Huber]


def batch(seed=0, size=5, targets=2):
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(scale=2, size=(size, targets))) for _ in range(2)]


def test_against_scikit_learn(make_spec):
    prediction, target = batch()
    spec = make_spec(targets=2)
    assert MSE(spec)(prediction, target).item() == pytest.approx(
        mean_squared_error(target, prediction)
    )
    assert MAE(spec)(prediction, target).item() == pytest.approx(
        mean_absolute_error(target, prediction)
    )


@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber_is_its_formula(make_spec, delta):
    prediction, target = batch(size=50)
    error = np.abs((prediction - target).numpy())
    expected = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).mean()
    loss = Huber(make_spec(targets=2), delta=delta)
    assert loss(prediction, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", ALL)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_symmetric_nonnegative_and_zero_at_the_target(make_spec, loss, seed):
    prediction, target = batch(seed)
    function = loss(make_spec(targets=2))
    value = function(prediction, target)
    assert value >= 0
    assert value == function(target, prediction)
    assert function(target, target) == 0


@pytest.mark.parametrize("loss", ALL)
def test_gradients(make_spec, loss):
    prediction, target = batch()
    function = loss(make_spec(targets=2))
    assert torch.autograd.gradcheck(lambda x: function(x, target), prediction.requires_grad_())


@pytest.mark.parametrize("loss", ALL)
def test_large_errors_do_not_overflow_half_precision(make_spec, loss):
    prediction = torch.full((2, 1), 1000.0, dtype=torch.float16)
    value = loss(make_spec(targets=1))(prediction, torch.zeros(2, 1))
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


@pytest.mark.parametrize("loss", ALL)
def test_shapes_that_would_broadcast_are_refused(make_spec, loss):
    with pytest.raises(ValueError, match="same shape"):
        loss(make_spec(targets=1))(torch.zeros(4, 1), torch.zeros(4))


@pytest.mark.parametrize("loss", ALL)
def test_classes_are_refused(make_spec, loss):
    with pytest.raises(ValueError, match=r"'flowers' are for classification; set loss="):
        loss(make_spec(3))
