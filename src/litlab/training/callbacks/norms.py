from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from litlab.tasks.own_module import network

ROWS = 100  # steps whose norms are kept apart before they are summed


class Norms(Callback):
    """Logs norms of gradients and weights once per epoch, in total and per layer.

    A layer is a module with parameters of its own; its norm is the Euclidean one over them all.
    Gradients are those of the optimizer's steps, before clipping: `grad_norm/mean` and
    `grad_norm/max` of the whole network over the epoch's steps, `grad_norm/<layer>` the mean.
    `weight_norm/total` and `weight_norm/<layer>` are of the weights at the epoch's end.

    A step costs one kernel for all norms and one to stack them; the device is asked for numbers
    once an epoch.
    """

    quiet = True  # logs at the ends of epochs only: see litlab.training.loop

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []
        self._layers: dict[str, list[int]] = {}
        self._rows: list[torch.Tensor] = []  # (P,) a step: each parameter's norm
        self._totals: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the layers."""
        named = dict(network(pl_module).named_parameters())
        self._parameters = list(named.values())
        self._layers = {}
        for place, name in enumerate(named):
            self._layers.setdefault(name.rpartition(".")[0] or name, []).append(place)
        device = self._parameters[0].device
        self._rows = [row.to(device) for row in self._rows]  # of a checkpoint

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Take the norms of the step's gradients."""
        none = self._parameters[0].new_zeros(())  # of what is frozen or was not used
        gradients = [none if p.grad is None else p.grad for p in self._parameters]
        self._rows.append(torch.stack(torch._foreach_norm(gradients)))
        if len(self._rows) == ROWS:
            self._sum_up()

    def _sum_up(self) -> None:
        """Add the steps that are kept apart to the epoch's sums."""
        if not self._rows:
            return
        layers = self._by_layer(torch.stack(self._rows).float())
        whole = layers.square().sum(1).sqrt()
        new = {
            "steps": torch.tensor(len(whole)),
            "layers": layers.sum(0),
            "whole": whole.sum(),
            "max": whole.max(),
        }
        self._rows = []
        if self._totals:
            old = {k: v.to(new[k].device) for k, v in self._totals.items()}
            largest = torch.maximum(old["max"], new["max"])
            new = {**{k: old[k] + v for k, v in new.items()}, "max": largest}
        self._totals = new

    def _by_layer(self, norms: torch.Tensor) -> torch.Tensor:
        """Combine norms of parameters `(..., P)` to norms of layers `(..., L)`."""
        squares = norms.square()
        places = self._layers.values()
        return torch.stack([squares[..., place].sum(-1) for place in places], -1).sqrt()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log both kinds, and begin anew."""
        weights = torch.stack(torch._foreach_norm([p.detach() for p in self._parameters]))
        layers = self._by_layer(weights.float())
        values = self._named("weight_norm", layers)
        values["weight_norm/total"] = layers.square().sum().sqrt().item()
        self._sum_up()
        if self._totals:
            steps = int(self._totals["steps"])
            values |= self._named("grad_norm", self._totals["layers"] / steps)
            values["grad_norm/mean"] = self._totals["whole"].item() / steps
            values["grad_norm/max"] = self._totals["max"].item()
        self._totals = {}
        pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=trainer.world_size > 1)

    def _named(self, kind: str, norms: torch.Tensor) -> dict[str, float]:
        names = (f"{kind}/{layer}" for layer in self._layers)
        return dict(zip(names, norms.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch's norms so far, for a fit that is resumed in the middle of it.

        They are not summed up for that: the order of additions would be another one.
        """
        totals = {name: total.cpu() for name, total in self._totals.items()}
        return {"totals": totals, "rows": [row.cpu() for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self._totals, self._rows = dict(state_dict["totals"]), list(state_dict["rows"])
