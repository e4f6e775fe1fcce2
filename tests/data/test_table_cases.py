"""Tables as people have them: read at the first try, and what was found out is said.

Each case is read twice: with what it needs, and with what was decided written out. Both give the
same features, and nothing is left to decide the second time.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from litlab.config.compose import load
from litlab.data.inputs.read_input import read_input, read_values
from litlab.data.prepare.decisions import override
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Raw
from litlab.data.sources.table import Table
from litlab.data.sources.table_layout import SAMPLE
from litlab.utils.errors import DataError, LitlabError

ROWS = 40
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS).round(2)
PLAIN = [f"{x:g}" for x in X]
Y = ["yes", "no"] * (ROWS // 2)
AMOUNTS = [f"{y:.3f}" for y in RNG.random(ROWS)]


def lines(*columns: Any, header: str = "", delimiter: str = ",") -> str:
    rows = [delimiter.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


class Case(NamedTuple):
    """A file's content, and what must come out."""

    name: str
    content: str | bytes
    decided: dict[str, Any]
    numeric: list[str] = ["x"]  # noqa: RUF012
    categorical: list[str] = []  # noqa: RUF012
    settings: dict[str, Any] = {}  # noqa: RUF012
    rows: int = ROWS
    left_out: tuple[str, ...] = ()
    column: str = ""  # whose values are
    values: Any = None


def commas(cells: Any) -> list[str]:
    return [str(cell).replace(".", ",") for cell in cells]


