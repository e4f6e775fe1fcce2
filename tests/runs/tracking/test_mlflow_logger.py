import subprocess
import sys
import threading
import time

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import forked
from litlab.runs.folder import RunRecord
from litlab.runs.recorder import flatten
from litlab.runs.tracking.address import tracking_uri
from litlab.runs.tracking.mlflow_logger import MLflowLogger, valid_name
from litlab.training import run as training
from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.locks import locked_database
from litlab.utils.paths import store_root
from run_helpers import THIRD_PARTY, mlflow_run, ready_store, small, small_run

pytestmark = THIRD_PARTY


@pytest.fixture
def logger(project):
    return MLflowLogger(ready_store(project), "exp", project / "mlartifacts")


def history(logger, key):
    found = logger.client.get_metric_history(logger.run_id, key)
    return [(m.step, m.value) for m in sorted(found, key=lambda m: m.step)]


class Down:
    """A store that answers nothing, until it is told to."""

    def __init__(self, client):
        self.client, self.up, self.calls = client, False, 0

    def __getattr__(self, name):
        self.calls += 1
        if not self.up:
            raise ConnectionError("http://me:geheim@host refuses")
        return getattr(self.client, name)


# A whole run


def test_a_run_is_recorded_in_full(project, monkeypatch):
    (project / "below").mkdir()
    ready_store(project)
    monkeypatch.chdir(project / "below")
    config = small("+tracking.tags.purpose=test", "name=tea")
    result = training.train(config)
    assert not list((project / "below").iterdir())
    run = mlflow_run(project, result.record.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tea"
    assert run.data.params["optimizer.lr"] == "0.01"
    assert run.data.params["data.source.num_samples"] == "150"
    assert run.data.params["model._target_"] == "litlab.models.simple.SimpleNN"
    tags = run.data.tags
    assert tags["purpose"] == "test"
    assert tags["data.name"] == "synthetic"
    assert tags["model.parameters"] == str(144 * 8 + 8 + 8 * 3 + 3)
    assert tags["run.folder"] == str(result.folder)
    assert len(tags["data.checksum"]) == 64
    assert tags["data.checksum"] == result.record.data["checksum"]
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())


def test_the_runs_of_a_setting_can_be_searched(project):
    first = small_run(project, "optimizer.lr=0.02").record.run_id
    small_run(project, "optimizer.lr=0.03")
    client = MlflowClient(ready_store(project))
    experiment = client.get_experiment_by_name("litlab").experiment_id
    found = client.search_runs([experiment], "params.`optimizer.lr` = '0.02'")
    assert [run.info.run_id for run in found] == [first]


def test_metrics_by_epoch_under_plain_names(project):
    result = small_run(project, "trainer.max_epochs=3")
    client = MlflowClient(ready_store(project))
    from litlab.runs.tracking.history import read_rows

    rows = read_rows(result.folder / "history.csv")
    for key in ("train/loss", "val/loss", "val/accuracy", "train/f1", "lr"):
        points = client.get_metric_history(result.record.run_id, key)
        assert sorted((m.step, m.value) for m in points) == [(i, rows[i][key]) for i in range(3)]
    metrics = client.get_run(result.record.run_id).data.metrics
    assert metrics["best/epoch"] == result.record.best_epoch
    assert metrics["best/val/loss"] == result.record.metrics["val/loss"]
    assert not any("step" in key for key in metrics)


def test_artifacts_hold_the_whole_configuration_and_the_checkpoint(project):
    result = small_run(project)
    client = MlflowClient(ready_store(project))
    folder = project / "got"
    folder.mkdir()
    client.download_artifacts(result.record.run_id, "", str(folder))
    config = small()
    assert yaml.safe_load((folder / "config.yaml").read_text()) == config.model_dump(mode="json")
    from litlab.config.compose import load

    assert load([], folder / "config.yaml") == config  # the same run again
    kept = folder / "checkpoints" / "best.ckpt"
    assert kept.read_bytes() == result.checkpoint.read_bytes()
    assert (folder / "history.csv").is_file()
    assert '"synthetic"' in (folder / "data_spec.json").read_text()


def test_the_checkpoint_may_stay_out_of_the_store(project):
    result = small_run(project, "tracking.log_checkpoint=false")
    client = MlflowClient(ready_store(project))
    assert "checkpoints" not in [a.path for a in client.list_artifacts(result.record.run_id)]


