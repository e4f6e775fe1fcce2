"""The source for anybody's tables: which columns are what, and what no network should be fed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from litlab.config.compose import load
from litlab.data.raw import Raw
from litlab.data.sources.table import Table
from litlab.utils.errors import DataError, EnvironmentFault

ADULT = Path(__file__).parents[3] / "shared" / "data" / "adult"
PEOPLE = pd.DataFrame(
    {
        "age": [39, 50, 38, 53, 28],
        "job": ["clerk", "boss", "clerk", "clerk", "cook"],
        "hours": [40.0, 13.5, 40.0, 40.0, 40.0],
        "rich": ["no", "yes", "no", "no", "yes"],
    }
)


def save(frame: pd.DataFrame, folder: Path, name: str = "x.csv", **more: Any) -> Path:
    path = folder / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False, **more)
    return path


def read(path: Path, target: str | list[str] = "rich", **settings: Any) -> Raw:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return Table(path=str(path), target=target, **settings).read(scratch)


def refused(frame: pd.DataFrame, folder: Path, target: str = "rich", **settings: Any) -> DataError:
    path = save(frame, folder)
    with pytest.raises(DataError) as caught:
        read(path, target, **settings)
    assert caught.value.exit_code == 3
    assert caught.value.where.startswith((str(path), "data."))
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


def decided(raw: Raw) -> dict[str, Any]:
    return {decision.setting: decision.value for decision in raw.reading.decisions}


def texts(length: int) -> list[str]:
    return [f"comment number {i}" for i in range(length)]


# Columns


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet"])
def test_numbers_categories_and_classes(tmp_path, name) -> None:
    raw = read(save(PEOPLE, tmp_path, name))
    x, y = raw.parts["all"]
    assert raw.kind == "tabular"
    assert raw.task == "classification"
    assert raw.classes == ["no", "yes"]
    assert y.tolist() == [0, 1, 0, 0, 1]
    assert raw.encoder.numeric == ["age", "hours"]
    assert raw.encoder.categorical == ["job"]
    pd.testing.assert_frame_equal(
        x[np.array([3, 0])],
        PEOPLE.iloc[[3, 0]][["age", "hours", "job"]].reset_index(drop=True),
        check_dtype=False,
    )
    assert raw.files == [tmp_path / name]
    assert raw.origin == str(tmp_path / name)


def test_the_users_word_counts(tmp_path) -> None:
    raw = read(save(PEOPLE, tmp_path), categorical=("age",), drop=("hours",))
    assert raw.encoder.numeric == []
    assert raw.encoder.categorical == ["age", "job"]
    codes = PEOPLE.assign(age=[f"0{age}" for age in PEOPLE["age"]])
    raw = read(save(codes, tmp_path), categorical=("age",))
    assert raw.parts["all"][0][np.array([0])]["age"].tolist() == ["039"]


def test_the_index_that_pandas_writes_is_no_feature(tmp_path) -> None:
    PEOPLE.to_csv(tmp_path / "x.csv")
    assert read(tmp_path / "x.csv").encoder.numeric == ["age", "hours"]
    PEOPLE.iloc[[3, 1]].to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").encoder.numeric == ["age", "hours"]


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ({"target": "richh"}, "data.source.target"),
        ({"drop": ("richh",)}, "data.source.drop"),
        ({"numeric": ("richh",)}, "data.source.numeric"),
        ({"categorical": ("richh",)}, "data.source.categorical"),
        ({"group": "richh"}, "data.group"),
        ({"time": "richh"}, "data.time"),
    ],
)
def test_a_wrong_column_is_named_with_the_nearest(tmp_path, option, setting) -> None:
    path = save(PEOPLE, tmp_path)
    with pytest.raises(DataError) as caught:
        read(path, **({"target": "job"} | option))
    assert caught.value.what == "there is no column 'richh'"
    assert caught.value.where == f"{path}, {setting}"
    assert caught.value.fix == "did you mean 'rich'?"


def test_a_column_twice(tmp_path) -> None:
    twice = pd.concat([PEOPLE, PEOPLE[["age"]]], axis=1)
    raw = read(save(twice, tmp_path))
    assert raw.encoder.numeric == ["age", "hours", "age.1"]
    names = ["age", "job", "hours", "rich", "age.1"]
    assert decided(raw) == {"data.source.names": names}
    assert read(save(twice, tmp_path), drop=("age",)).encoder.numeric == ["hours", "age.1"]


def test_nothing_left_to_learn_from(tmp_path) -> None:
    error = refused(PEOPLE, tmp_path, drop=("age", "job", "hours"))
    assert error.what.startswith("no feature column is left: age (data.source.drop); ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": []}, "target is empty"),
        ({"target": "job", "drop": ("job",)}, "'job' is in target and in drop"),
        ({"categorical": ("age",), "numeric": ("age",)}, "'age' is in numeric and in categorical"),
        ({"delimiter": ""}, "delimiter is empty"),
        ({"comment": ""}, "comment is empty"),
    ],
)
def test_settings_that_contradict(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Table(**({"path": "x.csv", "target": "rich"} | settings))


def test_no_such_file(tmp_path, project) -> None:
    with pytest.raises(EnvironmentFault, match="there is no such file"):
        Table(path="data/none.csv", target="y").read(tmp_path)


# What is refused


@pytest.mark.parametrize(
    "dates",
    [
        ["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01", None],
        ["2020-01-01 10:00"] * 5,
        ["2020-01-01T10:00:00.123Z"] * 5,
        ["1/2/2020", "12/31/2020", "3/4/2021", "5/6/2021", "7/8/2021"],
        ["31.12.2020"] * 5,
        pd.date_range("2020-01-01", periods=5),
    ],
    ids=lambda dates: str(dates[0]),
)
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_dates_become_numbers(tmp_path, dates, name) -> None:
    path = save(PEOPLE.assign(when=dates), tmp_path, name)
    raw = read(path)
    parts = [name for name in raw.encoder.numeric if name.startswith("when ")]
    left_out = raw.reading.left_out.get("when", "")
    assert bool(parts) != left_out.startswith("always ")
    if "12/31/2020" in list(dates):
        assert decided(raw)["data.source.dates"] == {"when": "%m/%d/%Y"}
        assert raw.parts["all"][0][np.arange(5)]["when year"].tolist() == [2020] * 2 + [2021] * 3
    assert read(path, drop=("when",)).encoder.numeric == ["age", "hours"]


@pytest.mark.parametrize("rows", [25, 1500])
def test_free_text_is_left_out(tmp_path, rows) -> None:
    many = PEOPLE.sample(rows, replace=True, random_state=0)
    many = many.assign(**{"Full name": texts(rows), "note": texts(rows), "hours": "much"})
    raw = read(save(many, tmp_path), drop=("hours",))
    values = "25 different values" if rows == 25 else "over 1000 different values"
    why = f"free text: {values} in {rows} cells, such as 'comment number 0'"
    reasons = {"hours": "data.source.drop", "Full name": why, "note": why}
    assert raw.reading.left_out == reasons
    assert decided(raw)["data.source.drop"] == list(reasons)
    kept = read(save(many, tmp_path), categorical=("Full name", "note"))
    assert kept.encoder.categorical == ["job", "Full name", "note"]


def test_few_rows_of_different_values_may_be_categories(tmp_path) -> None:
    assert "note" in read(save(PEOPLE.assign(note=texts(5)), tmp_path)).encoder.categorical


def test_more_categories_than_a_network_should_have(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("litlab.data.sources.table.MOST_CATEGORIES", 3)
    error = refused(PEOPLE.assign(note=texts(5)), tmp_path, categorical=("note",))
    assert error.what == "column 'note' has over 3 different values"


def test_numbers_but_for_a_few_cells(tmp_path) -> None:
    ages = PEOPLE.assign(age=["39", "50", "unknown", "53", "28"])
    raw = read(save(ages, tmp_path))
    assert raw.encoder.numeric == ["age", "hours", "age missing"]
    assert decided(raw) == {
        "data.source.numeric": ["age"],
        "data.source.impute": "indicator",
    }
    x = raw.parts["all"][0][np.arange(5)]
    assert np.isnan(x["age"]).tolist() == [False, False, True, False, False]
    assert x["age missing"].tolist() == [0, 0, 1, 0, 0]
    assert "age" in read(save(ages, tmp_path), categorical=("age",)).encoder.categorical
    error = refused(PEOPLE, tmp_path, numeric=("job",))
    assert "5 cells that are not numbers (x.csv:2 'clerk', x.csv:3 'boss', " in error.what
    assert "data.source.categorical=[job]" in error.fix


@pytest.mark.parametrize(
    ("cells", "decimal", "numbers"),
    [
        (["1,5", "2,25", "3", "4,5", "-200"], ",", [1.5, 2.25, 3, 4.5, -200]),
        (["1,234", "999", "3,234", "4,234", "5,234.5"], ".", [1234, 999, 3234, 4234, 5234.5]),
    ],
)
def test_numbers_with_commas(tmp_path, cells, decimal, numbers) -> None:
    path = save(PEOPLE.assign(price=cells), tmp_path)
    for settings in ({}, {"decimal": {"price": decimal}}):
        raw = read(path, **settings)
        assert raw.parts["all"][0][np.arange(5)]["price"].tolist() == numbers
        assert raw.parts["all"][0][np.arange(5)]["hours"].tolist() == PEOPLE["hours"].tolist()
    hours = PEOPLE["hours"].astype(str).str.replace(".", ",")
    path = save(PEOPLE.assign(hours=hours), tmp_path, sep=";")
    for settings in ({}, {"decimal": ","}):
        raw = read(path, **settings)
        np.testing.assert_array_equal(raw.parts["all"][0][np.arange(5)]["hours"], PEOPLE["hours"])


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400", "1e39"])
def test_infinite_numbers(tmp_path, cell) -> None:
    hours = [str(hours) for hours in PEOPLE["hours"]]
    error = refused(PEOPLE.assign(hours=[*hours[:4], cell]), tmp_path)
    assert error.what.startswith("column 'hours' has 1 infinite numbers (x.csv:6 ")


def test_empty_and_constant_columns_are_left_out(tmp_path) -> None:
    raw = read(save(PEOPLE.assign(none=None, same="x"), tmp_path))
    assert raw.reading.left_out == {"none": "empty", "same": "always 'x'"}
    error = refused(PEOPLE.assign(none=None), tmp_path, categorical=("none",))
    assert error.what == "column 'none' is empty"
    assert error.fix == "data.source.drop=[none]"


def test_missing_cells_are_counted_unless_imputed(tmp_path) -> None:
    holes = PEOPLE.assign(age=[39, None, None, 53, 28], job=["clerk", "?", "cook", "clerk", "NA"])
    error = refused(holes, tmp_path, impute="refuse")
    assert error.what == "missing cells: age 2, job 2"
    assert "data.source.impute=median" in error.fix
    raw = read(save(holes, tmp_path), impute="mean")
    assert raw.parts["all"][0][np.arange(5)].isna().sum().to_dict() == {
        "age": 2,
        "hours": 0,
        "job": 2,
    }


# Targets


def test_missing_targets_are_named(tmp_path) -> None:
    lacking = PEOPLE.assign(rich=["no", None, "yes", "", "?"])
    error = refused(lacking, tmp_path, missing_target="refuse")
    assert error.what == "3 rows lack the target 'rich', first x.csv:3, x.csv:5, x.csv:6"
    raw = read(save(lacking, tmp_path))
    assert raw.parts["all"][1].tolist() == [0, 1]
    assert raw.parts["all"][0][np.arange(2)]["age"].tolist() == [39, 38]
    decision = raw.reading.decisions[0]
    assert decision.value == "drop"
    assert decision.why == "3 of 5 rows have no rich, first x.csv:3, x.csv:5"
    many = PEOPLE.sample(40, replace=True, random_state=0).assign(rich=[None] * 30 + ["no"] * 10)
    error = refused(many, tmp_path, missing_target="refuse")
    assert error.what == (
        "30 rows lack the target 'rich', first x.csv:2, x.csv:3, x.csv:4, x.csv:5, x.csv:6"
    )


def test_a_single_class(tmp_path) -> None:
    error = refused(PEOPLE.assign(rich="no"), tmp_path)
    assert error.what == "the target 'rich' has a single class, 'no'"


@pytest.mark.parametrize(
    ("cells", "settings", "classes"),
    [
        (["no", "yes", "no", "no", "yes"], {}, ["no", "yes"]),
        ([10, 9, 10, 10, 9], {}, ["9", "10"]),
        ([True, False, True, True, False], {}, ["False", "True"]),
        ([0.5, 1.5, 0.5, 0.5, 1.5], {"task": "classification"}, ["0.5", "1.5"]),
        (["no.", "yes.", "no", "no", "yes"], {"label_suffix": "."}, ["no", "yes"]),
        (["b", "a", "10", "9", "a"], {}, ["10", "9", "a", "b"]),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_classes(tmp_path, cells, settings, classes, name) -> None:
    raw = read(save(PEOPLE.assign(rich=cells), tmp_path, name), **settings)
    assert raw.task == "classification"
    assert raw.classes == classes
    suffix = settings.get("label_suffix", "?")
    named = [classes[code] for code in raw.parts["all"][1]]
    assert named == [str(cell).removesuffix(suffix) for cell in cells]
    guessed = {"data.source.task": "classification"} if cells[0] == 10 else {}
    assert decided(raw) == guessed


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_numbers_to_predict(tmp_path, name) -> None:
    path = save(PEOPLE, tmp_path, name)
    raw = read(path, "hours")
    assert raw.task == "regression"
    assert raw.targets == ["hours"]
    assert raw.classes == []
    np.testing.assert_array_equal(raw.parts["all"][1], PEOPLE[["hours"]])
    raw = read(path, ["hours", "age"])
    np.testing.assert_array_equal(raw.parts["all"][1], PEOPLE[["hours", "age"]])
    assert read(path, "age", task="regression").task == "regression"
    many = PEOPLE.sample(40, replace=True, random_state=0).assign(age=range(40))
    assert read(save(many, tmp_path, name), "age").task == "regression"


@pytest.mark.parametrize(
    ("cells", "settings", "message"),
    [
        (["1.5", "2", "3x4", "4", "5"], {"task": "regression"}, "not numbers (x.csv:4 '3x4')"),
        (["1.5", "2", "inf", "4", "5"], {}, "1 targets 'rich' are infinite (x.csv:4 inf)"),
        ([""] * 5, {}, "no row has a target: 5 of 5 rows have no rich, first x.csv:2, x.csv:3"),
        (["a", "b", "c", "d", "e"], {"max_categories": 4}, "over 4 different labels"),
    ],
)
def test_targets_that_cannot_be_predicted(tmp_path, cells, settings, message) -> None:
    assert message in refused(PEOPLE.assign(rich=cells), tmp_path, **settings).what


def test_several_classes_to_predict(tmp_path) -> None:
    error = refused(PEOPLE, tmp_path, ["job", "rich"], task="classification")
    assert error.what == "2 targets that are classes"


# Parts


def test_files_of_their_own_for_val_and_test(tmp_path) -> None:
    train = save(PEOPLE, tmp_path)
    others = PEOPLE[["rich", "hours", "job", "age"]].assign(
        rich=["no", "yes", "maybe"] + ["no"] * 2
    )
    test = save(others.assign(more=1), tmp_path, "test.csv")
    raw = read(train, val_path=str(train), test_path=str(test))
    assert list(raw.parts) == ["train", "val", "test"]
    assert raw.classes == ["maybe", "no", "yes"]
    assert raw.parts["test"][1].tolist() == [1, 2, 0, 1, 1]
    assert raw.parts["test"][0][np.array([1])].iloc[0].tolist() == [50, 13.5, "boss"]
    save(others.rename(columns={"age": "Age"}), tmp_path, "test.csv")
    with pytest.raises(DataError) as caught:
        read(train, test_path=str(test))
    what = f"the file has 'Age', '{train.name}' has 'age'"
    assert str(caught.value) == f"error: {what} | {test} | rename it to 'age'"


def test_a_column_is_numeric_if_it_is_in_every_part(tmp_path) -> None:
    train = save(PEOPLE, tmp_path)
    odd = PEOPLE.assign(age=["3-9", "x1", "1", "y2", "z3"])
    test = save(odd, tmp_path, "test.csv")
    with pytest.raises(DataError, match=r"4 cells that are not numbers \(test.csv:2 '3-9'"):
        read(train, test_path=str(test), numeric=("age",))
    assert read(train, test_path=str(test)).encoder.numeric == ["hours"]


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_groups_and_times_are_handed_to_the_split(tmp_path, name) -> None:
    patients = PEOPLE.assign(
        patient=["p2", "p1", "p2", "p3", "p1"],
        when=pd.date_range("2020-01-01", periods=5, tz="UTC"),
    )
    raw = read(save(patients, tmp_path, name), group="patient", time="when")
    assert raw.encoder.numeric + raw.encoder.categorical == ["age", "hours", "job"]
    columns = raw.columns["all"]
    assert columns["patient"].tolist() == ["p2", "p1", "p2", "p3", "p1"]
    day = 24 * 3600 * 10**9
    assert columns["when"].tolist() == [1577836800 * 10**9 + i * day for i in range(5)]
    raw = read(save(patients, tmp_path, name), time="age", drop=("when", "patient"))
    assert raw.columns["all"]["age"].tolist() == PEOPLE["age"].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "job"}, "1 rows lack the data.group 'job', first x.csv:3"),
        ({"time": "job"}, "data.time: column 'job' cannot be ordered"),
        ({"time": "age"}, "1 rows lack the data.time 'age', first x.csv:4"),
    ],
)
def test_what_cannot_be_split_by(tmp_path, settings, message) -> None:
    jobs = ["clerk", None if "group" in settings else "x", "clerk", "clerk", "cook"]
    holes = PEOPLE.assign(job=jobs, age=[39, 50, None, 53, 28])
    assert message in refused(holes, tmp_path, **settings, impute="median").what


def test_times_of_parquet_types(tmp_path) -> None:
    seconds = pa.array([3, 1, 2])
    for kind in (pa.timestamp("s"), pa.date32(), pa.time32("s"), pa.duration("s")):
        cells = (
            seconds.cast(pa.int32()).cast(kind)
            if kind == pa.date32()
            else seconds.cast(pa.int32() if kind == pa.time32("s") else pa.int64()).cast(kind)
        )
        table = pa.table({"when": cells, "x": [1.0, 2, 4], "y": ["a", "b", "a"]})
        pq.write_table(table, tmp_path / "x.parquet")
        times = read(tmp_path / "x.parquet", "y", time="when").columns["all"]["when"]
        assert np.argsort(times).tolist() == [1, 2, 0], kind


def test_adult_as_it_is_published(tmp_path) -> None:
    if not ADULT.is_dir():
        pytest.skip(f"UCI Adult is not in {ADULT}")
    from litlab.config.compose import load
    from litlab.config.instantiate import build

    config = load(["data=adult", f"data.path={ADULT}"])
    raw = build(config.data.source, where="data.source").read(scratch=tmp_path)
    assert raw.classes == ["<=50K", ">50K"]
    x, y = raw.parts["train"]
    assert len(x) == len(y) == 32_561
    assert len(raw.parts["test"][0]) == 16_281
    assert np.bincount(y).tolist() == [24_720, 7_841]  # adult.names: 23.93 % earn more
    assert len(raw.encoder.numeric) == 6
    raw.encoder.fit(lambda: iter([x[np.arange(len(x))]]))
    codes = [len(column.categories) for column in raw.encoder.describe()["columns"][6:]]
    assert sum(codes) == 102  # of RTDL's stored runs: 42,942 embedding parameters, 421 each


# Cells that hold nothing


@pytest.mark.parametrize(
    ("cells", "typed"),
    [
        (["39", "-200", "38", "-200.0", "28"], "-200"),
        (["39", "-200,0", "38", "-200", "2,8"], "-200.0"),
        (["39", "NuLL", "38", "Na", "28"], "NuLL"),
        (["39", "None", "38", "none", "28"], "none"),
        (["39", "true", "38", "True", "28"], "true"),
    ],
)
def test_na_values_as_they_are_typed(
    project: Path, tmp_path: Path, cells: list[str], typed: str
) -> None:
    path = save(PEOPLE.assign(age=cells), tmp_path)
    column = ["data=table", f"data.path={path}", "data.source.target=rich"]
    source = load([*column, f"data.source.na_values=[{typed}]"]).data.source
    settings = {key: source[key] for key in ("na_values", "target")}
    raw = read(path, **settings, impute="median", decimal="," if "," in cells[1] else ".")
    assert raw.encoder.numeric == ["age", "hours"]
    values = raw.parts["all"][0][np.arange(5)]["age"]
    assert np.isnan(values).tolist() == [False, True, False, True, False]


def test_na_values_count_among_numbers_of_parquet(tmp_path: Path) -> None:
    path = save(PEOPLE.assign(age=[39, -200, 38, -200, 28]), tmp_path, "x.parquet")
    raw = read(path, na_values=("-200",), impute="mean")
    assert np.isnan(raw.parts["all"][0][np.arange(5)]["age"]).sum() == 2


def test_columns_of_lists_structs_and_bytes(tmp_path: Path) -> None:
    frame = PEOPLE.assign(
        emb=[[float(i), 2.0 * i] for i in range(5)],
        uneven=[[1]] * 4 + [[1, 2]],
        place=[{"city": "x" if i % 2 else "z", "lat": float(i)} for i in range(5)],
        raw=[bytes([i]) for i in range(5)],
    )
    path = save(frame, tmp_path, "x.parquet")
    raw = read(path)
    assert raw.encoder.numeric == ["age", "hours", "emb.0", "emb.1", "place.lat"]
    assert raw.encoder.categorical == ["job", "place.city"]
    assert raw.parts["all"][0][np.array([3])]["emb.1"].tolist() == [6]
    assert raw.reading.left_out == {
        "uneven": "holds lists of several lengths",
        "raw": "holds binary",
    }
    assert read(path, drop=("emb", "raw", "uneven")).encoder.numeric[2:] == ["place.lat"]
    with pytest.raises(DataError, match="column 'raw' holds binary"):
        read(path, numeric=("raw",))


@pytest.mark.parametrize("option", ["drop", "group", "time"])
def test_a_numeric_column_is_nothing_else(option: str, tmp_path: Path) -> None:
    other = ("age",) if option == "drop" else "age"
    with pytest.raises(ValueError, match=f"column 'age' is in numeric and in {option}"):
        read(save(PEOPLE, tmp_path), numeric=("age",), **{option: other})
