"""An interrupted run goes on as if nothing had happened, or says in one line why it cannot."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from mlflow.tracking import MlflowClient

import forked
from litlab.config.compose import load
from litlab.config.schema import Config
from litlab.runs.checkpoint.io import KEY, RESUME, read, write
from litlab.runs.checkpoint.resume import Resume
from litlab.runs.folder import RunRecord
from litlab.runs.lock import running
from litlab.runs.recorder import Recording
from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.run import train
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault, Interrupted
from run_helpers import SMALL, THIRD_PARTY, assert_same, mlflow_run, ready_store

pytestmark = THIRD_PARTY


def small(*overrides: str) -> Config:
    """Return a configuration that trains in a second, of the small model or of another."""
    other = any(o.startswith("model=") for o in overrides)
    return load([*(o for o in SMALL if not (other and o.startswith("model"))), *overrides])


class Killed(BaseException):
    """Nothing catches it, and nothing is done after it."""


@contextmanager
def killed_after(step: int, save_at: int | None) -> Iterator[None]:
    """End a training after a step as a kill does: no callback, no record has a say any more."""
    with pytest.MonkeyPatch.context() as patch:
        batch_done, save = CheckpointCallback.batch_done, CheckpointCallback._save

        def note(self: CheckpointCallback, trainer: Any) -> None:
            if trainer.global_step == save_at:
                save(self, trainer, mid_epoch=True)
            batch_done(self, trainer)
            if trainer.global_step == step:
                raise Killed

        patch.setattr(CheckpointCallback, "batch_done", note)
        patch.setattr(CheckpointCallback, "on_exception", lambda *_: None)
        patch.setattr(Recording, "finish", lambda *_: False)
        with pytest.raises(Killed):
            yield
    gc.collect()  # a killed process holds no lock and no file; the traceback's frames would


def state_of(folder: Path) -> dict[str, Any]:
    return read(folder / "last.ckpt")


def metrics_of(project: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = MlflowClient(ready_store(project))
    names = client.get_run(run_id).data.metrics
    history = {name: client.get_metric_history(run_id, name) for name in names}
    return {name: sorted((m.step, m.value) for m in rows) for name, rows in history.items()}


# Batches of 16 from 96: 6 steps an epoch, of which `debug` takes 3.
RUN = ("trainer.max_epochs=4", "trainer.limit_train_batches=1.0", "trainer.save_every_seconds=null")
CASES = {
    "plain": [],
    "mlp": ["model=mlp", "model.hidden=[8]", "model.dropout=0.3"],
    "cnn": ["model=cnn", "model.dropout=0.2", "augment=standard", "trainer.precision=bf16-mixed"],
    "averages": ["model=mlp", "model.hidden=[8]", "trainer.ema={decay: 0.9}"],
    "accumulation": ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "optimizer=sgd"],
    "mixing": ["augment=mixup", "scheduler=cosine", "metrics=[accuracy,auroc]"],
}


# The steps after which a run is saved and killed (an epoch's end is saved by itself). A case
# is cut in the middle of an epoch, and elsewhere too if its state changes there.
MOMENTS = {"mid-epoch": (8, 9), "before-validation": (12, 13), "epoch-end": (None, 19)}
CUTS = [
    *((case, "mid-epoch") for case in CASES),
    *((case, "before-validation") for case in CASES if case not in ("mlp", "cnn")),
    *((case, "epoch-end") for case in ("plain", "averages", "plateau")),
]


@pytest.mark.parametrize(("case", "moment"), CUTS)
def test_a_resumed_run_is_the_uninterrupted_one(project, case, moment) -> None:
    ready_store(project)
    saved, killed = MOMENTS[moment]
    if case == "accumulation":  # half as many steps
        saved, killed = (saved and saved // 2), killed // 2 + 1
    if saved is None:
        overrides = [*RUN[:-1], "trainer.save_every_seconds=0", *CASES[case]]
    else:
        overrides = [*RUN, *CASES[case]]
    whole = train(small(*overrides), project / "whole")
    with killed_after(killed, saved):
        train(small(*overrides), project / "cut")
    assert RunRecord.load(project / "cut").status == "RUNNING"
    resumed = train(small(*overrides), project / "cut", resume=Resume())
    assert resumed.record.resumed == 1
    assert resumed.record.status == "FINISHED"
    one, other = state_of(whole.folder), state_of(resumed.folder)
    assert_same(one, other)
    best, again = (read(folder / "best.ckpt") for folder in (whole.folder, resumed.folder))
    assert_same(best, again)
    history = [(folder / "history.csv").read_text() for folder in (whole.folder, resumed.folder)]
    assert history[0] == history[1]
    # No metric is lost, none appears twice.
    ids = [result.record.run_id for result in (whole, resumed)]
    assert ids[0] != ids[1]
    assert metrics_of(project, ids[0]) == metrics_of(project, ids[1])
    assert mlflow_run(project, ids[1]).data.tags["resumed"] == "1"
    assert resumed.record.metrics == whole.record.metrics
    assert resumed.record.best_epoch == whole.record.best_epoch
    assert sorted(os.listdir(project / "cut")) == sorted(os.listdir(project / "whole"))


def cut_run(project: Path, *overrides: str, out: Path | None = None) -> Path:
    """Leave an interrupted run."""
    ready_store(project)
    with killed_after(9, 8):
        train(small(*RUN, *overrides), out)
    gc.collect()  # the exception held the frames until now
    return out or next((project / "runs").iterdir())


class Odd(Callback):
    """Keeps what cannot be loaded without pickle."""

    def state_dict(self) -> dict[str, Any]:
        return {"where": Path("somewhere")}


def test_a_run_that_could_not_be_resumed_does_not_begin(project) -> None:
    ready_store(project)
    with pytest.raises(ConfigError, match="the run cannot be saved: not a weights-only"):
        train(small(*RUN), callbacks=[Odd()])


class StopsAt(Callback):
    """Asks for the end in the middle of an epoch, as a clock does."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 8


