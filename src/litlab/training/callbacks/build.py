"""The callbacks that a configuration asks for, in the order in which they must run."""

from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.training.callbacks.averaging import EMA, SWA
from litlab.training.callbacks.budget import Budget
from litlab.training.callbacks.norms import Norms
from litlab.training.callbacks.overfit import Overfit
from litlab.training.compile import PrepareModel
from litlab.training.freeze import Freezing


def callbacks(config: Config) -> list[Callback]:
    """Return them; early stopping, checkpoints and progress are not among them."""
    trainer = config.trainer
    tuned = PrepareModel(
        compiled=trainer.compile,
        channels_last=trainer.channels_last,
        sharded=trainer.strategy.startswith("fsdp"),
    )
    built: list[Callback] = [tuned]
    if trainer.budget:
        built.append(Budget(trainer.budget))
    if trainer.freeze:
        built.append(Freezing(trainer.freeze, trainer.unfreeze_epoch))
    if trainer.log_norms:
        built.append(Norms())
    if trainer.ema:
        built.append(EMA(trainer.ema.decay, warmup=trainer.ema.warmup))
    if trainer.swa:
        built.append(SWA(trainer.swa.start, trainer.swa.lr))
    if trainer.overfit_batches:
        built.append(Overfit(trainer.overfit_batches))
    return built
