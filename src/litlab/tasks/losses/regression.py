import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Positive
from litlab.data.spec import DataSpec


def _check_spec(spec: DataSpec) -> None:
    if spec.task != "regression":
        raise ValueError(
            f"loss: a regression loss needs numeric targets, but data '{spec.name}' are for"
            f" {spec.task}; set loss=cross_entropy"
        )


def _aligned(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    # (B, 1) against (B,) would broadcast to (B, B): a wrong loss that still falls.
    if prediction.shape != target.shape:
        raise ValueError(
            f"predictions {tuple(prediction.shape)} and targets {tuple(target.shape)} must have"
            " the same shape (B, T)"
        )
    # A square overflows float16 at an error of 256.
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype), target.to(dtype)


class MSE(nn.Module):
    """Mean squared error over samples and targets, in the square of the unit it is given.

    `RegressionTask` gives it standardized targets: the loss is then a share of their variance.

    Args:
        spec: Data whose targets are numbers.

    Raises:
        ValueError: The data's targets are classes.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        _check_spec(spec)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar; both arguments are `(B, T)` float."""
        return F.mse_loss(*_aligned(prediction, target))


class MAE(nn.Module):
    """Mean absolute error over samples and targets, in the unit it is given.

    `RegressionTask` gives it standardized targets: the loss is then in standard deviations.

    Args:
        spec: Data whose targets are numbers.

    Raises:
        ValueError: The data's targets are classes.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        _check_spec(spec)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar; both arguments are `(B, T)` float."""
        return F.l1_loss(*_aligned(prediction, target))


class Huber(nn.Module):
    """Huber's loss: `e^2 / 2` up to delta, `delta (|e| - delta / 2)` beyond; its mean.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics, 1964.

    Args:
        spec: Data whose targets are numbers.
        delta: The error at which the parabola becomes a line. `RegressionTask` standardizes the
            targets, so it is in standard deviations of the train split's.

    Raises:
        ValueError: The data's targets are classes.
    """

    def __init__(self, spec: DataSpec, *, delta: Positive = 1.0) -> None:
        super().__init__()
        _check_spec(spec)
        self.delta = delta

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar; both arguments are `(B, T)` float."""
        return F.huber_loss(*_aligned(prediction, target), delta=self.delta)