def test_a_stop_in_mid_epoch_is_validated_after_all(project) -> None:
    ready_store(project)
    whole = train(small(*RUN), project / "whole", callbacks=[StopsAt()])
    assert whole.record.epochs == 2
    with killed_after(8, 8):
        train(small(*RUN), project / "cut", callbacks=[StopsAt()])
    resumed = train(small(*RUN), project / "cut", resume=Resume(), callbacks=[StopsAt()])
    assert resumed.record.metrics == whole.record.metrics
    assert_same(state_of(whole.folder), state_of(resumed.folder))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_run_that_is_stopped_before_it_is_resumed_stays(project, monkeypatch, error) -> None:
    folder = cut_run(project)
    before = RunRecord.load(folder).run_id
    with monkeypatch.context() as patch:
        patch.setattr("litlab.runs.recorder.write_rows", Raises(error))
        with pytest.raises(BaseException):  # noqa: B017, PT011
            train(small(*RUN), resume=Resume())
    assert RunRecord.load(folder).run_id == before
    assert train(small(*RUN), resume=Resume()).record.run_id == before


class Raises:
    """A function that cannot do its work."""

    def __init__(self, error: Any) -> None:
        self.error = error

    def __call__(self, *_: Any) -> None:
        raise self.error


def test_a_requeued_job_goes_on_in_the_folder_it_was_given(project) -> None:
    cut_run(project, out=project / "runs" / "job")
    wish = Resume(or_start=True)
    assert train(small(*RUN), resume=wish).folder == project / "runs" / "job"
    assert train(small(*RUN), resume=wish).folder != project / "runs" / "job"


def test_the_newest_of_the_same_settings_is_found(project) -> None:
    first = cut_run(project)
    other = cut_run(project, "seed=5", out=project / "runs" / "other")
    os.utime(first / "last.ckpt", (1, 1))
    result = train(small(*RUN, "name=tea", "trainer.progress=none"), resume=Resume())
    assert result.folder == first
    assert RunRecord.load(other).status == "KILLED"  # its process is gone


def test_early_stopping_goes_on_counting(project) -> None:
    stopping = ["trainer.early_stopping={patience: 2, min_delta: 5.0}", "trainer.max_epochs=9"]
    ready_store(project)
    whole = train(small(*RUN, *stopping), project / "whole")
    assert whole.record.epochs == 3
    with killed_after(15, 14):
        train(small(*RUN, *stopping), project / "cut")
    assert train(small(*RUN, *stopping), project / "cut", resume=Resume()).record.epochs == 3


def test_nothing_to_resume(project) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume") as caught:
        train(small(*RUN), resume=Resume())
    assert caught.value.exit_code == 4
    finished = train(small(*RUN), project / "runs" / "done")
    with pytest.raises(CheckpointError, match="runs/done has finished"):
        train(small(*RUN), resume=Resume())
    assert list((project / "runs").iterdir()) == [finished.folder]