def test_git_is_recorded(project):
    for command in (["init", "-q"], ["add", "conf"], ["commit", "-q", "-m", "start"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@e.org"]
        subprocess.run(["git", *who, *command], check=True, cwd=project)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    with (project / "conf" / "config.yaml").open("a") as file:
        file.write("# changed\n")
    result = small_run(project)
    tags = mlflow_run(project, result.record.run_id).data.tags
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["git.dirty"] == "true"
    assert result.record.git["dirty"] == "true"


def test_the_run_of_mlflow_run_is_adopted(project, monkeypatch):
    client = MlflowClient(ready_store(project))
    experiment = client.create_experiment("theirs")
    given = client.create_run(experiment).info.run_id
    client.log_param(given, "optimizer.lr", "as typed")  # `mlflow run -P` logs its own
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    result = small_run(project)
    assert result.record.run_id == given
    assert result.record.experiment == "theirs"
    assert len(client.search_runs([experiment])) == 1
    data = client.get_run(given).data
    assert data.params["optimizer.lr"] == "as typed"
    assert data.params["seed"] == "0"
    assert data.metrics["val/loss"] > 0


def test_an_unreachable_server_ends_it_at_once(project, monkeypatch):
    ready_store(project)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        training.train(small("tracking.uri='http://me:geheim@127.0.0.1:9'"))
    assert time.monotonic() - began < 10
    assert caught.value.exit_code == 5
    assert "geheim" not in str(caught.value)
    assert list((project / "runs").iterdir()) == []  # no run began, and nothing is left of one


def test_a_server_that_dies_and_comes_back(project, monkeypatch):
    down = {}
    whole = MLflowLogger.start

    def start(self, *arguments):
        run_id = whole(self, *arguments)
        self._client = down["client"] = Down(self._client)
        return run_id

    def end_of_epoch(self):
        if self.current_epoch == 2:
            down["client"].up = True

    monkeypatch.setattr(MLflowLogger, "start", start)
    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_start", end_of_epoch)
    with pytest.warns(UserWarning, match="MLflow") as caught:
        result = small_run(project, "trainer.max_epochs=4")
    about = [str(w.message) for w in caught if "did not accept metrics" in str(w.message)]
    assert len(about) == 1  # an outage
    assert "geheim" not in about[0]
    client = MlflowClient(ready_store(project))
    steps = [m.step for m in client.get_metric_history(result.record.run_id, "train/loss")]
    assert sorted(steps) == [0, 1, 2, 3]
    # Two small artifacts could not be stored at the start, and that is said.
    assert not result.all_sent


def test_a_server_that_never_comes_back(project, monkeypatch):
    monkeypatch.setattr(MLflowLogger, "flush", lambda self: not self.pending)
    result = small_run(project)
    assert not result.all_sent
    assert result.record.status == RunRecord.load(result.folder).status == "FINISHED"
    assert result.checkpoint.is_file()


# The logger by itself


def test_short_epochs_do_not_wait_for_the_store(logger, monkeypatch):
    logger.start("tea", {}, {})
    sent = []
    monkeypatch.setattr(logger.client, "log_batch", lambda _, metrics: sent.append(len(metrics)))
    for epoch in range(50):
        logger.log_metrics({"loss": 1.0, "epoch": epoch})
    assert sent == [1]
    logger.flush()
    assert sent == [1, 49]


def test_what_cannot_be_sent_is_kept_and_sent_later(logger, monkeypatch):
    monkeypatch.setattr("litlab.runs.tracking.mlflow_logger.FLUSH_SECONDS", 0.0)
    logger.start("tea", {}, {})
    down = Down(logger.client)
    logger._client = down
    with pytest.warns(UserWarning, match="kept and sent later"):
        logger.log_metrics({"loss": 1.0, "epoch": 0})
    logger.log_metrics({"loss": 2.0, "epoch": 1})  # silent: it was said
    assert len(logger.pending) == 2
    down.up = True
    logger.log_metrics({"loss": 3.0, "epoch": 2})
    assert logger.pending == []
    assert history(logger, "loss") == [(0, 1.0), (1, 2.0), (2, 3.0)]
    down.up = False
    with pytest.warns(UserWarning, match="kept and sent later"):  # another outage
        logger.log_metrics({"loss": 4.0, "epoch": 3})


def test_finish_says_whether_all_was_sent(logger):
    logger.start("tea", {}, {})
    assert logger.finish("FINISHED")
    down = Down(logger.client)
    logger._client = down
    with pytest.warns(UserWarning, match="shows the run as running"):
        assert not logger.finish("FINISHED")


def test_a_missing_artifact_is_not_all(logger, project):
    logger.start("tea", {}, {})
    with pytest.warns(UserWarning, match="is not in MLflow"):
        logger.log_artifact(project / "absent.txt")
    assert not logger.finish("FINISHED")


def test_many_parameters_tags_and_metrics(logger):
    logger.start("tea", {f"p{i}": i for i in range(250)}, {f"t{i}": str(i) for i in range(120)})
    logger.log_metrics({f"m{i}": float(i) for i in range(350)}, step=4)
    data = logger.client.get_run(logger.run_id).data
    assert [data.params[f"p{i}"] for i in range(250)] == [str(i) for i in range(250)]
    assert [data.metrics[f"m{i}"] for i in range(350)] == [float(i) for i in range(350)]
    assert data.tags["t119"] == "119"
    assert history(logger, "m3") == [(4, 3.0)]


def test_long_values_are_cut_with_a_warning(logger):
    with (
        pytest.warns(UserWarning, match=r"parameter long is truncated.*config\.yaml"),
        pytest.warns(UserWarning, match=r"tag tag is truncated.*tags/tag\.txt"),
    ):
        logger.start("tea", {"long": "x" * 10_000}, {"tag": "y" * 10_000})
    data = logger.client.get_run(logger.run_id).data
    assert data.params["long"] == "x" * 6000
    assert data.tags["tag"] == "y" * 5000


def test_a_long_tag_is_kept_whole_as_an_artifact(logger, project):
    tags = {"../odd: \u00e9": "y" * 9_999 + "\u00e9", "fits": "z" * 5000}
    with pytest.warns(UserWarning, match=r"tag .*odd.* is truncated.*_odd___\.txt") as caught:
        logger.start("tea", {}, tags)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"tags/resume\.changed\.txt"):
        logger.resume({"resume.changed": "a" * 6000}, {})
    folder = project / "got"
    folder.mkdir()
    logger.client.download_artifacts(logger.run_id, "tags", str(folder))
    kept = {p.name: p.read_text(encoding="utf-8") for p in (folder / "tags").iterdir()}
    assert kept == {".._odd___.txt": tags["../odd: \u00e9"], "resume.changed.txt": "a" * 6000}
    assert logger.client.get_run(logger.run_id).data.tags["resume.changed"] == "a" * 5000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_do_not_stop_the_others(logger, value):
    logger.start("tea", {}, {})
    logger.log_metrics({"odd": value, "fine": 1.0, "epoch": 0})
    assert not logger.pending
    assert history(logger, "fine") == [(0, 1.0)]


@pytest.mark.parametrize(
    "key", ["f1@0.5", "top(5)", "../up", "a//b", "/abs", "a:b", "ü ö", "", "x" * 999]
)
def test_odd_names_are_taken(logger, key):  # fmt: skip
    logger.start("tea", {key: 1}, {key: "t"})
    logger.log_metrics({key: 1.0, "epoch": 0})
    assert not logger.pending
    assert valid_name(key) in logger.client.get_run(logger.run_id).data.metrics


def test_plain_names_stay():
    for key in ("val/loss", "a.b_c-d/e f", "best/val/f1"):
        assert valid_name(key) == key


def test_two_that_make_the_experiment_at_once(logger, project, monkeypatch):
    other = MLflowLogger(logger.uri, "exp", project / "mlartifacts")
    first = other.client.create_experiment("exp")
    whole, calls = logger.client.get_experiment_by_name, []

    def too_late(name):
        calls.append(name)
        return None if len(calls) == 1 else whole(name)

    monkeypatch.setattr(logger.client, "get_experiment_by_name", too_late)
    logger.start("tea", {}, {})
    assert logger.client.get_run(logger.run_id).info.experiment_id == first


def test_several_threads_make_one_experiment(project):
    uri, ids, errors = ready_store(project), [], []

    def run():
        try:
            logger = MLflowLogger(uri, "shared", project / "mlartifacts")
            ids.append(logger.client.get_run(logger.start("tea", {}, {})).info.experiment_id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(ids) == 4
    assert len(set(ids)) == 1


OPEN_RUN = """
import sys, time
from pathlib import Path
from litlab.runs.tracking.mlflow_logger import MLflowLogger

project = Path.cwd()
(project / f"ready{sys.argv[1]}").touch()
while len(list(project.glob("ready*"))) < 4:
    time.sleep(0.001)
logger = MLflowLogger(f"sqlite:///{project}/mlflow.db", "shared", project / "mlartifacts")
logger.start("tea", {}, {})
print(logger.client.get_run(logger.run_id).info.experiment_id)
"""


@pytest.mark.slow
def test_several_processes_make_one_store(project):
    settings = {"cwd": project, "stdout": subprocess.PIPE, "text": True}
    commands = [[sys.executable, "-c", OPEN_RUN, str(number)] for number in range(4)]
    processes = [forked.Popen(command, **settings) for command in commands]
    ids = [process.communicate(timeout=200)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(ids)) == 1
    assert ids[0]


@pytest.mark.parametrize(
    ("uri", "locked"),
    [
        ("sqlite:///{0}/x.db", True),
        ("sqlite+pysqlite:///{0}/x.db?timeout=9", True),
        ("sqlite:///:memory:", False),
        ("sqlite:///{0}/absent/x.db", False),
        ("http://host/x.db", False),
    ],
)
def test_only_a_file_is_locked(project, uri, locked):
    with locked_database(uri.format(project)):
        assert [path.name for path in project.glob("*.lock")] == ["x.db.lock"] * locked


def test_what_mlflow_prints_is_no_result(logger, monkeypatch, capsys):
    logger.start("tea", {}, {})
    monkeypatch.setattr(logger.client, "set_terminated", lambda *_: print("View run"))
    assert logger.finish("FINISHED")
    assert capsys.readouterr() == ("", "View run\n")


@pytest.mark.parametrize("name", ["../../up", "/abs", "a/b", ".."])
def test_artifacts_stay_in_their_folder(project, name):
    logger = MLflowLogger(ready_store(project), name, project / "mlartifacts")
    logger.start("tea", {}, {})
    where = logger.client.get_run(logger.run_id).info.artifact_uri
    assert where.startswith((project / "mlartifacts").as_uri() + "/")
    assert ".." not in where


def test_a_deleted_experiment_is_named(logger):
    logger.client.delete_experiment(logger.client.create_experiment("exp"))
    with pytest.raises(EnvironmentFault, match=r"tracking\.experiment=exp"):
        logger.start("tea", {}, {})


def test_an_unknown_kind_of_store_is_a_configuration_error(project):
    logger = MLflowLogger("gopher://me:geheim@host", "exp", project)
    with pytest.raises(ConfigError) as caught:
        logger.start("tea", {}, {})
    assert "geheim" not in str(caught.value)


def test_a_run_that_is_not_there(logger, monkeypatch):
    other = MLflowLogger(logger.uri, "exp", logger._artifact_root, "0" * 32)
    assert not other.has_run()

    def refuses(*_: object) -> None:
        raise MlflowException("the server is down")

    monkeypatch.setattr(other.client, "get_run", refuses)
    with pytest.raises(EnvironmentFault, match="the server is down"):  # and not "no such run"
        other.has_run()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(EnvironmentFault, match="not found"):
        logger.start("tea", {}, {})


def test_lightning_sees_a_logger(logger):
    assert logger.name == "exp"
    logger.start("tea", {}, {})
    assert logger.version == logger.run_id
    assert isinstance(logger.experiment, MlflowClient)


# Where runs are recorded


def test_the_store_is_the_projects_whatever_the_working_directory(project, monkeypatch):
    expected = f"sqlite:///{project}/mlflow.db"
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert tracking_uri(None, store_root()) == expected
    assert tracking_uri("http://host", store_root()) == "http://host"
    assert tracking_uri("sqlite:///mine.db", project) == f"sqlite:///{project}/mine.db"
    assert tracking_uri("sqlite:////abs/mine.db", project) == "sqlite:////abs/mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-mlflow-run")
    assert tracking_uri(None, store_root()) == "http://of-mlflow-run"
    assert tracking_uri("http://host", store_root()) == "http://host"


def test_a_queued_dvc_experiment_records_in_the_repository(project, monkeypatch):
    copy = project / ".dvc" / "tmp" / "exps" / "tmpabc"
    (copy / "conf").mkdir(parents=True)
    (copy / "conf" / "config.yaml").write_text("")
    monkeypatch.chdir(copy)
    assert store_root() == copy
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert store_root() == project
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    assert store_root() == copy


def test_a_folder_that_dvc_deletes_is_not_named(project):
    result = small_run(project, out=project / ".dvc" / "tmp" / "exps" / "tmpabc" / "runs" / "tea")
    assert "run.folder" not in mlflow_run(project, result.record.run_id).data.tags


def test_flat_names():
    content = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": {}}
    assert flatten(content) == {"a.b": "1", "a.c.d": "None", "e": "[1, 2]", "f": "{}"}


def test_one_checksum_of_all_files(project):
    from litlab.data.prepare.open import open_or_prepare

    _, spec = open_or_prepare(small().data, [])
    other = spec.model_copy(update={"checksums": {**spec.checksums, "val.safetensors": "0" * 64}})
    assert spec.checksum != other.checksum
    reordered = dict(reversed(spec.checksums.items()))
    assert spec.checksum == spec.model_copy(update={"checksums": reordered}).checksum
