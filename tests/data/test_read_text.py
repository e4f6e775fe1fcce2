import json

import numpy as np
import pytest

from litlab.data.encode.text import TextEncoder
from litlab.data.inputs.read_input import read_input
from litlab.data.inputs.texts import encode_texts
from litlab.data.loading import of_values
from litlab.data.spec import DataSpec
from litlab.utils.errors import DataError
from made_data import make_spec

TEXTS = ["a good film", "é bad", "film"]


def make_text_spec(**source) -> DataSpec:
    encoder = TextEncoder(min_frequency=1)
    encoder.fit(lambda: iter([["a good film", "a bad film é", "<pad>"]]))
    settings = {"source": {"text": "review", **source}}
    return make_spec("text", vocabulary=()).model_copy(
        update={"settings": settings, **encoder.describe()}
    )


SPEC = make_text_spec()
EXPECTED = encode_texts(TEXTS, SPEC)


def same(values, expected=EXPECTED) -> bool:
    assert isinstance(values, list)
    assert all(array.dtype == np.int32 for array in values)
    return [array.tolist() for array in values] == [array.tolist() for array in expected]


def refused(path, spec: DataSpec = SPEC) -> DataError:
    with pytest.raises(DataError) as caught:
        read_input(path, spec)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_text_a_line(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("\n".join(TEXTS), encoding="utf-8-sig")
    names, values = read_input(tmp_path / "x.txt", SPEC)
    assert names == ["x.txt:1", "x.txt:2", "x.txt:3"]
    assert same(values)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_column_of_the_training_datas_name(tmp_path, suffix) -> None:
    import pandas as pd

    path, table = tmp_path / f"x{suffix}", pd.DataFrame({"id": [7, 8, 9], "review": TEXTS})
    if suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    names, values = read_input(path, SPEC)
    first = {".parquet": 0, ".jsonl": 1}.get(suffix, 2)  # a header is line 1
    assert names == [f"x{suffix}:{first + row}" for row in range(3)]
    assert same(values)


def test_the_training_datas_delimiter_and_header(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("7;film\n8;a good film\n")
    spec = make_text_spec(text="1", header=False, delimiter=";")
    assert same(read_input(tmp_path / "x.csv", spec)[1], [EXPECTED[2], EXPECTED[0]])


def test_a_folder_of_texts(tmp_path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in zip(("a.txt", "b/a.txt", "b/c.txt"), TEXTS, strict=True):
        (tmp_path / name).write_text(f" {text}\n")
    (tmp_path / "README.md").write_text("no text")
    names, values = read_input(tmp_path, SPEC)
    assert names == ["a.txt", "b/a.txt", "b/c.txt"]
    assert same(values)


def test_a_wrong_column(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("reviews\na\n")
    error = refused(tmp_path / "x.csv")
    assert error.what == "column 'review' is missing, the model was trained with it"
    assert error.fix == "rename 'reviews' to 'review'"


def test_text_that_is_not_utf8(tmp_path) -> None:
    (tmp_path / "x.txt").write_bytes(b"a good film\n\xe9 bad\nfilm\n")
    assert refused(tmp_path / "x.txt").what == "not utf-8 at byte 12 (line 2)"
    with pytest.warns(UserWarning, match="read as latin-1, as the training data"):
        _, values = read_input(tmp_path / "x.txt", make_text_spec(encoding="latin-1"))
    assert same(values)


def test_utf8_is_read_as_such_whatever_the_training_data_were(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    assert same(read_input(tmp_path / "x.txt", make_text_spec(encoding="latin-1"))[1])


def test_what_is_lost_is_said(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("a good film\n\n" + "film " * 9 + "\n")
    with pytest.warns(UserWarning, match="texts") as caught:
        _, values = read_input(tmp_path / "x.txt", SPEC)
    messages = [str(warning.message) for warning in caught]
    assert messages == [
        "1 of 3 texts were cut to 4 tokens",
        "1 of 3 texts are empty: one padding token each",
    ]
    assert [len(ids) for ids in values] == [3, 1, 4]
    assert values[1].tolist() == [0]
    assert len(of_values(list(values))) == 3


def test_unknown_words_are_counted_and_not_refused(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("a superb film\n")
    with pytest.warns(UserWarning, match=r"1 of 3 tokens \(33.3%\)"):
        _, values = read_input(tmp_path / "x.txt", SPEC)
    assert values[0][1] == 1


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl"])
def test_an_empty_file(tmp_path, name) -> None:
    (tmp_path / name).touch()
    assert refused(tmp_path / name).what == "the file has no texts"


def test_a_broken_line(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"review": "a"}) + "\n{")
    assert "line 2 is not JSON" in refused(tmp_path / "x.jsonl").what


def test_ids_from_numpy(tmp_path) -> None:
    ids = np.array([[3, 4, 0, 0], [1, 2, 3, 4]])
    np.save(tmp_path / "x.npy", ids)
    np.testing.assert_array_equal(read_input(tmp_path / "x.npy", SPEC)[1], ids)
    np.save(tmp_path / "y.npy", ids + 100)
    assert "not token ids" in refused(tmp_path / "y.npy").what
