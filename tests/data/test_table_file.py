"""Tables on disk: read as pandas reads them; what is wrong with one is said with its place."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.sources import table_cells
from litlab.data.sources.table_cells import as_numbers, clean
from litlab.data.sources.table_file import open_table
from litlab.data.sources.table_layout import BLOCK, TableFormat
from litlab.data.sources.table_rows import Features, TableRows
from litlab.data.spec import Column
from litlab.utils.errors import DataError


def rows_of(path: Path, **style: Any) -> tuple[list[str], list[tuple[Any, ...]]]:
    table = open_table(path, TableFormat(**style))
    found = [
        row
        for b in table.batches(table.names)
        for row in zip(*(c.to_pylist() for c in b), strict=True)
    ]
    return table.names, found


def written(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, **style: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        rows_of(path, **style)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(path)
    return caught.value


@pytest.mark.parametrize(
    ("content", "name", "style"),
    [
        ("a,b\n1,x y\n2,\n", "x.csv", {}),
        ("a;b\n1;x y\n2;\n", "x.csv", {}),
        ("a|b\n1|x y\n2|?\n", "x.txt", {}),
        ("a\tb\n1\tx y\n2\tNA\n", "x.tsv", {}),
        ("a:b\n1:x y\n2:\n", "x.data", {"delimiter": ":"}),
        ("a\tb\n1\tx y\n2\t\n", "x.data", {"delimiter": "tab"}),
        ("a\tb\n1\tx y\n2\t\n", "x.data", {"delimiter": "\\t"}),
        ("a;b\n1;x y\n2;\n", "x.csv", {"delimiter": "semicolon"}),
        (" a , b \r\n 1 ,\tx y\r\n\r\n2, nan \r\n", "x.csv", {}),
        ('"a",b\n1,"x y"\n2,""', "x.csv", {}),
        ("\ufeffa,b\n1,x y\n2,\n", "x.csv", {}),
        ("1,x y\n2,\n", "x.csv", {"header": False, "names": ("a", "b")}),
        ("\ufeff1,x y\n2,\n", "x.csv", {"header": False, "names": ("a", "b")}),
        ("first,second\n1,x y\n2,\n", "x.csv", {"names": ("a", "b")}),
        ("# of 2020\n\n#,b\na,b\n1,x y\n# more\n#,no\n2,\n", "x.csv", {"comment": "#"}),
        (
            "|1x3 Cross\n1,x y\n2,\n",
            "x.csv",
            {"comment": "|", "header": False, "names": ("a", "b")},
        ),
        (gzip.compress(b"a,b\n1,x y\n2,\n", mtime=0), "x.csv.gz", {}),
        (gzip.compress(b"a\tb\n1\tx y\n2\t\n", mtime=0), "x.tsv.gz", {}),
        ("a,b\n1,x y\n2,-99\n", "x.csv", {"missing": ("-99",)}),
    ],
)
def test_text_in_the_forms_people_save(tmp_path, content, name, style) -> None:
    names, rows = rows_of(written(tmp_path, content, name), **style)
    assert names == ["a", "b"]
    assert rows == [("1", "x y"), ("2", None)]


@pytest.mark.parametrize(
    ("content", "style", "lines"),
    [
        ("a,b\n1,2\n3,4\n", {}, [2, 3]),
        ("1,2\n3,4\n", {"header": False}, [1, 2]),
        ("a,b\n1,2\n3,4\n", {"names": ("c", "d")}, [2, 3]),
        ('a,b\n"x\ny",2\n\n3,"4\n\n4"\n5,6\n', {}, [2, 5, 8]),
        ("# note\n\na,b\n1,2\n# more\r\n3,4\r\n", {"comment": "#"}, [4, 6]),
        ("\ufeffa;b\r1;2\r3;4\r", {}, [2, 3]),
        ("a,b\n" + "x" * 200_000 + ",2\n3,4\n", {}, [2, 3]),
    ],
)
def test_rows_are_placed_by_their_lines(tmp_path, content, style, lines) -> None:
    table = open_table(written(tmp_path, content), TableFormat(**style))
    assert sum(len(columns[0]) for columns in table.batches(table.names)) == len(lines)
    places = [f"x.csv:{line}" for line in lines]
    assert [table.place(row) for row in range(len(lines))] == places
    assert [table.place(row) for row in reversed(range(len(lines)))] == places[::-1]


def test_columns_without_names_are_numbered(tmp_path) -> None:
    names, rows = rows_of(written(tmp_path, "1,2\n3,4\n"), header=False)
    assert names == ["column0", "column1"]
    assert rows == [("1", "2"), ("3", "4")]


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(tmp_path) -> None:
    frame = pd.DataFrame({"a": ['x,"y"', "one\ntwo", "plain"], 'b\n"c"': ["1", "2", "3"]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    names, rows = rows_of(tmp_path / "x.csv")
    assert names == list(frame.columns)
    assert rows == list(frame.itertuples(index=False, name=None))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
def test_encodings(tmp_path, encoding) -> None:
    path = written(tmp_path, "größe,b\n1,é\n".encode(encoding))
    assert rows_of(path, encoding=encoding) == (["größe", "b"], [("1", "é")])


@pytest.mark.parametrize(
    ("before", "place"), [(0, 6), (30_000, 6 + 30_000 * 4), (BLOCK // 4, 6 + BLOCK)]
)
def test_the_byte_that_is_not_utf8_is_named(tmp_path, before, place) -> None:
    content = b"a,b\n" + b"1,2\n" * before + b"1,\xe92\n" + b"3,4\n" * 10
    assert content[place] == 0xE9
    error = refused(written(tmp_path, content), encoding="utf-8")
    assert error.what == f"not UTF-8 at byte {place}"
    assert "data.source.encoding" in error.fix


def test_a_character_across_two_blocks_is_no_fault(tmp_path) -> None:
    content = b"a\n" + b"x" * (BLOCK - 3 - 2 * 300) + b"\n" * 300 + "é".encode() * 300 + b"\xff"
    error = refused(written(tmp_path, content))
    assert error.what == f"not UTF-8 at byte {len(content) - 1}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("a,b\n1,2\n3,4,5\n", "line 3 has 3 cells, the others 2: 3,4,5"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, the others 2: 3"),
        ('a,b\n"1\n1",2\n\n3,4,5\n', "line 5 has 3 cells"),  # lines as an editor counts them
        ('a,b\n1,"two\n3,4\n5,6\n', "a quote opened before 'two' is never closed"),
        ("a,b\n" + "x" * 3 * BLOCK + ",1\n", "cannot be read as a table"),  # no row is so long
        (gzip.compress(b"a,b\n" * 9, mtime=0)[:-9], "cannot be read as a table"),
    ],
)
def test_text_that_is_no_table(tmp_path, content, message) -> None:
    name = "x.csv.gz" if content[:1] == b"\x1f" else "x.csv"
    assert message in refused(written(tmp_path, content, name)).what


def test_what_is_no_text(tmp_path) -> None:
    assert refused(tmp_path).fix == "name the file"
    assert refused(written(tmp_path, b"PK\3\4", "x.xlsx")).fix == "save it as CSV"
    assert "cannot be read" in refused(written(tmp_path, b"PAR1", "x.parquet")).what
    error = refused(written(tmp_path, "a\n1\n"), encoding="latin-99")
    assert error.what == "there is no encoding 'latin-99'"


def test_names_that_do_not_fit(tmp_path) -> None:
    error = refused(written(tmp_path, "1,2,3\n"), header=False, names=("a", "b"))
    assert error.what == "3 columns (delimiter ','), 2 names"


def test_parquet_of_every_type(tmp_path) -> None:
    table = pa.table(
        {
            "text": pa.array([" x ", None, "?"]),
            "large": pa.array(["x", "", "y"], pa.large_string()),
            "dictionary": pa.array(["x", None, "y"]).dictionary_encode(),
            "flag": pa.array([True, None, False]),
            "byte": pa.array([1, None, 255], pa.uint8()),
            "long": pa.array([2**63, None, 1], pa.uint64()),
            "half": pa.array(np.array([0.5, np.nan, 2], np.float16)),
            "decimal": pa.array([1, None, 2], pa.int64()).cast(pa.decimal128(24, 2)),
            "nothing": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    names, rows = rows_of(tmp_path / "x.parquet")
    assert dict(zip(names, zip(*rows, strict=True), strict=True)) == {
        "text": ("x", None, None),
        "large": ("x", None, "y"),
        "dictionary": ("x", None, "y"),
        "flag": ("True", None, "False"),
        "byte": (1, None, 255),
        "long": (2.0**63, None, 1.0),
        "half": (0.5, None, 2.0),
        "decimal": (1.0, None, 2.0),
        "nothing": (None, None, None),
    }


def test_parquet_of_lists_is_refused(tmp_path) -> None:
    pq.write_table(pa.table({"a": [["x"], ["y"]]}), tmp_path / "x.parquet")
    assert refused(tmp_path / "x.parquet").what == "column 'a' holds list<element: string>"


def test_parquet_in_row_groups_is_read_in_small_batches(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("litlab.data.sources.table_file.BLOCK", 4096)
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=5000), "b": ["x"] * 5000})
    frame.to_parquet(tmp_path / "x.parquet", row_group_size=2000)
    table = open_table(tmp_path / "x.parquet", TableFormat())
    batches = list(table.batches(table.names))
    assert max(len(columns[0]) for columns in batches) < 600
    found = np.concatenate([columns[0].to_numpy() for columns in batches])
    np.testing.assert_array_equal(found, frame["a"])


NUMBERS = st.one_of(
    st.floats(allow_nan=False).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.text("0123456789+-.eE ", max_size=6),
    st.sampled_from(["+1", "1.", ".5", "1e5", "inf", "-Infinity", "1_0", "0x1", "1e", "--1", "é"]),
)


@given(st.lists(NUMBERS, max_size=8))
def test_a_cell_is_the_number_that_python_reads_or_none(cells) -> None:
    cells = [cell.strip() for cell in cells]
    found = as_numbers(pa.array(cells, pa.string()), ".").to_pylist()
    for cell, number in zip(cells, found, strict=True):
        try:
            expected = float(cell.replace("_", "x"))  # Python allows 1_000, which nobody writes
        except ValueError:
            expected = None
        assert number == expected, cell


def test_decimal_commas(tmp_path) -> None:
    cells = pa.array(["1,5", "-,25", "3", "1.000,5", None])
    assert as_numbers(cells, ",").to_pylist() == [1.5, -0.25, 3.0, None, None]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"n": rng.normal(size=3000), "c": rng.choice(["x", "y"], 3000)})
    frame.loc[rng.integers(0, 1500, 50), "n"] = np.nan  # never both: that would be no row
    frame.loc[rng.integers(1500, 3000, 50), "c"] = None
    return frame


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_rows_are_pandas_rows_in_any_order(tmp_path, monkeypatch, frame, name) -> None:
    monkeypatch.setattr("litlab.data.sources.table_file.BLOCK", 4096)
    monkeypatch.setattr("litlab.data.sources.table_file.GATHERED", 30_000)
    monkeypatch.setattr("litlab.data.sources.table_rows.SPOOLED", 300)
    path = tmp_path / name
    frame.to_csv(path, index=False) if name == "x.csv" else frame.to_parquet(path)
    rows = TableRows(open_table(path, TableFormat()), ["c", "n"], tmp_path / "spool")
    assert len(rows.starts) > 5
    features = Features(
        rows, [Column(name="n", kind="numeric"), Column(name="c", kind="categorical")]
    )
    assert len(features) == 3000
    rng = np.random.default_rng(1)
    for places in (rng.permutation(3000)[:700], np.sort(rng.integers(0, 3000, 400)), slice(5, 9)):
        found, expected = features[places], frame.iloc[places]
        np.testing.assert_array_equal(found["n"], expected["n"])
        assert found["c"].astype(object).where(found["c"].notna(), None).tolist() == (
            expected["c"].astype(object).where(expected["c"].notna(), None).tolist()
        )
    assert len(features[np.empty(0, np.int64)]) == 0


def test_a_format_is_read_off_a_sources_settings() -> None:
    settings = {"_target_": "x", "path": "y", "delimiter": ";", "names": ["a"], "na_values": ["-"]}
    expected = TableFormat(delimiter=";", names=("a",), missing=("-",))
    assert TableFormat.of({**settings, "comment": None}) == expected
    assert TableFormat.of({}) == TableFormat()


def test_a_type_that_is_no_cell() -> None:
    with pytest.raises(TypeError, match="binary"):
        clean(pa.array([b"x"]), table_cells.Missing())
