"""Files of texts, read row by row; pandas and the csv module say what is in them."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.sources.text_files import Layout, check_layout, lines_of, read_rows
from litlab.utils.errors import DataError

ROWS = [
    {"text": "plain", "label": "a"},
    {"text": 'with "quotes", a comma,\nand a second\r\nline', "label": "b"},
    {"text": "tab\there", "label": "c"},
    {"text": "é 漢字 🙂 \x85 \u2028", "label": "a"},
    {"text": "", "label": "b"},
    {"text": "NA", "label": "null"},
]
COLUMNS = ["text", "label"]


def write(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_bytes(text.encode(encoding))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        with path.open("w", encoding=encoding, newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def cells(path: Path, columns: list[str] = COLUMNS, **layout: Any) -> list[list[Any]]:
    return [row for _, _, row in read_rows(path, columns, Layout(**layout))]


def refused(path: Path, columns: list[str] = COLUMNS, **layout: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        cells(path, columns, **layout)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_what_was_written(tmp_path, suffix) -> None:
    path = write(tmp_path / f"x{suffix}", ROWS)
    assert cells(path) == [[row["text"], row["label"]] for row in ROWS]
    assert cells(path, ["label", "text"]) == [[row["label"], row["text"]] for row in ROWS]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_as_pandas_reads_it(tmp_path, suffix) -> None:
    path = write(tmp_path / f"x{suffix}", ROWS)
    sep = "\t" if suffix == ".tsv" else ","
    theirs = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
    assert cells(path) == theirs[COLUMNS].to_numpy().tolist()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), suffix=st.integers(0, 2))
def test_any_text_survives(tmp_path_factory, rows, suffix) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{('.csv', '.tsv', '.jsonl')[suffix]}"
    written = [{"text": text, "label": label} for text, label in rows]
    assert cells(write(path, written)) == [list(row) for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".all"])
def test_encodings(tmp_path, encoding, suffix) -> None:
    path = tmp_path / f"x{suffix}"
    rows = [{"text": "déjà vu", "label": "é"}, {"text": "ça", "label": "b"}]
    if suffix == ".all":
        path.write_bytes("é déjà vu\nb ça\n".encode(encoding))
    else:
        write(path, rows, encoding)
    given = "utf-8" if encoding == "utf-8-sig" else encoding  # the mark is no part of the text
    assert cells(path, encoding=given) == [["déjà vu", "é"], ["ça", "b"]]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
@pytest.mark.parametrize("lines", [0, 30_000])
def test_another_encoding_is_named_with_its_byte_and_line(tmp_path, suffix, lines) -> None:
    path = tmp_path / f"x{suffix}"
    good = {"csv": "text,label\n", "jsonl": "", "txt": ""}[suffix[1:]].encode()
    row = {"csv": "é,b\n", "jsonl": '{"text": "é", "label": "b"}\n', "txt": "b é\n"}[suffix[1:]]
    good += row.encode() * lines
    path.write_bytes(good + row.replace("é", "caf").encode() + row.encode("latin-1"))
    error = refused(path)
    at = path.read_bytes().index(b"\xe9")
    number = path.read_bytes()[:at].count(b"\n") + 1
    assert error.what == f"not utf-8 at byte {at} (line {number})"
    assert "data.source.encoding" in error.fix
    with pytest.raises(UnicodeDecodeError) as theirs:
        path.read_bytes().decode("utf-8")
    assert theirs.value.start == at


def test_a_character_cut_off_at_the_end(tmp_path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"a good\nb bad" + "é".encode()[:1])
    assert refused(path).what == "not utf-8 at byte 12 (line 2)"


def test_utf16_without_its_mark(tmp_path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"a good film")
    assert refused(path, encoding="utf-16").what.startswith("not utf-16 at byte 0")


def test_a_label_and_a_text_a_line(tmp_path) -> None:
    path = tmp_path / "TREC.train.all"
    path.write_bytes(b"0 What is \x85 it ?\r\n\n  1\ttwo  words \n__label__x fast text\n2\n3 ")
    got = [row for _, _, row in read_rows(path, COLUMNS, Layout(encoding="latin-1"))]
    assert got == [
        ["What is \x85 it ?", "0"],
        ["two  words ", "1"],
        ["fast text", "x"],
        ["", "2"],
        ["", "3"],
    ]
    places = [number for _, number, _ in read_rows(path, COLUMNS, Layout(encoding="latin-1"))]
    assert places == [1, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("__label__a good __label__b film", "line 2 has the label '__label__b' inside the text"),
        ("a good film\t__label__b", "line 2 has the label '__label__b' inside the text"),
    ],
)
def test_a_label_among_the_words_is_refused(tmp_path, line, what) -> None:
    path = tmp_path / "x.txt"
    path.write_text(f"__label__a a word__label__ed film\n{line}\n")
    error = refused(path)
    assert error.what == what
    assert "label" in error.fix


def test_several_marked_labels_are_a_list(tmp_path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("__label__a  __label__b\tgood film\n__label__b bad\n__label__a __label__b\n")
    rows = [row for _, _, row in read_rows(path, COLUMNS, Layout())]
    assert rows == [["good film", ["a", "b"]], ["bad", "b"], ["", ["a", "b"]]]


def test_lines_have_no_further_columns(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("a b\n")
    assert "no column 'author'" in refused(tmp_path / "x.txt", [*COLUMNS, "author"]).what


def test_lines_are_numbered_where_cells_have_several(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,label\n"a\nb",1\n\nc,2\n"d\n\ne",3\nf,4\n')
    numbers = [number for _, number, _ in read_rows(path, COLUMNS, Layout())]
    assert numbers == [2, 5, 6, 9]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_wrong_column_is_met_with_the_nearest_name(tmp_path, suffix) -> None:
    path = write(tmp_path / f"x{suffix}", ROWS)
    error = refused(path, ["Text", "label"])
    assert "'Text'" in error.what
    assert error.fix == "did you mean 'text'?"


def test_a_column_that_is_there_twice(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("text,label,text\na,b,c\n")
    assert refused(tmp_path / "x.csv").what == "column 'text' appears twice"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": 1}\n{"text": "b"', "line 2 is not JSON"),
        ('{"text": "a", "label": 1}\n\n["b", 2]\n', "line 3 is not a JSON object"),
        ('{"text": "a"}\n', "line 1 has no 'label'"),
        ("[" * 100_000, "line 1 is not JSON: nested too deeply"),
    ],
)
def test_lines_that_are_not_what_they_should_be(tmp_path, content, message) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    assert message in refused(tmp_path / "x.jsonl").what


def test_json_values_keep_their_types(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": null, "label": 1, "more": [1]}\n')
    assert cells(tmp_path / "x.jsonl") == [[None, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("text,label\na,b,c\n", "line 2 has 3 cells, and the first line 2"),
        ('text,label\na,b\n"c\nd,e\n', "the row at line 3 cannot be read"),
        ('text,label\n"a"b,c\n', "the row at line 2 cannot be read"),
    ],
)
def test_broken_tables(tmp_path, content, message) -> None:
    (tmp_path / "x.csv").write_text(content)
    assert message in refused(tmp_path / "x.csv").what


def test_quotation_marks_as_they_are(tmp_path) -> None:
    (tmp_path / "x.tsv").write_text('text\tlabel\n"tis a "film\t1\n')
    assert cells(tmp_path / "x.tsv", quotes=False) == [['"tis a "film', "1"]]


def test_without_a_header_columns_are_numbers(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("3;Wall St.\n4;Bears\n")
    assert cells(tmp_path / "x.csv", ["1", "0"], header=False, delimiter=";") == [
        ["Wall St.", "3"],
        ["Bears", "4"],
    ]


def test_cells_longer_than_the_csv_module_takes_by_itself(tmp_path) -> None:
    path = write(tmp_path / "x.csv", [{"text": "word " * 60_000, "label": "a"}])
    assert len(cells(path)[0][0]) == 300_000


def test_damaged_parquet(tmp_path) -> None:
    path = write(tmp_path / "x.parquet", ROWS * 50)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not Parquet" in refused(path).what
    path.write_bytes(b"")
    refused(path)


def test_parquet_of_many_rows(tmp_path) -> None:
    rows = [{"text": f"text {i}", "label": i % 3} for i in range(1000)]
    path = write(tmp_path / "x.parquet", rows)
    assert cells(path) == [[row["text"], row["label"]] for row in rows]
    numbers = [number for _, number, _ in read_rows(path, COLUMNS, Layout())]
    assert numbers == list(range(1, 1001))


@pytest.mark.parametrize("name", ["x.json", "x.xlsx", "x.csv.gz", "x.zip"])
def test_files_of_other_kinds(tmp_path, name) -> None:
    (tmp_path / name).write_text("a b\n")
    assert "files are not read" in refused(tmp_path / name).what


def test_a_folder_in_the_place_of_a_file(tmp_path) -> None:
    (tmp_path / "x.csv").mkdir()
    assert refused(tmp_path / "x.csv").what == "is a folder, not a file"


@pytest.mark.parametrize("layout", [{"encoding": "latin-one"}, {"encoding": "rot13"}])
def test_encodings_that_are_none(layout) -> None:
    with pytest.raises(ValueError, match="is not known"):
        check_layout(Layout(**layout))


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_delimiters_that_are_none(delimiter) -> None:
    with pytest.raises(ValueError, match="not one character"):
        check_layout(Layout(delimiter=delimiter))


@given(lines=st.lists(st.text(st.characters(codec="latin-1", exclude_characters="\r\n"))))
def test_only_line_feeds_end_lines(tmp_path_factory, lines) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.txt"
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode("latin-1"))
    assert list(lines_of(path, "latin-1")) == list(enumerate(lines, start=1))