NUMBER = [i * 37.5 - 200 for i in range(ROWS)]
NOTES = [f"a note of some length, number {i}" for i in range(ROWS)]
MONTHS = [pd.Timestamp(2016, 1 + i % 12, 1) for i in range(ROWS)]
CITIES = ["New York", "Bern"] * 20
DAYS = pd.date_range("2004-03-10", periods=ROWS, freq="25h")
CASES = [
    Case(
        "delimiter",
        lines(PLAIN, Y, header="x;y", delimiter=";"),
        {"delimiter": ";"},
        column="x",
        values=X,
    ),
    Case(
        "a quoted cell of several lines at the end of the sample",
        lines(
            [*PLAIN[:20], *PLAIN[:20]] * 6,
            ["ok"] * (SAMPLE - 3) + ['"one\ntwo;\nthree"'] + ["ok"] * (242 - SAMPLE),
            [*Y, *Y, *Y, *Y, *Y, *Y],
            header="x;note;y",
            delimiter=";",
        ),
        {"delimiter": ";"},
        categorical=["note"],
        rows=6 * ROWS,
    ),
    Case(
        "blanks of any number",
        "".join(f"  {x:>8}   {a:>7}  {y}\n" for x, a, y in zip(PLAIN, AMOUNTS, Y, strict=True)),
        {"delimiter": "whitespace", "header": False},
        ["column0", "column1"],
        settings={"target": "column2"},
        column="column0",
        values=X,
    ),
    Case(
        "fixed width",
        "".join(
            f"{a:<10}{b:<12}{y}\n"
            for a, b, y in [("x", "the city", "y"), *zip(PLAIN, CITIES, Y, strict=True)]
        ),
        {"delimiter": "fixed"},
        categorical=["the city"],
        column="x",
        values=X,
    ),
    Case(
        "no header",
        lines(commas(PLAIN), commas(AMOUNTS), delimiter=";"),
        {"delimiter": ";", "header": False, "decimal": ","},
        ["column0"],
        settings={"target": "column1"},
        column="column0",
        values=X,
    ),
    Case(
        "UTF-16 with tabs",
        lines(PLAIN, Y, header="größe\ty", delimiter="\t").encode("utf-16"),
        {"encoding": "utf-16", "delimiter": "tab"},
        ["größe"],
    ),
    Case(
        "cp1252",
        lines(PLAIN, ["süß", "für"] * 20, Y, header="x,é,y").encode("cp1252"),
        {"encoding": "cp1252"},
        categorical=["é"],
    ),
    Case("UTF-8 with a mark", b"\xef\xbb\xbf" + lines(PLAIN, Y, header="x,y").encode(), {}),
    Case(
        "titles above and totals below",
        "Sales\nas of 2020-01-05\n\n" + lines(PLAIN, Y, header="x,y") + "Total,\nSource: us\n",
        {"skip_start": 3, "skip_end": 2},
    ),
    Case(
        "blank rows and columns",
        lines(PLAIN, Y, [""] * ROWS, [""] * ROWS, header="x,y,,") + ",,,\n" * 9,
        {"drop": ["column2", "column3"]},
        left_out=("column2", "column3"),
    ),
    Case(
        "names twice",
        lines(PLAIN, AMOUNTS, Y, header="x,x,y"),
        {"names": ["x", "x.1", "y"]},
        ["x", "x.1"],
    ),
    Case("an index", lines(range(ROWS), PLAIN, Y, header=",x,y"), {}, left_out=("",)),
    Case(
        "row numbers",
        lines(range(1, ROWS + 1), PLAIN, Y, header="nr,x,y"),
        {"drop": ["nr"]},
        left_out=("nr",),
    ),
    Case(
        "row names as R writes them",
        lines([f'"{i}"' for i in range(1, ROWS + 1)], PLAIN, Y, header='"x","y"'),
        {},
        left_out=("",),
    ),
    Case(
        "decimal commas, whole numbers among them, beside points",
        lines(commas(NUMBER), AMOUNTS, Y, header="x;p;y", delimiter=";"),
        {"delimiter": ";", "decimal": {"x": ","}},
        ["x", "p"],
        column="x",
        values=NUMBER,
    ),
    Case(
        "points between thousands",
        lines([f"1.2{i:02},50 €" for i in range(ROWS)], Y, header="x;y", delimiter=";"),
        {"delimiter": ";", "decimal": ",", "numeric": ["x"]},
        column="x",
        values=[1200.5 + i for i in range(ROWS)],
    ),
    Case(
        "currency and per cent",
        lines(
            [f'"$1,2{i:02}.50"' for i in range(ROWS)],
            [f"{i}%" for i in range(ROWS)],
            Y,
            header="x,p,y",
        ),
        {"numeric": ["x", "p"]},
        ["x", "p"],
        column="x",
        values=[1200.5 + i for i in range(ROWS)],
    ),
    Case(
        "numbers in parentheses and with narrow blanks",
        lines([f"({i})" if i % 2 else f"{i + 1}\u202f000" for i in range(ROWS)], Y, header="x,y"),
        {"numeric": ["x"]},
        column="x",
        values=[-i if i % 2 else 1000 * (i + 1) for i in range(ROWS)],
    ),
    Case(
        "marks of missing cells",
        lines(["-", "None", *PLAIN[2:]], ["n/a", "", *AMOUNTS[2:]], Y, header="x,p,y"),
        {"numeric": ["x"], "impute": "indicator"},
        ["x", "p", "x missing", "p missing"],
        column="x missing",
        values=[1, 1] + [0] * (ROWS - 2),
    ),
    Case(
        "rows without a target",
        lines(PLAIN, ["", *Y[1:]], header="x,y"),
        {"missing_target": "drop"},
        rows=ROWS - 1,
        column="x",
        values=X[1:],
    ),
    Case(
        "a target of numbers with marks",
        lines(PLAIN, ["-", *commas(AMOUNTS[1:])], header="x;y", delimiter=";"),
        {"delimiter": ";", "decimal": {"y": ","}, "missing_target": "drop"},
        rows=ROWS - 1,
    ),
    Case(
        "names, identifiers, constants",
        lines(
            PLAIN,
            [f"A{i * 7919 % 1000}/{i}" for i in range(ROWS)],
            [f'"{n}"' for n in NOTES],
            ["same"] * ROWS,
            Y,
            header="x,ticket,note,c,y",
        ),
        {"drop": ["ticket", "note", "c"]},
        left_out=("ticket", "note", "c"),
    ),
    Case(
        "drop holds what is set",
        lines(PLAIN, NUMBER, [f'"{n}"' for n in NOTES], Y, header="x,p,note,y"),
        {"drop": ["p", "note"]},
        settings={"drop": ["p"]},
        left_out=("p", "note"),
    ),
    Case(
        "postcodes and customer numbers",
        lines(
            PLAIN,
            ["01067", "80331"] * 20,
            [f"{i * 7919 % 1000:05}" for i in range(ROWS)],
            Y,
            header="x,plz,customer,y",
        ),
        {"categorical": ["plz"], "drop": ["customer"]},
        categorical=["plz"],
        left_out=("customer",),
        column="plz",
        values=["01067", "80331"] * 20,
    ),
    Case(
        "codes are no numbers",
        lines(
            PLAIN,
            *(cells * 20 for cells in (["1a", "2b"], ["Q1", "Q2"], ["0", "1a"], ["0", "3+"])),
            Y,
            header="x,a,b,c,d,y",
        ),
        {},
        categorical=["a", "b", "c", "d"],
    ),
    Case(
        "days and hours",
        lines(
            DAYS.strftime("%d/%m/%Y"),
            DAYS.strftime("%H.%M.%S"),
            Y,
            header="d;t;y",
            delimiter=";",
        ),
        {"delimiter": ";", "dates": {"d": "%d/%m/%Y", "t": "%H.%M.%S"}},
        [
            *("d days", "d month sin", "d month cos", "d weekday sin", "d weekday cos"),
            *("t hour sin", "t hour cos"),
        ],
        column="t hour cos",
        values=np.cos(2 * np.pi * DAYS.hour / 24),
    ),
    *(
        Case(
            f"months as {form}",
            lines(PLAIN, [month.strftime(form) for month in MONTHS], Y, header="x,d,y"),
            {"dates": {"d": form}},
            ["x", "d days", "d month sin", "d month cos"],
        )
        for form in ("%Y-%m", "%b-%y", "%Y%m%d")
    ),
    Case(
        "mixed dates",
        lines(PLAIN, ["2016-08", "Aug-17"] * 20, Y, header="x,d,y"),
        {"dates": {"d": "%Y-%m|%b-%y"}},
        ["x", "d year", "d days"],
        column="d year",
        values=[2016, 2017] * 20,
    ),
    Case(
        "whole numbers to predict",
        lines(PLAIN, range(ROWS), header="x,y"),
        {"task": "regression"},
    ),
]