def test_other_settings_are_listed(project) -> None:
    folder = cut_run(project)
    changed = [*RUN, "trainer.gradient_clip_val=1.0", "trainer.max_epochs=5", "optimizer.lr=0.02"]
    with pytest.raises(ConfigError) as caught:
        train(small(*changed), resume=Resume())
    assert "trainer.gradient_clip_val: None -> 1.0" in caught.value.what
    assert "trainer.max_epochs: 4 -> 5" in caught.value.what
    assert "optimizer.lr: 0.01 -> 0.02" in caught.value.what
    assert "--allow-changes" in caught.value.fix
    # What the checkpoint decides is refused in any case: it would only seem to change.
    for override in ("loader.batch_size=8", "scheduler=constant", "optimizer=sgd", "seed=3"):
        with pytest.raises(ConfigError, match="fixed by the checkpoint: ") as caught:
            train(small(*RUN, override), resume=Resume(allow_changes=True))
        assert "init_from=" in caught.value.fix
    result = train(small(*changed), resume=Resume(allow_changes=True))
    assert result.folder == folder
    assert result.record.epochs == 5
    tags = mlflow_run(project, result.record.run_id).data.tags
    assert "trainer.max_epochs: 4 -> 5" in tags["resume.changed"]
    groups = state_of(folder)["optimizer_states"][0]["param_groups"]
    assert {group["max_lr"] for group in groups} == {0.02}


def flip(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    path.write_bytes(altered)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(project) -> None:
    whole = train_whole(project)
    folder = cut_run(project, "trainer.save_every_steps=4", out=project / "cut")
    flip(folder / "last.ckpt")
    with pytest.warns(UserWarning, match="damaged.*last.ckpt.*using the one before"):
        result = train(small(*RUN), folder, resume=Resume())
    assert_same(state_of(whole)["state_dict"], state_of(folder)["state_dict"])
    assert result.record.status == "FINISHED"


def train_whole(project: Path) -> Path:
    ready_store(project)
    return train(small(*RUN), project / "whole").folder


@pytest.mark.filterwarnings("ignore:damaged")
def test_when_all_are_damaged_nothing_starts_over(project) -> None:
    folder = cut_run(project)
    for name in ("last.ckpt", "previous.ckpt"):
        if (folder / name).exists():
            flip(folder / name)
    with pytest.raises(CheckpointError, match="every checkpoint of the run is damaged"):
        train(small(*RUN), resume=Resume())
    assert list((project / "runs").iterdir()) == [folder]


def test_another_model_another_schema_other_data(project) -> None:
    folder = cut_run(project)
    whole = state_of(folder)

    def refusal(change: Any) -> CheckpointError:
        content = state_of(folder)
        change(content)
        write(content, folder / "last.ckpt")
        with pytest.raises(CheckpointError) as caught:
            train(small(*RUN), resume=Resume())
        assert caught.value.exit_code == 4
        write(whole, folder / "last.ckpt")
        return caught.value

    def rename(content: Any) -> None:
        weights = content["state_dict"]
        content["state_dict"] = {f"odd.{name}": value for name, value in weights.items()}

    what = refusal(rename).what
    assert "of another model: 8 entries differ" in what
    assert what.count(", ") == 4  # five are shown
    what = refusal(lambda content: content[KEY]["manifest"].update(data="0" * 64)).what
    assert "other data" in what
    what = refusal(lambda content: content[KEY].update(schema=1)).what
    assert "schema 1, this is schema 2" in what


class Payload:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (open, ("canary", "w"))


@pytest.mark.filterwarnings("ignore:damaged")
def test_nothing_in_a_checkpoint_is_executed(project) -> None:
    folder = cut_run(project)
    whole = state_of(folder)
    torch.save({"payload": Payload()}, folder / "last.ckpt")
    (folder / "previous.ckpt").unlink(missing_ok=True)
    with pytest.raises(CheckpointError) as caught:
        train(small(*RUN), resume=Resume())
    assert caught.value.exit_code == 4
    whole[KEY]["config"]["model"] = {"_target_": "os.mkdir", "path": "canary"}
    write(whole, folder / "last.ckpt")
    with pytest.raises(CheckpointError, match="os.mkdir"):
        train(small(*RUN), resume=Resume())
    assert not (project / "canary").exists()


def test_a_run_that_goes_on_is_not_resumed(project) -> None:
    folder = cut_run(project)
    with running(folder), pytest.raises(EnvironmentFault, match="still in progress"):
        train(small(*RUN), resume=Resume())
    with running(folder), pytest.raises(EnvironmentFault, match="in progress"), running(folder):
        pass


def test_the_pipelines_run_is_moved_to_its_place_when_it_has_finished(project) -> None:
    ready_store(project)
    wish = Resume(or_start=True)
    whole = train(small(*RUN), project / "whole", resume=wish)
    assert whole.record.resumed == 0
    with killed_after(9, 8):
        train(small(*RUN), project / "pipeline", resume=wish)
    assert not (project / "pipeline").exists()  # nothing that DVC could delete
    resumed = train(small(*RUN), project / "pipeline", resume=wish)
    assert resumed.record.resumed == 1
    assert (resumed.folder / "best.ckpt").is_file()
    states = list((project / ".litlab" / "unfinished").iterdir())
    assert states == []
    best, again = (read(folder / "best.ckpt") for folder in (whole.folder, resumed.folder))
    assert_same(best, again)
    with killed_after(9, 8):
        train(small(*RUN), project / "other", resume=wish)
    changed = train(small(*RUN, "optimizer.lr=0.02"), project / "third", resume=wish)
    assert changed.record.resumed == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("step", [8, 12])
def test_a_signal_saves_after_the_step(project, monkeypatch, number, code, step) -> None:
    whole = train_whole(project)
    batch_done = CheckpointCallback.batch_done

    def press(self: CheckpointCallback, trainer: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), number)
        batch_done(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointCallback, "batch_done", press)
        with pytest.raises(Interrupted) as caught:
            train(small(*RUN), project / "cut")
    assert caught.value.exit_code == code
    record = RunRecord.load(project / "cut")
    assert record.status == mlflow_run(project, record.run_id).info.status == "KILLED"
    assert state_of(project / "cut")["global_step"] == step
    train(small(*RUN), project / "cut", resume=Resume())
    assert_same(state_of(whole), state_of(project / "cut"))
    assert mlflow_run(project, record.run_id).info.status == "FINISHED"


