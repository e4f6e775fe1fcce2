import csv
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from litlab.data.spec import DataSpec
from litlab.evaluation import predict as module
from litlab.utils.errors import ConfigError, EnvironmentFault

NAMES = ["b.png", "a.png", "naïve, x.png"]
PROBABILITIES = torch.tensor([[0.1, 0.9], [0.75, 0.25], [0.5, 0.5]])


def make_spec(**settings) -> DataSpec:
    return DataSpec(
        **{
            "name": "made",
            "source": "made",
            "kind": "tabular",
            "task": "classification",
            "shape": (2,),
            "dtype": "float32",
            "classes": ("T-shirt/top", "café"),
            "mean": (0.0, 0.0),
            "std": (1.0, 1.0),
            "sizes": {"train": 1, "val": 1, "test": 1},
            "licence": "none",
            "origin": "made here",
        }
        | settings
    )


CLASSES = make_spec()
TARGETS = make_spec(task="regression", classes=(), targets=("height", "weight"))


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame(rows)


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / f"out{request.param}"


def write(predictions: torch.Tensor, spec: DataSpec, out: Path) -> None:
    module._write(pd.DataFrame(module._columns(NAMES, predictions, spec)), out)


def test_columns_of_a_classification(out: Path) -> None:
    write(PROBABILITIES, CLASSES, out)
    table = read(out)
    assert list(table) == ["input", "prediction", "confidence", "p(T-shirt/top)", "p(café)"]
    assert table["input"].tolist() == NAMES
    assert table["prediction"].tolist() == ["café", "T-shirt/top", "T-shirt/top"]
    np.testing.assert_allclose(table["confidence"], [0.9, 0.75, 0.5], rtol=1e-5)
    np.testing.assert_allclose(table.iloc[:, 3:], PROBABILITIES, rtol=1e-5)


def test_columns_of_a_regression(out: Path) -> None:
    values = torch.tensor([[1.5, -2e6], [0.0, 1e-7], [3.25, 4.0]])
    write(values, TARGETS, out)
    table = read(out)
    assert list(table) == ["input", "height", "weight"]
    np.testing.assert_allclose(table.iloc[:, 1:].astype(float), values, rtol=1e-5)


def test_a_target_called_input_does_not_hide_the_names(out: Path) -> None:
    spec = make_spec(task="regression", classes=(), targets=("input",))
    write(torch.ones(3, 1), spec, out)
    assert read(out)["input"].tolist() == NAMES


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "-"]
HARMLESS = ["-3.5", "+1", "-.5e-3", "café", "a=b", " =1", "'quoted", "", "1-2"]


def test_a_spreadsheet_runs_no_cell_of_a_csv_file(out: Path) -> None:
    """Names, classes and targets are other people's texts; numbers stay numbers."""
    names = [*FORMULAS, *HARMLESS]
    spec = make_spec(classes=("=HYPERLINK(1)", "-3"))
    halves = torch.tensor([[0.75, 0.25]] * len(names))
    module._write(pd.DataFrame(module._columns(names, halves, spec)), out)
    is_csv = out.suffix == ".csv"
    if is_csv:
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = read(out).to_dict("records")
    mark = "'" if is_csv else ""
    shown = [mark + (n.replace("\r", "\n") if is_csv else n) for n in FORMULAS]
    assert [row["input"] for row in rows] == shown + HARMLESS
    assert {row["prediction"] for row in rows} == {f"{mark}=HYPERLINK(1)"}
    assert {float(row["confidence"]) for row in rows} == {0.75}
    if is_csv:
        spec = make_spec(task="regression", classes=(), targets=("=now()", "-5"))
        write(-torch.ones(3, 2), spec, out)
        assert out.read_text().splitlines()[0] == "input,'=now(),-5"
        assert out.read_text().splitlines()[1] == "b.png,-1,-1"


def test_json_lines_are_readable_as_they_are(tmp_path: Path) -> None:
    write(PROBABILITIES, CLASSES, tmp_path / "x.jsonl")
    assert "café" in (tmp_path / "x.jsonl").read_text(encoding="utf-8")


def test_nothing_else_is_left_and_others_may_read_it(out: Path) -> None:
    old = os.umask(0o022)
    try:
        write(PROBABILITIES, CLASSES, out)
    finally:
        os.umask(old)
    assert os.listdir(out.parent) == [out.name]
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(
    out: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write(PROBABILITIES, CLASSES, out)
    before = out.read_bytes()

    def fail(_: object, path: Path, **__: object) -> None:
        Path(path).write_text("half")
        raise error

    for method in ("to_csv", "to_json", "to_parquet"):
        monkeypatch.setattr(pd.DataFrame, method, fail)
    expected = EnvironmentFault if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write(PROBABILITIES, CLASSES, out)
    assert out.read_bytes() == before
    assert os.listdir(out.parent) == [out.name]
    if isinstance(caught.value, EnvironmentFault):
        assert caught.value.exit_code == 5
        assert "disk full" in caught.value.what


def test_a_folder_in_the_way(out: Path) -> None:
    out.mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match="cannot write"):
        write(PROBABILITIES, CLASSES, out)
    assert os.listdir(out.parent) == [out.name]


@pytest.mark.parametrize("name", ["x", "x.xlsx", "x.json"])
def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot write") as caught:
        module.predict("no-such-run", tmp_path / "no-such-input", tmp_path / name)
    assert ".parquet" in caught.value.fix


@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
def test_rows_keep_the_order_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """With a network that gives back its inputs, in batches of two."""
    values = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.0, 1.0]])
    np.save(tmp_path / "x.npy", values)
    config = SimpleNamespace(loader=SimpleNamespace(eval_batch_size=2))
    loaded = SimpleNamespace(metadata=SimpleNamespace(spec=CLASSES, config=config))
    sizes = []

    class Repeat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return x

        def predict(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs

    monkeypatch.setattr(module, "find", lambda _: SimpleNamespace(checkpoint=Path("x")))
    monkeypatch.setattr(module, "load_task", lambda *_: (loaded, Repeat()))
    out = tmp_path / f"out{suffix}"
    assert module.predict("run", tmp_path / "x.npy", out) == 5
    table = pd.read_csv(out)
    assert sizes == [2, 2, 1]
    assert table["input"].tolist() == [f"x.npy:{row}" for row in range(5)]
    np.testing.assert_allclose(table.iloc[:, 3:], values, rtol=1e-5)
    assert table["prediction"].tolist() == [CLASSES.classes[i] for i in values.argmax(1)]
