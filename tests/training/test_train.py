import json
import os
import pty
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import forked
from litlab.config.compose import load as load_config
from litlab.config.compose import read
from litlab.runs.checkpoint.metadata import load
from litlab.runs.checkpoint.resume import Resume
from litlab.runs.folder import RunRecord
from litlab.runs.recorder import Recording
from litlab.runs.tracking.history import read_rows
from litlab.training.run import train
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault, Interrupted
from run_helpers import SMALL, THIRD_PARTY, mlflow_run, only_run, ready_store, small, small_run

pytestmark = THIRD_PARTY
SRC = Path(__file__).parents[2] / "src"


def test_what_a_run_leaves(project):
    result = small_run(project, "trainer.max_epochs=3", "name=tea", preview=True)
    names = {path.name for path in result.folder.iterdir()}
    recorded = {"best.ckpt", "last.ckpt", "config.yaml", "history.csv", "run.json"}
    assert names == recorded | {"preview.png", "preview.json"}
    assert result.folder.parent == project / "runs"
    assert result.folder.name.endswith("-tea")
    assert result.checkpoint == result.folder / "best.ckpt"
    assert result.all_sent
    config = small("trainer.max_epochs=3", "name=tea")
    assert read(result.folder / "config.yaml") == config.model_dump(mode="json")


def test_the_record_is_true(project):
    ready_store(project)
    typed = ["litlab", "train", "tracking.uri=http://me:geheim@host"]
    result = train(small("trainer.max_epochs=3"), command=typed)
    record = RunRecord.load(result.folder)
    assert record == result.record
    rows = read_rows(result.folder / "history.csv")
    assert (record.status, record.epochs) == ("FINISHED", 3)
    best = min(rows, key=lambda row: row["val/loss"])
    assert record.best_epoch == best["epoch"]
    assert record.metrics == {k: v for k, v in best.items() if "/" in k}
    assert {"train/loss", "val/loss", "val/accuracy", "val/f1"} <= set(record.metrics)
    assert 0 < record.seconds < 60
    assert record.tracking_uri == f"sqlite:///{project}/mlflow.db"
    assert record.command == ["litlab", "train", "tracking.uri=http://***@host"]
    assert record.environment["torch"] == torch.__version__
    assert record.data["name"] == "synthetic"
    assert record.run_id == load(result.checkpoint).metadata.run_id
    content = json.loads((result.folder / "run.json").read_text())
    assert content["run_id"] == record.run_id


def test_a_train_split_below_the_default_batch_is_one_batch(project, capsys):
    ready_store(project)
    words = ["data=synthetic", "data.source.num_samples=60", "data.source.kind=tabular"]
    config = load_config([*words, "model=mlp", "trainer.max_epochs=2"])
    result = train(config, preview=False)
    assert read(result.folder / "config.yaml")["loader"]["batch_size"] == 38
    assert (
        "synthetic: loader.batch_size=38, all samples of train, is used" in capsys.readouterr().err
    )
    words += ["data.name=other", "loader.batch_size=50"]
    with pytest.raises(ConfigError, match="gives no full batch of 38"):
        train(load_config([*words, "model=mlp"]), preview=False)


