"""Every option of the Trainer, interrupted and gone on with: bit for bit as if it were not."""

import os
import signal
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from litlab.runs.tracking.history import read_rows
from litlab.training.callbacks import build
from litlab.training.run import Resume, train
from litlab.utils.errors import Interrupted
from run_helpers import THIRD_PARTY, assert_same, ready_store, small

pytestmark = THIRD_PARTY
MLP = {"_target_": "litlab.models.mlp.MLP", "hidden": (8, 6), "dropout": 0.2}  # has batch norm
ON = ("trainer.max_epochs=4", "optimizer=adamw")  # of three batches each


class Terminate(Callback):
    """Asks the run to stop, as a cluster would, after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def content(folder: Any) -> dict[str, Any]:
    """What training goes on from, without what tells runs apart."""
    found: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    del found["litlab"], found["resume"]["tracked"]
    return found


OPTIONS = {
    "ema": (["trainer.ema={decay: 0.9}"], 5),
    "ema, half precision, accumulation": (
        ["trainer.ema={decay: 0.9}", "trainer.precision=bf16-mixed",
         "trainer.accumulate_grad_batches=2"], 3,
    ),
    "swa, before it begins": (["trainer.swa={start: 0.5, lr: 0.02}"], 5),
    "swa, before its second epoch": (["trainer.swa={start: 0.5, lr: 0.02}"], 9),
    "swa, in its second epoch": (["trainer.swa={start: 0.5, lr: 0.02}"], 10),
    "ema, in bfloat16": (["trainer.precision=bf16-true", "trainer.ema={decay: 0.9}"], 5),
    "norms": (["trainer.log_norms=true"], 5),
    "frozen": (["trainer.freeze=[hidden.0,hidden.1]", "trainer.unfreeze_epoch=2"], 4),
    "thawed": (["trainer.freeze=[hidden.0,hidden.1]", "trainer.unfreeze_epoch=2"], 8),
    "layers": (["optimizer.layer_decay=0.5"], 5),
    "one batch": (["trainer.overfit_batches=1", "trainer.limit_train_batches=null"], 2),
    "found": (["trainer.lr_find=use", "trainer.batch_size_find=use",
               "trainer.batch_size_limit=32"], 5),
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_an_interrupted_run_ends_as_the_whole_one(project, monkeypatch, option):
    overrides, step = OPTIONS[option]
    ready_store(project)
    config = small(*ON, *overrides, model=MLP)
    whole = train(config, project / "whole")
    before = build.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(build, "callbacks", lambda c: [*before(c), Terminate(step)])
        with pytest.raises(Interrupted):
            train(config, project / "broken")
    rest = train(config, project / "broken", resume=Resume())
    assert rest.folder == project / "broken"
    assert_same(content(whole.folder), content(rest.folder))
    assert_same(
        torch.load(whole.checkpoint, weights_only=True)["state_dict"],
        torch.load(rest.checkpoint, weights_only=True)["state_dict"],
    )
    assert read_rows(whole.folder / "history.csv") == read_rows(rest.folder / "history.csv")
    assert whole.record.metrics == rest.record.metrics


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("first", ["trainer.ema={decay: 0.9}", "trainer.ema=null"])
def test_averaging_may_be_switched_on_and_off_in_between(project, monkeypatch, first):
    """Training goes on from the weights, not from their average."""
    ready_store(project)
    second = "trainer.ema=null" if "decay" in first else "trainer.ema={decay: 0.9}"
    whole = train(small(*ON, model=MLP), project / "whole")
    before = build.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(build, "callbacks", lambda c: [*before(c), Terminate(5)])
        with pytest.raises(Interrupted):
            train(small(*ON, first, model=MLP), project / "broken")
    again = small(*ON, second, model=MLP)
    rest = train(again, project / "broken", resume=Resume(allow_changes=True))
    ended = content(rest.folder)
    assert_same(
        content(whole.folder)["state_dict"], ended.get("current_model_state", ended["state_dict"])
    )


def test_a_run_goes_on_without_where_it_began(project, monkeypatch):
    """The run that `init_from` names may be gone by then."""
    ready_store(project)
    source = train(small(model=MLP), project / "runs" / "source")
    config = small(*ON, "init_from=source", model=MLP)
    before = build.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(build, "callbacks", lambda c: [*before(c), Terminate(4)])
        with pytest.raises(Interrupted):
            train(config, project / "broken")
    for path in source.folder.iterdir():
        path.unlink()
    assert train(config, project / "broken", resume=Resume()).record.status == "FINISHED"
