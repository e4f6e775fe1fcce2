"""The pipeline as a user runs it: DVC, in a repository of its own. Long, and worth it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dvc_helpers import dvc, environment, repository, run

ROOT = Path(__file__).resolve().parents[1]
TINY = ("data=synthetic", "data.source.num_samples=200", "model=mlp", "trainer.max_epochs=2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


def runs(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("litlab")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def recorded(folder):
    return json.loads((folder / "reports" / "run.json").read_text())


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = repository(tmp_path_factory.mktemp("flow"), *TINY)
    dvc("repro", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "-m", "first results", cwd=folder)
    return folder


def test_repro_leaves_metrics_report_and_a_run(pipeline):
    metrics = json.loads((pipeline / "reports" / "metrics.json").read_text())
    assert 0 <= metrics["test"]["accuracy"] <= 1
    assert metrics["test"]["loss"] > 0
    assert "<html" in (pipeline / "reports" / "report.html").read_text()
    (only,) = runs(pipeline)
    assert only.info.status == "FINISHED"
    assert only.info.run_id == recorded(pipeline)["run_id"]
    assert only.data.tags["git.dirty"] == "false"
    assert only.data.metrics["test/accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    # Nothing that git tracks was changed by running, and no result is untracked.
    assert run("git", "status", "--porcelain", cwd=pipeline) == ""


def test_a_second_repro_does_nothing_and_says_so(pipeline):
    output = dvc("repro", cwd=pipeline)
    assert output.count("didn't change, skipping") == 3
    assert len(runs(pipeline)) == 1


def test_metrics_and_plots_are_there_for_dvc(pipeline):
    assert "test.accuracy" in dvc("metrics", "show", cwd=pipeline)
    page = dvc("plots", "show", "--out", "dvc_plots", cwd=pipeline)
    html = (pipeline / "dvc_plots" / "index.html").read_text()
    assert "index.html" in page
    assert "train/loss" in html
    assert "learning_curves.png" in html


def test_another_learning_rate_trains_again_without_preparing_and_the_first_can_come_back(pipeline):
    first = recorded(pipeline)["run_id"]
    output = dvc(
        "exp", "run", "-S", "optimizer.lr=0.01", *sum((["-S", o] for o in TINY), []), cwd=pipeline
    )
    assert "Stage 'prepare' didn't change" in output
    assert "Running stage 'train'" in output
    second = recorded(pipeline)
    assert second["run_id"] != first
    assert second["dvc_experiment"]
    assert "0.01" in dvc("params", "diff", cwd=pipeline)
    assert "test.loss" in dvc("metrics", "diff", cwd=pipeline)
    # Back to the first order: restored from the cache, without a run, and it names the first run.
    run("git", "checkout", "-q", "params.yaml", cwd=pipeline)
    output = dvc("repro", cwd=pipeline)
    assert "Running stage" not in output
    assert recorded(pipeline)["run_id"] == first
    assert len(runs(pipeline)) == 2


def test_queued_experiments_record_in_the_original_repository(pipeline):
    run("git", "checkout", "-q", ".", cwd=pipeline)
    before = len(runs(pipeline))
    settings = sum((["-S", o] for o in TINY), [])
    dvc("exp", "run", "--queue", *settings, "-S", "model.dropout=0.1,0.2", cwd=pipeline)
    dvc("exp", "run", "--run-all", cwd=pipeline)
    new = runs(pipeline)[before:]
    assert len(new) == 2
    assert {r.data.params["model.dropout"] for r in new} == {"0.1", "0.2"}
    assert {r.info.status for r in new} == {"FINISHED"}
    assert len({r.data.tags["dvc.experiment"] for r in new}) == 2
    assert all(r.info.artifact_uri.startswith(f"file://{pipeline}/mlartifacts") for r in new)
    table = dvc("exp", "show", "--csv", cwd=pipeline)
    assert all(r.data.tags["dvc.experiment"] in table for r in new)


def test_stage_parameters_and_code_exist():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    composed = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = {name: stage.get("do", stage) for name, stage in stages.items()}
    used = {name for stage in stages.values() for name in stage.get("params", [])}
    for name in used:
        assert name in composed, name
    for stage in stages.values():
        for dependency in stage["deps"]:
            if dependency.startswith(("src/", "conf/")):
                dependency = dependency.replace("${item.study}", "quick")
                assert (ROOT / dependency).exists(), dependency
    # `plot` only chooses a template; `trust` only says what may run.
    assert set(composed) - used == {"plot", "trust"}


def training_process(folder):
    """The id of the process of a repository's stage, None while there is none."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
            here = (command.parent / "cwd").resolve() == folder.resolve()
        except OSError:  # it ended just now
            continue
        if here and words[1:3] == [b"src/litlab", b"train"]:
            return int(command.parent.name)
    return None


