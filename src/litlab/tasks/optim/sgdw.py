from collections.abc import Callable

import torch


class SGDW(torch.optim.SGD):
    """SGD whose weight decay scales the weights, `w (1 - lr * weight_decay)`, before each step.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 1, with
    lr where the paper has a schedule multiplier of its own (as in torch's AdamW). torch's SGD adds
    `weight_decay * w` to the gradient instead, so that momentum amplifies it.
    """

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's own is overloaded
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update all parameters once; return the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:  # first of all: the gradient is that of the weights as they are
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                updated = [p for p in group["params"] if p.grad is not None]
                if group["weight_decay"] and updated:
                    torch._foreach_mul_(
                        updated, self._factor(1 - group["lr"] * group["weight_decay"])
                    )
                group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss

    def _factor(self, factor: float) -> float | torch.Tensor:
        """Return a factor that is 1 where torch's kernel is told to leave the weights alone.

        The flag `found_inf` is that of `torch.amp.GradScaler`; it stays on its device.
        """
        found: torch.Tensor | None = getattr(self, "found_inf", None)
        if found is None:
            return factor
        values = torch.full((2,), factor, dtype=torch.float64, device=found.device)
        values[1:].fill_(1.0)
        return torch.where(found > 0, values[1], values[0])
