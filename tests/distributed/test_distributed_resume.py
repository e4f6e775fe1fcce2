"""A run of several processes that is killed goes on, with as many processes or another number."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import forked
from litlab.config.compose import load
from litlab.runs.folder import RunRecord
from litlab.training.run import train
from run_helpers import THIRD_PARTY, only_run, ready_store

pytestmark = [pytest.mark.slow, *THIRD_PARTY]
HERE = Path(__file__).parents[1]
SETTINGS = [
    "data=synthetic",
    "data.source.num_samples=157",
    "augment=[crop,mixup]",
    "trainer=cpu",
    "trainer.progress=none",
    "trainer.max_epochs=3",
    "trainer.limit_val_batches=null",
    "trainer.limit_train_batches=null",
    "trainer.save_every_steps=1",
    "loader.batch_size=16",
    "loader.drop_last=false",
    "model=mlp",
    "model.hidden=[16]",
    "model.norm=none",
    "optimizer=sgd",
    "scheduler=one_cycle",
]


def litlab(*arguments: str, torchrun: int = 0, dies: int | None = None) -> tuple[int, str, str]:
    """Run `litlab train`, one of whose processes is killed at the fifth step; how did it end?"""
    starter = [sys.executable]
    if torchrun:
        starter += ["-m", "torch.distributed.run", f"--nproc-per-node={torchrun}"]
    program = (
        ["-m", "litlab"] if dies is None else [str(HERE / "dying_process.py"), str(dies), "kill"]
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = forked.run(
        [*starter, *program, "train", *SETTINGS, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stderr, done.stdout


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_killed_run_goes_on_with_another_number_of_processes(project, strategy):
    ready_store(project)
    code, err, _ = litlab("trainer.devices=3", f"trainer.strategy={strategy}", dies=2)
    assert code == 5, err
    folder = only_run(project)
    cut = torch.load(folder / "last.ckpt", weights_only=True)["global_step"]
    assert cut == 4  # in the middle of the first epoch
    code, err, out = litlab("--resume", f"trainer.strategy={strategy}", "--json", torchrun=2)
    assert code == 0, err
    (line,) = out.splitlines()
    assert json.loads(line)["folder"] == str(folder)
    assert "step 4" in err
    together = torch.load(folder / "last.ckpt", weights_only=True)
    record = RunRecord.load(only_run(project))
    assert record.status == "FINISHED"
    alone = train(load(SETTINGS))
    weights = torch.load(alone.folder / "last.ckpt", weights_only=True)
    assert together["global_step"] == weights["global_step"] == 21
    for key, value in weights["state_dict"].items():
        np.testing.assert_allclose(together["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    assert record.metrics == pytest.approx(alone.record.metrics, rel=1e-5, abs=1e-6)


def test_with_as_many_processes_it_is_the_uninterrupted_run(project):
    """Dropout included: each process has the random state of its own back."""
    ready_store(project)
    two = ["trainer.devices=2", "trainer.strategy=ddp", "model.dropout=0.2"]
    code, err, _ = litlab(*two, "--out", "whole")
    assert code == 0, err
    code, err, _ = litlab(*two, "--out", "cut", dies=1)
    assert code == 5, err
    code, err, _ = litlab(*two, "--out", "cut", "--resume")
    assert code == 0, err
    whole, resumed = (
        torch.load(project / name / "last.ckpt", weights_only=True) for name in ("whole", "cut")
    )
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
    rows = [(project / name / "history.csv").read_text() for name in ("whole", "cut")]
    assert rows[0] == rows[1]