def test_the_second_ctrl_c_stops_at_once(project, monkeypatch) -> None:
    ready_store(project)
    batch_done = CheckpointCallback.batch_done

    def press(self: CheckpointCallback, trainer: Any) -> None:
        if trainer.global_step == 8:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("went on")
        batch_done(self, trainer)

    monkeypatch.setattr(CheckpointCallback, "batch_done", press)
    with pytest.raises(Interrupted) as caught:
        train(small(*RUN), project / "cut")
    assert caught.value.exit_code == 130
    assert state_of(project / "cut")["global_step"] == 6  # the first epoch
    assert RunRecord.load(project / "cut").status == "KILLED"


def test_slurm_requeues(project, monkeypatch) -> None:
    ready_store(project)
    tools = project / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text('#!/bin/sh\necho "$@" > requeued\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    batch_done = CheckpointCallback.batch_done

    def warn(self: CheckpointCallback, trainer: Any) -> None:
        if trainer.global_step == 8:
            os.kill(os.getpid(), signal.SIGUSR1)
        batch_done(self, trainer)

    monkeypatch.setattr(CheckpointCallback, "batch_done", warn)
    with pytest.raises(Interrupted) as caught:
        train(small(*RUN, "trainer.devices=1"), project / "cut")
    assert caught.value.exit_code == 143
    assert (project / "requeued").read_text() == "requeue 17\n"


def test_saving_is_rare_where_it_is_slow(project, monkeypatch) -> None:
    saves = []
    monkeypatch.setattr(
        CheckpointCallback, "_write_best", lambda *_: (saves.append(1), time.sleep(0.2))
    )
    monkeypatch.setattr(CheckpointCallback, "fit_done", lambda *_: None)
    ready_store(project)
    with pytest.raises(EnvironmentFault, match="not written"):
        train(small(*RUN[:-1], "trainer.save_every_seconds=0"))
    assert len(saves) == 1


def test_the_state_holds_what_going_on_needs(project) -> None:
    state = state_of(cut_run(project))
    assert state[RESUME].keys() == {"rng", "meters", "tracked"}
    assert len(state[RESUME]["rng"]) == 1
    assert len(state[RESUME]["meters"][0]["losses"]) == 2  # of the second epoch
    assert list(state[RESUME]["tracked"]["rows"]) == [0]
    assert state["loops"]["fit_loop"]["batches"] == 2
    # The best epoch's file is for use: without what only going on needs.
    best = read(next((project / "runs").iterdir()) / "best.ckpt")
    assert best.keys() == {"epoch", "global_step", "pytorch-lightning_version", "state_dict", KEY}


def command(project: Path, *more: str) -> forked.Popen:
    overrides = [*SMALL, "trainer.max_epochs=300", "trainer.limit_train_batches=1.0"]
    overrides += ["trainer.save_every_seconds=0.1", "trainer.progress=lines"]
    line = [sys.executable, "-m", "litlab", "train", *overrides, "--out", "run", *more]
    return forked.Popen(line, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_kill_9_and_the_same_command_with_resume(project) -> None:
    ready_store(project)
    process = command(project)
    while not (project / "run" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    process = command(project, "--resume", "--json")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    said = json.loads(out.splitlines()[-1])
    assert (said["epochs"], said["resumed"]) == (300, 1)
    assert "resuming run" in err.decode()
