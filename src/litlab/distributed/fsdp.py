"""A network too large for one device: FSDP2, whose processes each hold a part of every weight."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn

from litlab.config.schema import TrainerConfig


def strategy_of(trainer: TrainerConfig, processes: int) -> str | Strategy:
    """Return what the Trainer takes as its strategy: FSDP2 ready made, others by name.

    Checkpoints hold whole weights, put together by the first process: whoever reads them need not
    know how they were trained.
    """
    if trainer.strategy != "fsdp2":
        return trainer.strategy
    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def shard(model: nn.Module, mesh: Any) -> None:
    """Share a model's weights out among the processes of a mesh.

    Each layer of a list of layers (a Transformer's, a CNN's stages) is gathered when it computes
    and let go afterwards, forward and backward; what is left is gathered as one more.
    """
    from torch.distributed.fsdp import fully_shard  # a second of imports that nobody else needs

    part = mesh["data_parallel"]
    for layer in _layers(model):
        fully_shard(layer, mesh=part)
    fully_shard(model, mesh=part)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Find the members of lists of layers; lists within such a member are part of it."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from _layers(child)
