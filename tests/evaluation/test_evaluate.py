import csv
import json
import shutil

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

from litlab.config.compose import load as load_config
from litlab.data.augment.draws import Draws
from litlab.data.augmentations import build_augmentations
from litlab.data.loading import Preprocess, open_split
from litlab.data.prepare.open import open_or_prepare
from litlab.evaluation.evaluate import evaluate
from litlab.evaluation.inference import load_task
from litlab.runs.checkpoint.io import KEY, read, write
from litlab.runs.checkpoint.metadata import load
from litlab.runs.tracking.history import read_rows
from litlab.training.run import train
from litlab.utils.errors import CheckpointError, ConfigError, DataError, EnvironmentFault
from run_helpers import THIRD_PARTY, mlflow_run, ready_store, small, small_run

pytestmark = THIRD_PARTY


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr(
        "litlab.evaluation.results.ROUNDS", 20
    )  # of the bootstrap, which has its own tests


MODELS = {
    "mlp": ["model=mlp", "model.hidden=[8]"],
    "cnn": ["model=cnn", "model.channels=[4,8]"],
    "transformer": ["model=transformer", "model.embed_dim=8", "model.depth=1", "model.ffn_dim=8",
                    "model.num_heads=2"],
}  # fmt: skip
REGRESSION = ("data.source.num_classes=0", "data.stratify=false", "task=regression")


def rows(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_metrics_are_those_of_the_predictions(project):
    small_run(project, "trainer.limit_train_batches=null", "data.source.num_samples=300")
    result = evaluate("last")
    arrays = load_file(project / "data/prepared/synthetic/test.safetensors")
    table = rows(result.folder)
    assert [int(row["index"]) for row in table] == arrays["source_index"].tolist()
    actual = arrays["y"]
    assert [row["actual"] for row in table] == [f"class{i}" for i in actual]
    predicted = np.array([int(row["predicted"].removeprefix("class")) for row in table])
    assert result.metrics["accuracy"] == pytest.approx(accuracy_score(actual, predicted))
    assert result.metrics["f1"] == pytest.approx(
        f1_score(actual, predicted, average="macro"), abs=1e-6
    )
    assert 0.5 < result.metrics["accuracy"] <= 1  # it learned: chance is a third


class Killed(BaseException):
    """Leaves on disk what a kill -9 at that place leaves."""


def killed(*_):
    raise Killed


def test_a_killed_evaluation_is_told(project, litlab, monkeypatch):
    run = small_run(project)
    evaluate("last")
    assert litlab("report")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("litlab.evaluation.results.render", killed)
        with pytest.raises(Killed):
            evaluate("last")
    for command in (["report"], ["report", str(run.folder)]):
        code, _, error = litlab(*command)
        assert code == 4
        assert error.startswith("error: the evaluation did not finish: metrics.json is missing | ")
    evaluate("last")
    assert litlab("report")[0] == 0


def test_a_run_is_measured_on_what_the_pipeline_prepared(project):
    small_run(project)
    expected = evaluate("last").metrics
    own = project / "data/prepared/synthetic"
    own.rename(project / "data/prepared/pipeline")
    assert evaluate("last").metrics == expected
    open_or_prepare(load_config(["data=synthetic", "data.split_seed=3"]).data, [])
    assert own.is_dir()  # the name is taken by others, with another test split
    assert evaluate("last").metrics == expected
    shutil.rmtree(project / "data/prepared/pipeline")
    with pytest.raises(DataError, match="prepared again since the run"):
        evaluate("last")
    shutil.rmtree(own)
    with pytest.raises(DataError, match="prepared data are missing") as caught:
        evaluate("last")
    assert "litlab prepare --params" in caught.value.fix


def test_loss_and_confidence_equal_a_network_run_by_hand(project):
    run = small_run(project)
    result = evaluate("last")
    arrays = load_file(project / "data/prepared/synthetic/test.safetensors")
    spec, weights = load(run.checkpoint).metadata.spec, load(run.checkpoint).weights
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in weights.items()}
    names = list(w)
    x = (arrays["x"] / 255.0 - spec.mean[0]) / spec.std[0]
    hidden = np.maximum(x.reshape(len(x), -1) @ w[names[0]].T + w[names[1]], 0)
    logits = hidden @ w[names[2]].T + w[names[3]]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(p)), arrays["y"]]).mean()
    assert result.metrics["loss"] == pytest.approx(loss, rel=1e-4)
    confidence = [float(row["confidence"]) for row in rows(result.folder)]
    assert confidence == pytest.approx(list(p.max(1)), abs=1e-4)