def read(path: Path, settings: dict[str, Any]) -> Raw:
    (path.parent / "scratch").mkdir(exist_ok=True)
    given = {"target": "y"} | settings
    return Table(path=str(path), **given).read(path.parent / "scratch")


def decided(raw: Raw) -> dict[str, Any]:
    return {d.setting.removeprefix("data.source."): d.value for d in raw.reading.decisions}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_table_is_read_at_the_first_try(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "x.csv"
    content = case.content if isinstance(case.content, bytes) else case.content.encode()
    path.write_bytes(content)
    raw = read(path, case.settings)
    assert decided(raw) == case.decided
    assert all(d.why for d in raw.reading.decisions)
    assert raw.encoder.numeric == case.numeric
    assert raw.encoder.categorical == case.categorical
    assert tuple(raw.reading.left_out) == case.left_out
    x, y = raw.parts["all"]
    assert len(x) == len(y) == case.rows
    frame = x[np.arange(len(x))]
    if case.column:
        found, expected = frame[case.column].tolist(), list(case.values)
        assert found == (expected if isinstance(expected[0], str) else pytest.approx(expected))
    again = read(path, case.settings | case.decided)
    assert decided(again) == {}
    pd.testing.assert_frame_equal(again.parts["all"][0][np.arange(case.rows)], frame)
    np.testing.assert_array_equal(again.parts["all"][1], y)
    raw.encoder.fit(lambda: iter([frame]))
    assert np.isfinite(raw.encoder.encode(frame)).all()


@pytest.mark.parametrize(
    ("header", "cells", "setting", "value", "why"),
    [
        ("x,p,y", [-200, *NUMBER[7:46]], "data.source.na_values", None, ""),
        ("x,p,y", [-200, -200, *range(38)], "data.source.na_values", ["-200"], "p 2"),
        ("x,patient_id,y", [i // 5 for i in range(ROWS)], "data.group", "patient_id", "5.0 rows"),
        ("x,p,y", DAYS.date, "data.time", "p", "later"),
        ("x,p,y", [7 + 3 * i for i in range(ROWS)], "data.source.drop", ["p"], "row numbers"),
        ("x,p,y", ["2 kg", "3 lb"] * 20, "data.source.categorical", ["p"], "several units"),
    ],
)
def test_settings_are_suggested(
    tmp_path: Path, header: str, cells: Any, setting: str, value: Any, why: str
) -> None:
    cells = [*cells, *([0] * (ROWS - len(cells)))]
    (tmp_path / "x.csv").write_text(lines(PLAIN, cells, Y, header=header))
    found = {s.setting: s for s in read(tmp_path / "x.csv", {}).reading.suggestions}
    if value is None:
        assert setting not in found
    else:
        assert found[setting].value == value
        assert why in found[setting].why


def test_labels_that_are_the_same_number_are_one_class(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(lines(PLAIN, ["0", "1"] * 20, header="x,y"))
    (tmp_path / "test.csv").write_text(lines(PLAIN, ["0.0", "1.0"] * 20, header="x,y"))
    raw = read(tmp_path / "x.csv", {"test_path": str(tmp_path / "test.csv")})
    assert raw.classes == ["0", "1"]
    assert raw.parts["test"][1].tolist() == [0, 1] * 20


def test_columns_are_counted_from_0(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(lines(PLAIN, Y))
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.csv", {"target": "column2"})
    assert caught.value.fix == "the columns are column0 to column1, counted from 0"


def test_all_reasons_are_in_one_message(tmp_path: Path) -> None:
    content = lines(
        PLAIN, ["1", "x1y"] * 20, ["inf", "2"] * 20, ["", "3"] * 20, Y, header="x,a,b,c,y"
    )
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(LitlabError) as caught:
        read(tmp_path / "x.csv", {"numeric": ["a"], "impute": "refuse", "drop": ["d", "e"]})
    assert "there is no column 'd'" in str(caught.value)
    assert "there is no column 'e'" in str(caught.value)
    with pytest.raises(LitlabError) as caught:
        read(tmp_path / "x.csv", {"numeric": ["a"], "impute": "refuse"})
    for reason in ("20 cells that are not numbers", "20 infinite numbers", "missing cells: c 20"):
        assert reason in str(caught.value)


def test_texts_alone_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(lines([f'"{note}"' for note in NOTES], Y, header="note,y"))
    with pytest.raises(DataError, match="data=text data.source.text=note data.source.label=y"):
        read(tmp_path / "x.csv", {})


MESSY = lines(
    DAYS.strftime("%d/%m/%Y"),
    [f"{i},5 €" for i in range(ROWS)],
    ["-", *commas(PLAIN[1:])],
    ["01067", "80331"] * 20,
    Y,
    header="day;price;x;plz;y",
    delimiter=";",
)


@pytest.fixture
def spec(project: Path) -> Any:
    (project / "x.csv").write_text(MESSY, encoding="utf-8")
    config = load(["data=table", "data.path=x.csv", "data.source.target=y"])
    return prepare(config.data, project / "prepared")


def test_new_files_and_frames_are_read_as_the_training_data_were(project: Path, spec: Any) -> None:
    from safetensors.numpy import load_file

    with pytest.warns(UserWarning, match="missing cells filled: x 1"):
        _, values = read_input(project / "x.csv", spec)
    for split in ("train", "val", "test"):
        stored = load_file(project / "prepared" / f"{split}.safetensors")
        np.testing.assert_array_equal(values[stored["source_index"]], stored["x"])
    frame = pd.DataFrame(
        {
            "day": DAYS.normalize(),
            "price": [i + 0.5 for i in range(ROWS)],
            "x": [np.nan, *X[1:]],
            "plz": ["01067", "80331"] * 20,
        }
    )
    with pytest.warns(UserWarning, match="missing cells filled: x 1"):
        _, of_frame = read_values(frame, spec)
    np.testing.assert_array_equal(of_frame, values)
    (project / "new.csv").write_text(MESSY.replace("10/03/2004", "2004-03-10"), encoding="utf-8")
    with pytest.raises(DataError, match=r"column 'day' has cells .*new.csv:2 '2004-03-10'"):
        read_input(project / "new.csv", spec)


def test_strict_refuses_with_the_overrides_that_settle_it(project: Path, spec: Any) -> None:
    given = ["data=table", "data.path=x.csv", "data.source.target=y", "data.strict=true"]
    with pytest.raises(DataError) as caught:
        prepare(load(given).data, project / "strict")
    raw = read(project / "x.csv", {})
    settled = [override(decision) for decision in raw.reading.decisions]
    assert caught.value.fix.endswith(" ".join(settled))
    import shlex

    typed = shlex.split(" ".join(settled))
    again = prepare(load([*given, *typed]).data, project / "strict")
    assert again.columns == spec.columns
    assert again.split_hash == spec.split_hash
