"""A user's new tables: read by name, encoded by what was fitted on train."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from litlab.config.compose import load
from litlab.data.inputs.read_input import read_input
from litlab.data.prepare.prepare import prepare
from litlab.data.spec import DataSpec
from litlab.utils.errors import DataError


def people(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.uniform(18, 90, rows).round(2),
            "job": rng.choice(["clerk", "boss", "cook"], rows),
            "hours": rng.normal(40, 5, rows).round(2),
            "rich": rng.choice(["no", "yes"], rows),
        }
    )
    holes = np.arange(3) == rng.integers(0, 20, rows)[:, None]  # one in a row: no two are the same
    frame[["age", "job", "hours"]] = frame[["age", "job", "hours"]].mask(holes)
    return frame


def prepared(folder: Path, *overrides: str, **csv: Any) -> DataSpec:
    people().to_csv(folder / "train.csv", index=False, **csv)
    config = load(
        ["data=table", f"data.path={folder / 'train.csv'}", "data.source.target=rich", *overrides]
    )
    return prepare(config.data, folder / "prepared")


SETTINGS = ["data.source.impute=median", "data.source.scale=quantile"]


@pytest.fixture
def spec(project, tmp_path) -> DataSpec:
    return prepared(tmp_path, *SETTINGS)


def refused(path: Path, spec: DataSpec) -> DataError:
    with pytest.raises(DataError) as caught:
        read_input(path, spec)
    assert caught.value.where == str(path)
    return caught.value


@pytest.mark.parametrize("name", ["new.csv", "new.tsv", "new.txt", "new.parquet"])
def test_new_rows_are_stored_as_prepare_stores_them(tmp_path, spec, name) -> None:
    from safetensors.numpy import load_file

    columns = ["hours", "extra", "age", "job"]  # another order, one more, and no target
    frame = people().assign(extra="2020-01-01")[columns]
    if name == "new.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, sep="\t" if name == "new.tsv" else ";")
    with pytest.warns(UserWarning, match=r"new\.\w+: missing cells filled: age \d+, hours"):
        names, values = read_input(tmp_path / name, spec)
    first = 0 if name == "new.parquet" else 2  # a line, below the header
    assert names == [f"{name}:{first + row}" for row in range(200)]
    assert values.dtype == np.float32
    for split in ("train", "val", "test"):
        stored = load_file(tmp_path / "prepared" / f"{split}.safetensors")
        np.testing.assert_array_equal(values[stored["source_index"]], stored["x"])
    assert spec.features == ("age", "hours", "job")
    assert spec.cardinalities == (5,)  # unseen, <missing>, boss, clerk, cook
    assert (spec.mean[-1], spec.std[-1]) == (0, 1)


def test_values_that_train_lacks_are_counted(tmp_path, spec) -> None:
    frame = people().dropna().assign(job="astronaut")
    frame.to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(UserWarning, match=f"values not seen in train: job {len(frame)}"):
        _, values = read_input(tmp_path / "new.csv", spec)
    assert not values[:, 2].any()


def test_a_misspelt_column_is_named_with_the_nearest(tmp_path, spec) -> None:
    people().rename(columns={"hours": "Hour"}).to_csv(tmp_path / "new.csv", index=False)
    error = refused(tmp_path / "new.csv", spec)
    assert error.what == "the file has 'Hour', the model was trained with 'hours'"
    assert error.fix == "rename it to 'hours'"


def test_missing_cells_are_refused_where_train_had_none(tmp_path, project) -> None:
    full = people().dropna()
    full.to_csv(tmp_path / "full.csv", index=False)
    path = tmp_path / "full.csv"
    config = load(["data=table", f"data.path={path}", "data.source.target=rich"])
    spec = prepare(config.data, tmp_path / "prepared")
    people().to_csv(tmp_path / "new.csv", index=False)
    counts = people().isna().sum()
    error = refused(tmp_path / "new.csv", spec)
    assert error.what == (
        f"missing cells: age {counts['age']}, hours {counts['hours']}, job {counts['job']}"
    )
    assert "data.source.impute=median" in error.fix


@pytest.mark.parametrize("cell", ["forty", "inf", "1e999"])
def test_a_cell_that_is_no_number_is_named(tmp_path, spec, cell) -> None:
    frame = people().dropna().reset_index(drop=True).astype({"age": object})
    frame.loc[3, "age"] = cell
    frame.to_csv(tmp_path / "new.csv", index=False)
    error = refused(tmp_path / "new.csv", spec)
    assert error.what == f"column 'age' has cells that are not finite numbers: new.csv:5 '{cell}'"


def test_bytes_that_are_no_text_and_rows_that_are_too_long(tmp_path, spec) -> None:
    path = tmp_path / "new.csv"
    path.write_bytes(b"age,job,hours\n1,\xff,2\n")
    assert refused(path, spec).what == "not UTF-8 at byte 16"
    path.write_bytes(b"age,job,hours\n1,cook,2\n1,cook,2,3\n")
    assert refused(path, spec).what == "line 3 has 4 cells, the others 3: 1,cook,2,3"
    path.write_bytes(b"age,job,hours\n")
    assert "shape (0, 3)" in refused(path, spec).what


def test_arrays_know_nothing_of_categories(tmp_path, spec) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 3)))
    assert "an array cannot hold a table's categories" in refused(tmp_path / "x.npy", spec).what


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("target", [True, False])
def test_new_files_need_a_header_as_little_as_the_old_one(
    tmp_path, project, header, target
) -> None:
    names = "[age,job,hours,rich]"
    spec = prepared(
        tmp_path,
        *("data.source.header=false", f"data.source.names={names}", "data.source.delimiter=';'"),
        *("data.source.impute=mean", "data.source.decimal=','"),
        header=False,
        sep=";",
        decimal=",",
    )
    frame = people().dropna()[["age", "job", "hours", "rich"][: 4 if target else 3]]
    frame.to_csv(tmp_path / "new.csv", index=False, header=header, sep=";", decimal=",")
    _, values = read_input(tmp_path / "new.csv", spec)
    np.testing.assert_array_equal(values[:, :2], frame[["age", "hours"]].astype(np.float32))
    codes = np.searchsorted(["<missing>", "boss", "clerk", "cook"], frame["job"]) + 1
    np.testing.assert_array_equal(values[:, 2], codes)


def test_targets_of_a_regression_keep_their_unit(tmp_path, project) -> None:
    frame = people().dropna()
    frame.to_csv(tmp_path / "train.csv", index=False)
    overrides = ["data.source.target=hours", "task=regression", "data.stratify=false"]
    config = load(["data=table", f"data.path={tmp_path / 'train.csv'}", *overrides])
    spec = prepare(config.data, tmp_path / "prepared")
    assert spec.task == "regression"
    assert spec.targets == ("hours",)
    assert spec.target_mean[0] == pytest.approx(40, abs=1.5)
    assert spec.target_std[0] == pytest.approx(5, abs=1)
    assert spec.features == ("age", "job", "rich")


def test_groups_stay_together_and_are_no_feature(tmp_path, project) -> None:
    from safetensors.numpy import load_file

    frame = people().dropna().reset_index(drop=True)
    frame["patient"] = np.random.default_rng(1).integers(0, 40, len(frame))
    frame.to_csv(tmp_path / "train.csv", index=False)
    path = f"data.path={tmp_path / 'train.csv'}"
    config = load(["data=table", path, "data.source.target=rich", "data.group=patient"])
    spec = prepare(config.data, tmp_path / "prepared")
    assert "patient" not in spec.features
    splits = [
        load_file(tmp_path / "prepared" / f"{s}.safetensors") for s in ("train", "val", "test")
    ]
    groups = [set(frame["patient"][split["source_index"]]) for split in splits]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_past_is_trained_on(tmp_path, project) -> None:
    from safetensors.numpy import load_file

    frame = people().dropna().reset_index(drop=True)
    days = np.random.default_rng(1).permutation(len(frame))
    frame["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
    frame.to_csv(tmp_path / "train.csv", index=False)
    path, time = f"data.path={tmp_path / 'train.csv'}", ["data.time=when", "data.stratify=false"]
    config = load(["data=table", path, "data.source.target=rich", *time])
    spec = prepare(config.data, tmp_path / "prepared")
    assert "when" not in spec.features
    files = [
        load_file(tmp_path / "prepared" / f"{s}.safetensors") for s in ("train", "val", "test")
    ]
    spans = [days[file["source_index"]] for file in files]
    assert spans[0].max() < spans[1].min() <= spans[1].max() < spans[2].min()