def test_regression_is_measured_in_its_own_unit(project):
    small_run(project, *REGRESSION)
    result = evaluate("last")
    arrays = load_file(project / "data/prepared/synthetic/test.safetensors")
    predicted = np.array([float(row["predicted"]) for row in rows(result.folder)])
    actual = np.array([float(row["actual"]) for row in rows(result.folder)])
    assert actual == pytest.approx(arrays["y"][:, 0])
    assert result.metrics["mae"] == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-5)
    assert result.metrics["r2"] == pytest.approx(r2_score(actual, predicted), abs=1e-4)
    assert "loss" in result.metrics


@pytest.mark.parametrize("target", ["rent/m2", "../../../outside"])
def test_a_targets_name_is_no_path(project, target):
    run = small_run(project, *REGRESSION)
    content = read(run.checkpoint)
    content[KEY]["spec"]["targets"] = [target]
    write(content, run.checkpoint)
    result = evaluate("last")
    drawn = {path.name for path in (result.folder / "figures").iterdir()}
    assert drawn == {"learning_curves.png", f"predicted_{target.replace('/', '_')}.png"}
    assert not list(project.glob("**/outside.png"))


@pytest.mark.filterwarnings("ignore:the model convolves over a table's columns")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["tabular", "sequence", "image", "text", "regression"])
def test_every_model_on_every_kind(project, model, kind):
    ready_store(project)
    made = REGRESSION if kind == "regression" else (f"data.source.kind={kind}",)
    config = load_config(
        ["data=synthetic", "data.source.num_samples=90", "trainer=debug", "trainer.max_epochs=1",
         "trainer.accelerator=cpu", "trainer.progress=none", "loader.batch_size=16", *made,
         *MODELS[model]]
    )  # fmt: skip
    train(config)
    result = evaluate("last")
    assert result.all_sent
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert len(rows(result.folder)) == 18
    assert "<html" in (result.folder / "report.html").read_text()


def test_files_of_another_kind_are_not_replaced(project):
    before = (project / "conf" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match="holds a config.yaml that is not from an evaluation"):
        evaluate("last", project / "conf")
    assert (project / "conf" / "config.yaml").read_text() == before
    run = small_run(project)
    with pytest.raises(ConfigError, match="is not from an evaluation"):
        evaluate("last", run.folder)
    evaluate("last", project / "new")
    evaluate("last", project / "new")


def test_what_an_evaluation_leaves(project):
    run = small_run(project)
    result = evaluate(run.folder.name)
    assert result.folder == run.folder / "report"
    names = {p.relative_to(result.folder).as_posix() for p in result.folder.rglob("*.*")}
    assert names == {
        "report.html", "metrics.json", "run.json", "config.yaml", "predictions.csv",
        "figures/learning_curves.png", "figures/confusion_matrix.png",
    }  # fmt: skip
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["test"] == result.metrics
    assert metrics["val"]["loss"] == run.record.metrics["val/loss"]
    low, high = metrics["test_interval_95"]["accuracy"]
    assert low <= result.metrics["accuracy"] <= high
    record = json.loads((result.folder / "run.json").read_text())
    assert record["run_id"] == run.record.run_id
    assert project / record["checkpoint"] == run.checkpoint


