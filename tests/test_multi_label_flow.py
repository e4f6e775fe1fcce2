"""Several labels a sample, from source to predictions; and the task that follows the targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from sklearn import metrics as sklearn

import litlab as package
from litlab.config.compose import follow_targets, load
from litlab.data.prepare.open import open_or_prepare
from litlab.data.sources.npz import Npz
from litlab.evaluation.predict import predict
from litlab.training.parts import follow_data
from litlab.training.run import train
from litlab.utils.errors import ConfigError, DataError, Interrupted
from run_helpers import THIRD_PARTY, ready_store

pytestmark = THIRD_PARTY
NUMBER = 160
NAMES = ("red", "blue", "=rare")
TRAINER = (
    *("trainer.accelerator=cpu", "trainer.progress=none", "trainer.max_epochs=2"),
    *("loader.batch_size=16", "optimizer.lr=0.01", "trainer.save_every_seconds=0"),
)


def labels() -> np.ndarray:
    y = (np.random.default_rng(0).random((NUMBER, 3)) < (0.5, 0.4, 0.2)).astype(np.uint8)
    y[:3] = [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    return y


def table(folder: Path) -> list[str]:
    y = labels()
    x = y * 2.0 + np.random.default_rng(1).normal(size=y.shape)
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(**dict(zip(NAMES, y.T, strict=True)))
    frame.to_csv(folder / "x.csv", index=False)
    return ["data=table", "data.path=x.csv", "data.source.target=[red,blue,'=rare']"]


def texts(folder: Path) -> list[str]:
    rows = [
        {"text": f"{'wine ' * y[0]} {'sky ' * y[1]} {'comet ' * y[2]} text {i}", "label": found}
        for i, y in enumerate(labels())
        for found in [[name for name, holds in zip(NAMES, y, strict=True) if holds]]
    ]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    characters = ["data.source.tokenizer=char", "data.source.min_frequency=1"]
    return ["data=text", "data.path=x.jsonl", *characters, "model.channels=[8]", "augment=cutmix"]


def images(folder: Path) -> list[str]:
    y = labels()
    x = np.random.default_rng(1).integers(0, 50, (NUMBER, 6, 6)).astype(np.uint8)
    for k in range(3):
        x[y[:, k] == 1, 2 * k] += 150
    np.savez(folder / "x.npz", x=x, y=y)
    return ["data=npz", "data.path=x.npz", "model=cnn", "model.channels=[8]", "augment=mixup"]


class Stops(Callback):
    """Ends a training in its second epoch, as Ctrl-C does."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(params=[table, texts, images], ids=lambda make: make.__name__)
def flow(request: pytest.FixtureRequest, project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    ready_store(project)
    monkeypatch.setattr("litlab.evaluation.results.ROUNDS", 20)
    overrides = [*request.param(project), *TRAINER]
    return project, load(overrides)


def test_from_the_source_to_predictions(flow: Any) -> None:
    project, config = flow
    run = train(config, project / "whole", preview=True)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(config, project / "cut", callbacks=[Stops()], preview=False)
    resumed = train(config, project / "cut", resume=True, preview=False)
    assert resumed.record.resumed == 1
    assert resumed.metrics == run.metrics
    found = run.evaluate()
    known = list(found.thresholds)
    assert found.thresholds == resumed.evaluate(project / "other").thresholds

    # What was written is what scikit-learn makes of the predictions.
    rows = pd.read_csv(found.folder / "predictions.csv", keep_default_na=False)
    p = rows[[c for c in rows if c.startswith("p(")]].to_numpy()
    limits = np.array(list(found.thresholds.values()))
    y = labels()[rows["index"]]
    if "red" in known:
        y = y[:, [NAMES.index(name) for name in known]]
    decided = p >= limits
    expected = {
        "mean_average_precision": sklearn.average_precision_score(y, p),
        "f1_macro": sklearn.f1_score(y, decided, average="macro", zero_division=0),
        "f1_micro": sklearn.f1_score(y, decided, average="micro", zero_division=0),
        "exact_match": sklearn.accuracy_score(y, decided),
        "hamming_loss": sklearn.hamming_loss(y, decided),
    }
    for name, value in expected.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-5), name
    written = json.loads((found.folder / "metrics.json").read_text())
    assert written["thresholds"] == found.thresholds
    assert set(written["test_interval_95"]) == set(expected)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        y, decided, zero_division=0
    )
    for k, row in enumerate(written["test_by_label"].values()):
        assert (row["support"], row["recall"]) == (support[k], pytest.approx(recall[k]))
        assert row["f1"] == pytest.approx(f1[k])
        assert (row["precision"] or 0.0) == pytest.approx(precision[k])
    page = (found.folder / "report.html").read_text()
    assert "Labels on the test split" in page
    assert "chosen on validation" in page

    # Predictions of the data's own file or array go by the same thresholds.
    spec = open_or_prepare(config.data, [])[1]
    values = np.load("x.npz")["x"][:20] if spec.kind == "image" else Path(config.data.path or "")
    predicted = run.predict(values)
    chances = predicted[[f"p({name})" for name in known]].to_numpy()
    for names, row in zip(predicted["labels"], chances >= np.float32(limits), strict=True):
        assert names == [name for name, holds in zip(known, row, strict=True) if holds]
    assert json.loads((run.folder / "preview.json").read_text())["splits"]["train"]["classes"]


