"""Batch norm over a whole batch, wherever its parts are."""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize(model: nn.Module, *, on_cuda: bool) -> nn.Module:
    """Return the model with every batch norm synchronized between processes.

    On CUDA it is torch's `SyncBatchNorm`, elsewhere (torch's refuses a CPU) `SyncedBatchNorm`.
    Parameters, buffers and their names stay; of the two, checkpoints show nothing.
    """
    if on_cuda:
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    if isinstance(model, _BatchNorm):
        return SyncedBatchNorm.of(model)
    for name, child in model.named_children():
        setattr(model, name, synchronize(child, on_cuda=False))
    return model


class SyncedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' samples together.

    With `n` values a channel in all processes, `m = sum x / n` and `v = sum (x - m)^2 / n`: two
    sums over processes forward and two backward, so it is no faster than the network between them.
    In evaluation, or alone, it is ordinary batch norm. Ioffe and Szegedy, "Batch Normalization",
    ICML 2015.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> "SyncedBatchNorm":
        """Return one that shares a batch norm's parameters and buffers."""
        made = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name, parameter in norm.named_parameters(recurse=False):
            setattr(made, name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(made, name, buffer)
        return made.train(norm.training)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        assert input.ndim >= 2, f"batch norm of {tuple(input.shape)}"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, ...)`, normalized a channel."""
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        x = input.float()  # sums of half precision would be coarse
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        total = _sum(torch.cat([x.sum(axes), count]))
        count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
        centred = x - mean.view(shape)
        variance = _sum((centred * centred).sum(axes)) / count
        self._track(mean.detach(), variance.detach(), count)
        normal: torch.Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        """Move the running statistics; as torch's, the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """A sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return _all_reduce(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _all_reduce(gradient)


def _all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    total = tensor.contiguous().clone()
    distributed.all_reduce(total)
    return total


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total