def test_the_run_in_mlflow_gains_test_metrics_and_the_report(project):
    run = small_run(project, "trainer.max_epochs=3")
    before = mlflow_run(project, run.record.run_id)
    assert not any(key.startswith("test/") for key in before.data.metrics)
    result = evaluate("last")
    after = mlflow_run(project, run.record.run_id)
    for name, value in result.metrics.items():
        assert after.data.metrics[f"test/{name}"] == pytest.approx(value)
    assert after.info.status == "FINISHED"
    client = MlflowClient(ready_store(project))
    (point,) = client.get_metric_history(run.record.run_id, "test/loss")
    assert point.step == run.record.best_epoch
    names = [a.path for a in client.list_artifacts(run.record.run_id, "report")]
    assert {"report/report.html", "report/metrics.json", "report/predictions.csv"} <= set(names)


def test_evaluating_twice_gives_the_same(project):
    small_run(project)
    assert evaluate("last").metrics == evaluate("last").metrics


def test_data_prepared_again_are_refused(project):
    run = small_run(project)
    shutil.rmtree(project / "data")
    small_run(project, "data.split_seed=7")
    with pytest.raises(DataError, match="prepared again") as caught:
        evaluate(str(run.folder))
    assert caught.value.exit_code == 3
    assert not (run.folder / "report").exists()
    evaluate("last")


def test_an_altered_test_split_is_refused(project):
    small_run(project)
    path = project / "data/prepared/synthetic/test.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        evaluate("last")


def test_no_such_run(project):
    with pytest.raises(CheckpointError):
        evaluate("absent")


def test_a_folder_that_cannot_be_written(project):
    small_run(project)
    (project / "file").write_text("x")
    with pytest.raises(EnvironmentFault, match="cannot write there") as caught:
        evaluate("last", project / "file")
    assert caught.value.exit_code == 5


def test_the_last_checkpoint_can_be_measured_too(project):
    run = small_run(project, "trainer.max_epochs=6", "optimizer=sgd", "optimizer.lr=3")
    best = evaluate("last")
    with pytest.warns(UserWarning, match="not sent to MLflow"):
        last = evaluate(str(run.folder / "last.ckpt"))
    assert last.metrics != best.metrics
    assert last.found.checkpoint.name == "last.ckpt"
    assert last.folder != best.folder
    # Its validation values are those of its own epoch, not of the best one.
    assert last.record.best_epoch == 5
    history = read_rows(run.folder / "history.csv")
    assert last.record.metrics["val/loss"] == history[5]["val/loss"]


def test_a_checkpoint_in_another_runs_folder_is_not_credited_to_that_run(project):
    first, second = small_run(project), small_run(project, "seed=1")
    shutil.copy(first.checkpoint, second.folder / "best.ckpt")
    done = evaluate(str(second.folder), project / "other")
    assert done.record.run_id == first.record.run_id
    assert done.record.status == "UNKNOWN"


def test_the_pipelines_results_lie_outside_what_dvc_keeps_of_its_run(project):
    small_run(project, out=project / "runs" / "pipeline")
    done = evaluate("last")
    assert done.folder == project / "reports"
    assert not (project / "runs" / "pipeline" / "report").exists()


def test_a_checkpoint_by_itself_in_its_own_project(project):
    run = small_run(project)
    shutil.copy(run.checkpoint, project / "moved.ckpt")
    result = evaluate("moved.ckpt", project / "out")
    assert result.all_sent
    assert result.record.run_id == run.record.run_id
    assert "test/loss" in mlflow_run(project, run.record.run_id).data.metrics
    assert (project / "out" / "report.html").is_file()


def test_a_strangers_checkpoint_does_not_choose_where_results_go(project):
    run = small_run(project)
    content = torch.load(run.checkpoint, weights_only=True)
    elsewhere = f"sqlite:///{project}/elsewhere.db"
    content["litlab"]["config"]["tracking"]["uri"] = elsewhere
    content["litlab"]["run_id"] = "0" * 32
    write(content, project / "stranger.ckpt")
    with pytest.warns(UserWarning, match="not in the tracking store"):
        result = evaluate("stranger.ckpt", project / "out")
    assert result.all_sent  # nothing is left to send
    assert not (project / "elsewhere.db").exists()


