from collections.abc import Callable
from typing import Any

import torch

Group = dict[str, Any]  # one entry of an optimizer's param_groups


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind the interface of one: groups, state, step and state_dict.

    The parts read this object's groups and state, so that a scheduler's lr or a loaded checkpoint
    reaches them without copying. Two optimizers in a LightningModule would mean manual
    optimization: no accumulation, no clipping, no scheduler by configuration.

    Args:
        muon: Has the hidden matrices.
        adamw: Has all other parameters; a group added later joins it.
    """

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self._parts = {"muon": muon, "adamw": adamw}
        groups = [
            {**group, "algorithm": name}
            for name, part in self._parts.items()
            for group in part.param_groups
        ]
        super().__init__(groups, {"algorithm": "adamw"})

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's own is overloaded
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update all parameters once; return the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, part in self._parts.items():
            # Anew at each step: load_state_dict replaces both objects.
            part.param_groups = [g for g in self.param_groups if g["algorithm"] == name]
            part.state = self.state
            part.step()
        return loss

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters; without an "algorithm" they are AdamW's."""
        if param_group.get("algorithm", "adamw") == "adamw":
            param_group = {**self._parts["adamw"].defaults, **param_group}
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_parts": self._parts}
