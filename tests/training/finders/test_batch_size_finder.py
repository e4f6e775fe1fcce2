import csv

import pytest
import torch
from torch import nn

from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.runs.checkpoint.metadata import load
from litlab.tasks.build import build_task
from litlab.tasks.memory import free_memory, peak, resident
from litlab.training import finders
from litlab.training.finders import find_batch_size
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, mlflow_run, small, small_run

pytestmark = THIRD_PARTY
WHOLE = ("trainer.limit_train_batches=null",)  # 96 training samples


class Hungry(nn.Module):
    """Runs out of memory above 40 samples at a time, as a GPU would say it."""

    most = 40

    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(144, spec.num_outputs)

    def forward(self, x):
        if len(x) > self.most and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layer(x.flatten(1))


class Starving(Hungry):
    most = 0


HUNGRY = {"_target_": "test_batch_size_finder.Hungry"}


def find(*overrides, **changes):
    config = small(*WHOLE, *overrides, trust=["test_batch_size_finder"], **changes)
    prepared, spec = open_or_prepare(config.data, config.trust)
    task = build_task(config, spec)
    data = ArrayDataModule(prepared, spec, config.loader, {}, seed=0)
    data.open()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    random = torch.get_rng_state()
    try:
        return find_batch_size(task, data, config)
    finally:
        assert data.loader == config.loader
        assert all(torch.equal(v, before[name]) for name, v in task.state_dict().items())
        assert torch.equal(random, torch.get_rng_state())


def tried(found):
    return [(trial.batch_size, trial.fits) for trial in found.trials]


def test_it_doubles_until_the_data_end(project):
    found = find("loader.batch_size=10")
    assert tried(found) == [(10, True), (20, True), (40, True), (80, True)]
    assert (found.batch_size, found.ended_by) == (80, "the number of samples")
    assert all(trial.samples_per_second > 0 and trial.memory > 50 for trial in found.trials)


def test_it_doubles_until_the_limit(project):
    found = find(
        "loader.batch_size=10", "trainer.batch_size_find=use", "trainer.batch_size_limit=30"
    )
    assert (found.batch_size, found.ended_by) == (20, "trainer.batch_size_limit")


def test_it_doubles_until_memory_ends_and_halves_where_it_has_to(project):
    found = find("loader.batch_size=16", model=HUNGRY)
    assert tried(found) == [(16, True), (32, True), (64, False)]
    assert (found.batch_size, found.ended_by) == (32, "memory")
    found = find("loader.batch_size=90", model=HUNGRY)
    assert tried(found) == [(90, False), (45, False), (22, True)]
    assert found.batch_size == 22


def test_not_even_one_sample(project):
    with pytest.raises(ConfigError, match="not even a batch of one"):
        find("loader.batch_size=4", model={"_target_": "test_batch_size_finder.Starving"})


def test_another_error_is_no_lack_of_memory(project, monkeypatch):
    def fail(self, *_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Hungry, "most", 1000)
    monkeypatch.setattr("litlab.tasks.task.Task.training_step", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        find(model=HUNGRY)


def test_on_the_cpu_it_stops_before_memory_ends(project, monkeypatch):
    monkeypatch.setattr(finders, "free_memory", lambda: 0)
    monkeypatch.setattr(finders, "resident", lambda: peak() - 2**20)
    found = find("loader.batch_size=10")
    assert tried(found) == [(10, True)]
    assert found.ended_by == "80% of the free memory"


def test_what_memory_there_is():
    assert 2**20 < resident() <= peak() * 1.01
    assert free_memory() > 2**20


def test_a_found_size_is_used_recorded_and_said(project, capsys):
    result = small_run(
        project, *WHOLE, "loader.batch_size=6", "trainer.batch_size_find=use", "trainer.lr_find=use"
    )
    config = load(result.checkpoint).metadata.config
    assert config.loader.batch_size == 96
    assert config.optimizer["lr"] != 0.01
    assert "largest batch: 96" in capsys.readouterr().err
    run = mlflow_run(project, result.record.run_id)
    assert run.data.params["loader.batch_size"] == "96"
    with (result.folder / "batch_size_find.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["batch_size"] for row in rows] == ["6", "12", "24", "48", "96"]
    steps = torch.load(result.folder / "last.ckpt", weights_only=True)["global_step"]
    assert steps == 2  # epochs of one step


def test_a_suggestion_changes_nothing(project, capsys):
    plain = small_run(project, *WHOLE)
    asked = small_run(project, *WHOLE, "trainer.batch_size_find=suggest")
    assert "is kept" in capsys.readouterr().err
    one, two = load(plain.checkpoint).weights, load(asked.checkpoint).weights
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_several_processes_are_refused(project):
    with pytest.raises(ConfigError, match="single process"):
        small_run(
            project, "trainer=ddp_cpu", "trainer.progress=none", "trainer.batch_size_find=use"
        )