def start_training(tmp_path):
    """A repository, its `dvc repro`, and the process of the stage that has saved twice."""
    long = [*TINY[:-1], "trainer.max_epochs=400", "trainer.save_every_seconds=0.1"]
    folder = repository(tmp_path, *long)
    dvc("repro", "prepare", cwd=folder)
    command = [sys.executable, "-m", "dvc", "repro"]
    process = subprocess.Popen(command, cwd=folder, env=environment())
    while not list(folder.glob(".litlab/unfinished/*/previous.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    return folder, process, training_process(folder)


def check_resumed_once(folder):
    assert recorded(folder)["resumed"] == 1
    assert not list(folder.glob(".litlab/unfinished/*"))
    assert not list(folder.glob(".litlab/locks/*"))
    (only,) = runs(folder)
    assert only.info.status == "FINISHED"
    assert only.data.tags["resumed"] == "1"
    assert only.data.tags["run.folder"] == str(folder / "runs" / "pipeline")
    assert (folder / "runs" / "pipeline" / "best.ckpt").is_file()


def test_a_killed_stage_goes_on_when_it_is_run_again(tmp_path):
    folder, process, training = start_training(tmp_path)
    os.kill(training, signal.SIGKILL)
    assert process.wait(60) != 0
    dvc("repro", cwd=folder)
    check_resumed_once(folder)


def test_a_killed_dvc_takes_its_training_along(tmp_path):
    folder, process, training = start_training(tmp_path)
    try:
        os.kill(training, signal.SIGSTOP)  # as one that is slow to stop
        process.kill()
        process.wait(60)
        output = run(sys.executable, "-m", "dvc", "repro", cwd=folder, check=False)
        assert f"process {training} is still writing to it | runs/pipeline" in output
        assert list(folder.glob(".litlab/unfinished/*/run/history.csv"))  # it was left alone
    finally:
        os.kill(training, signal.SIGCONT)
    while training_process(folder) is not None:  # it saves, and nobody tells it to stop
        time.sleep(0.1)
    dvc("repro", cwd=folder)
    check_resumed_once(folder)


@pytest.mark.slow
def test_tuning_as_a_stage(tmp_path):
    folder = repository(tmp_path, *TINY)
    assert "tune" not in dvc("stage", "list", cwd=folder)  # off by default
    order = "data=digits model=mlp trainer=debug study.n_trials=2 study.finalists=0"
    file = folder / "dvc.yaml"
    file.write_text(
        file.read_text().replace("- tune: []", f"- tune: [{{study: quick, overrides: {order}}}]")
    )
    dvc("repro", "tune", cwd=folder)
    assert "trial" in (folder / "conf" / "experiment" / "quick-best.yaml").read_text()
    assert "didn't change, skipping" in dvc("repro", "tune", cwd=folder)
    # Other settings are another study.
    loss = folder / "conf" / "optimizer" / "adamw.yaml"
    loss.write_text(loss.read_text() + "\n")
    assert "all 2 trials have ended" in dvc("repro", "tune", cwd=folder)
    file.write_text(file.read_text().replace("trainer=debug", "trainer=debug seed=7"))
    assert "was renamed to quick-until-" in dvc("repro", "tune", cwd=folder)
    assert len(list((folder / "runs").glob("quick-until-*/trial-*/"))) == 2
    assert len(list((folder / "runs" / "quick").glob("trial-*/"))) == 2