def test_a_store_that_is_down_is_said(project, monkeypatch):
    small_run(project)

    def refuse(*_, **__):
        raise ConnectionError("down")

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.warns(UserWarning, match="kept and sent later"):
        result = evaluate("last")
    assert not result.all_sent
    assert (result.folder / "report.html").is_file()


def test_passwords_stay_out_of_the_report(project):
    tracking = small().tracking.model_copy(update={"tags": {"api_key": "geheim"}})
    small_run(project, tracking=tracking)
    result = evaluate("last")
    for path in result.folder.rglob("*.*"):
        assert b"geheim" not in path.read_bytes()


def test_views_are_averaged_with_the_sample_itself(project):
    overrides = ["data.source.kind=sequence", "augment=noise", "augment.noise.std=0.5"]
    run = small_run(project, *overrides)
    plain, result = evaluate("last"), evaluate("last", tta=3)
    loaded, task = load_task(run.checkpoint)
    spec = loaded.metadata.spec
    split = open_split(project / "data/prepared/synthetic", spec, "test")
    index = torch.arange(len(split))
    x, y = split.take(index)
    (augmentation,) = build_augmentations(loaded.metadata.config.augment, spec, []).values()
    outputs = task(Preprocess(spec)(x))
    for view in range(3):
        seen, _ = augmentation(x, y, Draws(0, view, index).stream("noise"))
        outputs = outputs + task(Preprocess(spec)(seen))
    loss = torch.nn.functional.cross_entropy(outputs / 4, y)
    assert result.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert result.metrics["loss"] != plain.metrics["loss"]
    assert evaluate("last", tta=3).metrics == result.metrics  # the same views each time
    # Neither the run's own results nor its test metrics are overwritten.
    assert (result.folder.name, plain.folder.name) == ("report-tta3", "report")
    recorded = mlflow_run(project, run.record.run_id).data.metrics
    assert recorded["test/loss"] == pytest.approx(plain.metrics["loss"])
    assert recorded["test_tta3/loss"] == pytest.approx(result.metrics["loss"])


def test_views_leave_out_what_mixes_and_need_an_augmentation(project):
    small_run(project, "augment=mixup")
    with pytest.raises(ConfigError, match="but it has none"):
        evaluate("last", tta=2)


def test_several_targets_are_measured_each_by_itself(project):
    ready_store(project)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2))
    lines = [f"{a},{b},{a + b},{1000 * a}" for a, b in x]
    (project / "x.csv").write_text("\n".join(["a,b,km,kg", *lines]) + "\n")
    config = load_config(
        ["data=table_regression", "data.path=x.csv", "data.source.target=[km,kg]", "model=mlp",
         "model.hidden=[8]", "trainer=debug", "trainer.max_epochs=1", "trainer.accelerator=cpu",
         "trainer.progress=none", "loader.batch_size=16", "trainer.log_norms=true"]
    )  # fmt: skip
    train(config)
    result = evaluate("last")
    table = rows(result.folder)
    said = json.loads((result.folder / "metrics.json").read_text())
    assert said["test_by_target"].keys() == {"km", "kg"}
    for target, found in said["test_by_target"].items():
        own = [r for r in table if r["target"] == target]
        actual, predicted = ([float(r[k]) for r in own] for k in ("actual", "predicted"))
        assert found["mae"] == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-5)
        assert found["r2"] == pytest.approx(r2_score(actual, predicted), abs=1e-4)
    mean = sum(found["mae"] for found in said["test_by_target"].values()) / 2
    assert said["test"]["mae"] == pytest.approx(mean, rel=1e-5)
    page = (result.folder / "report.html").read_text()
    assert "Largest errors" in page
    assert "grad_norm" in "".join(said)  # a group of its own in the file; in the page no split
    assert "grad_norm" not in page.split("Learning curves")[0]
