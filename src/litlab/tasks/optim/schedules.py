"""Learning-rate schedules, in the form Lightning's `configure_optimizers` takes.

Each is `name(optimizer, horizon, **hyperparameters)`. Steps are optimizer steps, from 0; t of T.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from litlab.config.hyperparameters import Fraction, Index, NonNegative, Positive, Probability

Schedule = dict[str, Any]  # Lightning's lr_scheduler entry


@dataclass(frozen=True)
class Horizon:
    """What a schedule has to know of the training that it is for.

    Attributes:
        total_steps: Optimizer steps of the whole training, T.
        monitor: The logged metric that decides, by its full name.
        mode: Whether that metric is better small or large.
    """

    total_steps: int
    monitor: str
    mode: Literal["min", "max"]

    def __post_init__(self) -> None:
        # An endless Trainer estimates -1 or infinity.
        if not 1 <= self.total_steps < math.inf:
            raise ValueError(
                f"a schedule needs a finite training, not {self.total_steps} steps;"
                " set trainer.max_epochs"
            )


def constant(optimizer: Optimizer, horizon: Horizon, *, warmup: Fraction = 0.0) -> Schedule:
    """Keep the learning rate, after a linear warm-up over the first `warmup * T` steps."""
    return _by_factor(optimizer, _warmed_up(lambda t: 1.0, round(warmup * horizon.total_steps)))


def cosine(
    optimizer: Optimizer,
    horizon: Horizon,
    *,
    warmup: Fraction = 0.05,
    final_fraction: Fraction = 0.0,
) -> Schedule:
    """Fall along half a cosine from the learning rate to `final_fraction` of it.

    SGDR without restarts (Loshchilov and Hutter, ICLR 2017, equation 5), after a linear warm-up
    over the first `warmup * T` steps (Goyal et al., "Accurate, Large Minibatch SGD", 2017). As in
    torch the floor is reached at t = T, after the last step, so no step is spent at rate 0.
    """
    total = horizon.total_steps
    warmup_steps = round(warmup * total)

    def factor(t: int) -> float:
        progress = min(1.0, (t - warmup_steps) / max(1, total - warmup_steps))
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return _by_factor(optimizer, _warmed_up(factor, warmup_steps))


def step(
    optimizer: Optimizer,
    horizon: Horizon,
    *,
    milestones: tuple[Fraction, ...] = (0.5, 0.75),
    gamma: Positive = 0.1,
    warmup: Fraction = 0.0,
) -> Schedule:
    """Multiply the learning rate by gamma at each milestone, a fraction of the training.

    The defaults are those of ResNet on CIFAR-10 (He et al., CVPR 2016, section 4.2): a tenth at
    half and at three quarters. Fractions, so that a shorter training keeps its shape.
    """
    # Never before the first step, which a training of one step would round to.
    steps = [max(1, round(milestone * horizon.total_steps)) for milestone in milestones]
    factor = _warmed_up(
        lambda t: gamma ** sum(t >= milestone for milestone in steps),
        round(warmup * horizon.total_steps),
    )
    return _by_factor(optimizer, factor)


def one_cycle(
    optimizer: Optimizer,
    horizon: Horizon,
    *,
    pct_start: Probability = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = False,
    base_momentum: Probability = 0.85,
    max_momentum: Probability = 0.95,
) -> Schedule:
    """Rise from `lr / div_factor` to the optimizer's lr, then fall far below where it began.

    Smith and Topin, "Super-Convergence", 2018, in torch's two phases; the last step's rate is
    `lr / div_factor / final_div_factor`. Momentum (Adam's first beta) moves the other way if
    cycle_momentum is set. Off by default, unlike the paper and torch: it replaces the optimizer's
    own momentum by base_momentum and max_momentum.

    Raises:
        ValueError: The momentum shall move, but the optimizer has two kinds of it.
    """
    groups = optimizer.param_groups
    if cycle_momentum and len({"momentum" in group for group in groups}) > 1:
        raise ValueError(
            "scheduler.cycle_momentum does not know whether to move momentum or betas of this"
            " optimizer; set scheduler.cycle_momentum=false"
        )
    total = max(2, horizon.total_steps)  # torch would give a single step the last, tiny rate
    if pct_start * total == 1:  # the rise would have no length, and torch divide by it
        pct_start *= 1 - 1e-9
    scheduler = _OneCycle(
        optimizer,
        max_lr=[float(group["lr"]) for group in groups],
        total_steps=total,
        pct_start=float(pct_start),
        anneal_strategy=anneal_strategy,
        cycle_momentum=cycle_momentum,
        base_momentum=base_momentum,
        max_momentum=max_momentum,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )
    return {"scheduler": scheduler, "interval": "step", "frequency": 1}


def plateau(
    optimizer: Optimizer,
    horizon: Horizon,
    *,
    factor: Probability = 0.1,
    patience: Index = 10,
    threshold: NonNegative = 1e-4,
    cooldown: Index = 0,
    min_lr: NonNegative = 0.0,
) -> Schedule:
    """Multiply the learning rate by factor when the monitored metric has not improved.

    Counted in epochs, by the validation metric in `horizon.monitor`; `patience` of them without a
    relative improvement of `threshold` are forgiven. Where validation runs more rarely than each
    epoch, the epochs between repeat the last value and count as no improvement.
    """
    scheduler = ReduceLROnPlateau(
        optimizer,
        mode=horizon.mode,
        factor=factor,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_lr=min_lr,
    )
    return {
        "scheduler": scheduler,
        "interval": "epoch",
        "frequency": 1,
        "monitor": horizon.monitor,
        "strict": True,
    }


class _OneCycle(OneCycleLR):
    """Torch's, except that a resumed training may be longer than the one that was saved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Torch restores the old length too, and raises at its end.
        ours = ("total_steps", "_schedule_phases")
        super().load_state_dict({k: v for k, v in state_dict.items() if k not in ours})


def _warmed_up(factor: Callable[[int], float], steps: int) -> Callable[[int], float]:
    # (t + 1) / (steps + 1): t = 0 already learns, and the peak comes once, at t = steps.
    return lambda t: (t + 1) / (steps + 1) if t < steps else factor(t)


def _by_factor(optimizer: Optimizer, factor: Callable[[int], float]) -> Schedule:
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step", "frequency": 1}