def test_the_same_seed_gives_the_same_run(project):
    dropout = {"_target_": "litlab.models.mlp.MLP", "hidden": [8], "dropout": 0.3}
    noise = {"noise": {"_target_": "litlab.data.augment.noise.Noise"}}
    again = [small_run(project, model=dropout, augment=noise) for _ in range(2)]
    other = small_run(project, "seed=1", model=dropout, augment=noise)
    first, second = (load(r.folder / "last.ckpt").weights for r in again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again[0].record.metrics == again[1].record.metrics
    assert (again[0].folder / "history.csv").read_text() == (
        again[1].folder / "history.csv"
    ).read_text()
    third = load(other.folder / "last.ckpt").weights
    assert any(not torch.equal(first[name], third[name]) for name in first)
    assert other.record.metrics != again[0].record.metrics
    assert other.record.data == again[0].record.data  # the split has a seed of its own


def test_the_seed_holds_whatever_was_drawn_before(project):
    first = small_run(project).record.metrics
    torch.rand(100)
    assert small_run(project).record.metrics == first


def test_the_test_split_is_never_opened(project):
    small_run(project)
    (project / "data/prepared/synthetic/test.safetensors").unlink()
    small_run(project)


def test_damaged_data_are_found_before_anything_is_recorded(project):
    small_run(project)
    path = project / "data/prepared/synthetic/val.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        train(small())
    assert only_run(project)


def test_a_failure_is_recorded_as_one(project, monkeypatch):
    def fail(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_end", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        small_run(project)
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_run(project, record.run_id).info.status == "FAILED"


def test_ctrl_c_before_the_first_step_is_killed(project, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("litlab.training.run.make_trainer", press)
    with pytest.raises(KeyboardInterrupt):
        small_run(project)
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_run(project, record.run_id).info.status == "KILLED"


def test_a_folder_of_choice_is_never_used_twice(project):
    first = small_run(project, out=project / "mine")
    assert first.folder == project / "mine"
    with pytest.raises(ConfigError, match="already holds a run"):
        small_run(project, "seed=2", out=project / "mine")
    assert RunRecord.load(project / "mine").run_id == first.record.run_id
    assert not (project / "runs").exists()


def test_batches_larger_than_the_data(project):
    with pytest.warns(UserWarning, match="each epoch is one step"):
        result = small_run(project, "loader.batch_size=5000", "loader.drop_last=false")
    assert result.record.status == "FINISHED"


BATCH_NORM = {"_target_": "litlab.models.mlp.MLP", "hidden": [8], "norm": "batch"}


@pytest.mark.parametrize(
    ("overrides", "model", "says", "where"),
    [
        (["loader.batch_size=5000"], None, "gives no full batch", "loader.batch_size"),
        (["loader.batch_size=1"], BATCH_NORM, "one sample at a time", "loader.batch_size"),
        (
            ["loader.batch_size=19", "loader.drop_last=false", "trainer.limit_train_batches=1.0"],
            BATCH_NORM,
            "a last one of a single sample",
            "loader.batch_size, loader.drop_last",
        ),
        (["trainer.strategy=fsdp2"], None, "but there is one", "trainer.devices"),
        (["trainer.devices=17"], None, "shared by 17", "loader.batch_size"),
        (["trainer.num_nodes=17"], None, "shared by 17", "loader.batch_size"),
        (
            ["trainer.devices=2", "loader.eval_batch_size=1"],
            None,
            "shared by 2",
            "loader.eval_batch_size",
        ),
        (["trainer.devices=9"], BATCH_NORM, "one sample at a time", "loader.batch_size"),
    ],
)
def test_batches_that_cannot_be_are_refused_before_the_run(project, overrides, model, says, where):
    ready_store(project)
    parts = {"model": model} if model else {}
    with pytest.raises(ConfigError, match=says) as caught:
        train(small("loader.batch_size=16", *overrides, **parts))
    assert caught.value.where == where
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["loader.batch_size=19"],
        ["loader.batch_size=19", "loader.drop_last=false", "trainer.limit_train_batches=5"],
        ["loader.batch_size=19", "loader.drop_last=false", "trainer.limit_train_batches=0.5"],
    ],
)
def test_a_last_batch_of_one_that_is_never_reached(project, overrides):
    assert small_run(project, *overrides, model=BATCH_NORM).record.status == "FINISHED"


def test_parts_are_refused_before_the_data_are_read(project, monkeypatch):
    monkeypatch.setattr("litlab.data.datamodule.open_split", lambda *_: pytest.fail("read"))
    odd = {"noise": {"_target_": "litlab.data.augment.noise.Noise", "std": "much"}}
    with pytest.raises(ConfigError):
        small_run(project, augment=odd)


def test_a_checkpoint_that_was_not_written_is_a_failure(project, monkeypatch):
    monkeypatch.setattr("litlab.training.callbacks.checkpoint.write", lambda *_, **__: None)
    with pytest.raises(EnvironmentFault, match="checkpoint was not written"):
        small_run(project)
    assert_ended(project, "FAILED")


def assert_ended(project, status):
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_run(project, record.run_id).info.status == status


def test_a_record_that_cannot_be_written_hides_nothing(project, monkeypatch):
    def fail(self):
        monkeypatch.setattr(RunRecord, "save", full)
        raise RuntimeError("a bug")

    def full(self, folder):
        raise OSError("disk full")

    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_end", fail)
    with (
        pytest.warns(UserWarning, match="incomplete: disk full"),
        pytest.raises(RuntimeError, match="a bug"),
    ):
        small_run(project)
    run_id = RunRecord.load(only_run(project)).run_id
    assert mlflow_run(project, run_id).info.status == "FAILED"


@pytest.mark.filterwarnings("ignore:MLflow", "ignore:.*is not in MLflow")
def test_an_error_is_what_the_user_sees_though_the_store_is_down(project, monkeypatch):
    def fail(self):
        def down(*_, **__):
            raise ConnectionError("the server is gone")

        for name in ("log_batch", "set_terminated", "log_artifact"):
            monkeypatch.setattr(f"mlflow.tracking.MlflowClient.{name}", down)
        raise RuntimeError("a bug")

    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_end", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        small_run(project)
    assert RunRecord.load(only_run(project)).status == "FAILED"


def test_a_best_epoch_that_was_not_measured(project, monkeypatch):
    monkeypatch.setattr("litlab.runs.tracking.history.History.log_metrics", lambda *_, **__: None)
    assert small_run(project).record.best_epoch is None
    assert_ended(project, "FINISHED")


def test_a_start_that_fails_half_way_is_closed(project, monkeypatch):
    def fail(*_):
        raise ConnectionError("gone")

    monkeypatch.setattr("litlab.runs.tracking.mlflow_logger.MLflowLogger._send_in_batches", fail)
    with pytest.raises(EnvironmentFault, match="gone"):
        small_run(project)
    assert_ended(project, "FAILED")


@pytest.mark.parametrize(
    "place", ["litlab.training.run.make_trainer", "litlab.training.run.CheckpointCallback"]
)
def test_sigterm_before_the_fit_is_killed(project, monkeypatch, place):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(place, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as caught:
        small_run(project)
    assert caught.value.exit_code == 143
    assert_ended(project, "KILLED")
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_not_forgiven_with_the_store(project, monkeypatch):
    def log_text(self, *_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("swallowed")

    monkeypatch.setattr("litlab.runs.tracking.mlflow_logger.MLflowLogger.log_text", log_text)
    with pytest.raises(Interrupted):
        small_run(project)
    assert_ended(project, "KILLED")


def test_sigterm_at_the_end_waits_for_the_record(project, monkeypatch):
    whole = Recording._note_best

    def note_best(self):
        os.kill(os.getpid(), signal.SIGTERM)
        whole(self)

    monkeypatch.setattr(Recording, "_note_best", note_best)
    with pytest.raises(Interrupted):
        small_run(project)
    assert_ended(project, "FINISHED")


def test_training_outside_the_main_thread(project):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(small_run, project).result().record.status == "FINISHED"


def test_ctrl_c_works_again_after_it_ended_a_fit(project, monkeypatch):
    def press(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_end", press)
    with pytest.raises(Interrupted):
        small_run(project)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_tensorboard_events(project):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = small_run(project, "tracking=tensorboard", "trainer.max_epochs=3")
    events = EventAccumulator(str(result.folder / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("val/loss")] == pytest.approx(
        [row["val/loss"] for row in read_rows(result.folder / "history.csv")]
    )


def test_tensorboard_that_is_not_installed(project, monkeypatch):
    monkeypatch.setattr("litlab.training.preflight.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"not installed.*litlab\[tensorboard\]"):
        small_run(project, "tracking=tensorboard")
    assert not (project / "runs").exists()


@pytest.mark.parametrize("progress", ["lines", "bar"])
def test_progress_is_shown_on_standard_error(project, capfd, progress):
    small_run(project, f"trainer.progress={progress}", "trainer.max_epochs=3")
    out, err = capfd.readouterr()
    assert out == ""
    assert "144" not in err.splitlines()[0]
    if progress == "lines":
        lines = [line for line in err.splitlines() if line.startswith("epoch")]
        assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
        rows = read_rows(only_run(project) / "history.csv")
        for line, row in zip(lines, rows, strict=True):
            assert f"val/loss {row['val/loss']:.4g}" in line
            assert f"train/loss {row['train/loss']:.4g}" in line


def test_progress_of_a_long_training_is_ten_lines(project, capfd):
    small_run(project, "trainer.progress=lines", "trainer.max_epochs=40")
    lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("epoch")]
    assert [int(line.split()[1].partition("/")[0]) for line in lines] == list(range(4, 41, 4))


# In processes of their own


def command_line(*overrides: str) -> forked.Popen:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return forked.Popen(
        # As the DVC stages start it; Lightning starts the other processes of ddp in the same way.
        [sys.executable, str(SRC / "litlab"), "train", *SMALL, *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


IN_OWN_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
del sys.argv[0]
runpy.run_path(sys.argv[0] + "/__main__.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_closed_terminal_ends_a_run_saved(project, devices):
    """As a lost connection: SIGHUP to all of its processes, and nothing can be written there."""
    ready_store(project)
    ours, theirs = pty.openpty()
    process = forked.Popen(
        [sys.executable, "-c", IN_OWN_TERMINAL, str(SRC / "litlab"), "train", *SMALL]
        + ["trainer=ddp_cpu", f"trainer.devices={devices}", "trainer.max_epochs=100000"]
        + ["trainer.progress=bar"],
        env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        deadline = time.monotonic() + 200
        while not list(project.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                os.read(ours, 65536)
            time.sleep(0.05)
        os.close(ours)
        assert process.wait(60) == 129
        with pytest.raises(ProcessLookupError):  # of several processes none is left
            os.killpg(process.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_run(project, record.run_id).info.status == "KILLED"
    assert load(only_run(project) / "last.ckpt").epoch in (record.epochs - 1, record.epochs)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_process_with_its_code(project, number, code):
    ready_store(project)
    process = command_line("trainer.max_epochs=100000")
    try:
        deadline = time.monotonic() + 120
        while not list(project.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: stopped by ")
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_run(project, record.run_id).info.status == "KILLED"
    # Of the last whole epoch, or of the one that the signal came in.
    assert load(only_run(project) / "last.ckpt").epoch in (record.epochs - 1, record.epochs)


@pytest.mark.slow
def test_two_processes_are_one_run(project):
    ready_store(project)
    process = command_line("trainer=ddp_cpu", "trainer.max_epochs=2", "--json")
    try:
        out, err = process.communicate(timeout=250)
    finally:
        process.kill()
    assert process.returncode == 0, err
    (line,) = out.splitlines()  # the second process says nothing
    answer = json.loads(line)
    record = RunRecord.load(only_run(project))
    assert answer["run_id"] == record.run_id
    assert (record.status, record.epochs) == ("FINISHED", 2)
    assert err.count("best epoch") == 1
    run = mlflow_run(project, record.run_id)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(ready_store(project))
    assert len(client.search_runs([run.info.experiment_id])) == 1
    # What is in a batch does not depend on the number of processes, nor do its metrics.
    alone = small_run(
        project, "trainer=ddp_cpu", "trainer.devices=1", "trainer.strategy=auto",
        "trainer.max_epochs=2", "trainer.progress=none",
    )  # fmt: skip
    assert record.metrics == pytest.approx(alone.record.metrics, abs=1e-4)


def test_a_stage_that_the_store_refused_leaves_nothing(project: Path, monkeypatch) -> None:
    ready_store(project)

    def refuse(*_: object) -> None:
        raise EnvironmentFault("it cannot be reached", "tracking.uri", "start it")

    monkeypatch.setattr("litlab.runs.tracking.mlflow_logger.MLflowLogger.start", refuse)
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        train(small(), project / "runs" / "pipeline", resume=Resume(or_start=True))
    assert list((project / "runs").iterdir()) == []
    assert not list(project.glob(".litlab/*/*"))