def test_files_of_predictions(project: Path, litlab: Any) -> None:
    ready_store(project)
    run = train(load([*table(project), *TRAINER]), preview=False)
    for out in ("o.csv", "o.jsonl", "o.parquet"):
        predict(str(run.folder), Path("x.csv"), project / out)
    rows = pd.read_csv("o.csv", keep_default_na=False)
    assert list(rows) == ["input", "labels", "p(red)", "p(blue)", "p(=rare)"]
    lists = [json.loads(line)["labels"] for line in Path("o.jsonl").read_text().splitlines()]
    assert [";".join(names) for names in lists] == [text.removeprefix("'") for text in rows.labels]
    assert [list(names) for names in pd.read_parquet("o.parquet").labels] == lists
    assert {len(names) for names in lists} > {1}
    code, out, err = litlab("evaluate", str(run.folder), "--json")
    assert (code, set(json.loads(out)["thresholds"])) == (0, set(NAMES))
    assert "thresholds, chosen on validation: red 0." in err


def test_settings_of_several_labels(project: Path) -> None:
    data = table(project)
    ready_store(project)
    for typed in ("loss=label_focal", "loss.pos_weight=balanced", "loss=bce"):
        config = follow_data(load([*data, typed]))
        assert config.task["_target_"].endswith("MultiLabelTask")
        assert "label_f1" not in config.metrics
        assert "f1_macro" in config.metrics
    for typed, message in {
        "loss.label_smoothing=0.1": "no setting 'loss.label_smoothing'",
        "metrics=[accuracy]": "MulticlassAccuracy is not for several labels a sample",
        "loss=focal": "Focal is not for several labels a sample",
    }.items():
        with pytest.raises(ConfigError, match=f"'table' need task=multi_label.*{message}"):
            follow_data(load([*data, typed]))
    with pytest.raises(ConfigError, match="LabelCrossEntropy is not for classification"):
        load([*data, "task=classification", "loss=bce"])
    monitored = load([*data, "monitor=val/mean_average_precision"])
    assert follow_data(monitored).monitor == "val/mean_average_precision"
    config = load([*data, "task=classification"])
    assert follow_data(config) is config
    with pytest.raises(ConfigError, match="set task=multi_label"):
        train(config, preview=False)
    amounts = follow_data(load([*data, "data.source.task=regression", "data.name=amounts"]))
    assert amounts.task["_target_"].endswith("RegressionTask")


def test_the_task_follows_a_target_of_numbers(project: Path, litlab: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "price"])
    frame.to_csv("p.csv", index=False)
    ready_store(project)
    code, _, err = litlab(
        "train", "data=table", "data.path=p.csv", "data.source.target=price", *TRAINER
    )
    assert code == 0, err
    assert "the targets are numbers, so task=regression is used" in err
    assert "val/rmse" in err
    assert "warning" not in err
    assert load(["data=table", "data.path=p.csv", "data.source.target=price", "loss=mae"]).plot


def test_what_is_not_followed(project: Path) -> None:
    config = load(["data=synthetic"])
    assert follow_targets(config, "classification", "x") is config
    from_file = config.model_copy()
    from_file._overrides = None
    assert follow_targets(from_file, "multi_label", "x") is from_file
    own = config.model_copy(update={"task": {"_target_": "my.Task"}})
    assert follow_targets(own, "multi_label", "x") is own


def test_a_study_tunes_the_task_of_the_targets(project: Path) -> None:
    from litlab.tuning.study.settings import settings_of
    from litlab.tuning.tune import Tuner

    ready_store(project)
    base = [*table(project), *TRAINER]
    settings, rest = settings_of("quick", {}, base)
    tuner = Tuner(settings, rest)
    assert tuner.config.task["_target_"].endswith("MultiLabelTask")
    assert tuner.base[-1] == "task=multi_label"


def test_arrays_of_one_label_a_row_are_not_several(tmp_path: Path) -> None:
    x = np.zeros((6, 4, 4), np.uint8)
    np.savez(tmp_path / "one.npz", x=x, y=np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]])
    raw = Npz(path=str(tmp_path / "one.npz")).read()
    assert (raw.task, list(raw.classes)) == ("classification", ["0", "1", "2"])
    raw = Npz(path=str(tmp_path / "one.npz"), task="multi_label").read()
    assert (raw.task, list(raw.classes)) == ("multi_label", ["y0", "y1", "y2"])
    np.savez(tmp_path / "bad.npz", x=x, y=np.full((6, 3), 2))
    with pytest.raises(DataError, match="0 or 1 each"):
        Npz(path=str(tmp_path / "bad.npz"), task="multi_label").read()


def test_columns_of_a_table_that_are_no_labels(project: Path) -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5, 4.5], "b": [0, 1, 0, 1], "c": [0, 1, 2, 1]})
    frame.to_csv("x.csv", index=False)
    data = ["data=table", "data.path=x.csv", "data.source.target=[b,c]"]
    with pytest.raises(DataError, match="the target 'c' holds 0, 1, 2: a label is 0 or 1"):
        open_or_prepare(load([*data, "data.source.task=multi_label"]).data, [])


def test_the_task_is_public() -> None:
    assert package.MultiLabelTask.__name__ == "MultiLabelTask"
