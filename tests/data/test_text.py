import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litlab.config.schema import DataConfig
from litlab.data.encode.text import TextEncoder
from litlab.data.loading import open_split
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Raw
from litlab.data.sources.text import Text
from litlab.data.sources.text_files import TextSpool
from litlab.data.spec import DataSpec
from litlab.utils.errors import DataError, EnvironmentFault, LitlabError

SENTENCES = Path(__file__).parents[3] / "shared" / "data" / "text-sentences"
needs_sentences = pytest.mark.skipif(
    not SENTENCES.is_dir(), reason="shared/data/text-sentences is not on this machine"
)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def read(path: Path, scratch: Path, **settings: Any) -> Raw:
    return Text(path=str(path), **settings).read(scratch)


def samples(raw: Raw, part: str = "all") -> list[tuple[str, str]]:
    inputs, labels = raw.parts[part]
    assert labels.dtype == np.int64
    texts = inputs[np.arange(len(inputs))]
    return [(text, raw.classes[label]) for text, label in zip(texts, labels, strict=True)]


def refused(path: Path, scratch: Path, **settings: Any) -> LitlabError:
    with pytest.raises(LitlabError) as caught:
        read(path, scratch, **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return caught.value


def lines(tmp_path: Path, text: str, name: str = "x.txt") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


# What is read


def test_lines_of_a_label_and_a_text(tmp_path, scratch) -> None:
    path = lines(tmp_path, "pos a good film\nneg a bad one \npos good\n")
    raw = read(path, scratch)
    assert raw.kind == "text"
    assert raw.task == "classification"
    assert raw.classes == ["neg", "pos"]
    assert samples(raw) == [("a good film", "pos"), ("a bad one", "neg"), ("good", "pos")]
    assert raw.files == [path]
    assert raw.licence == "not stated"
    assert raw.origin == str(path)


def test_tables(tmp_path, scratch) -> None:
    path = lines(tmp_path, 'id;review;stars\n1;"good; very";5\n2;bad;1\n', "x.csv")
    raw = read(path, scratch, text="review", label="stars", delimiter=";")
    assert samples(raw) == [("good; very", "5"), ("bad", "1")]
    rows = [{"review": "good", "stars": True}, {"review": "bad", "stars": False}]
    path = lines(tmp_path, "\n".join(map(json.dumps, rows)), "x.jsonl")
    raw = read(path, scratch, text="review", label="stars")
    assert samples(raw) == [("good", "true"), ("bad", "false")]


def test_parts_of_the_publishers(tmp_path, scratch) -> None:
    train = lines(tmp_path, "a one\nb two\n", "train")
    test = lines(tmp_path, "b three\nc four\n", "test")
    raw = read(train, scratch, test_path=str(test))
    assert list(raw.parts) == ["train", "test"]
    assert raw.classes == ["a", "b", "c"]
    assert samples(raw, "train") == [("one", "a"), ("two", "b")]
    assert samples(raw, "test") == [("three", "b"), ("four", "c")]
    assert raw.files == [train, test]
    raw = read(train, scratch, val_path=str(test), test_path=str(test))
    assert list(raw.parts) == ["train", "val", "test"]


def make_folder(root: Path, *places: str) -> Path:
    for number, place in enumerate(places):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(f"text {number}\nof two lines\n")
    return root


def test_a_folder_for_each_class(tmp_path, scratch) -> None:
    root = make_folder(tmp_path / "r", "pos/b.txt", "neg/a.txt", "pos/a.txt", "neg/x.csv")
    (root / "README").write_text("no text of it")
    assert samples(read(root, scratch)) == [
        ("text 1\nof two lines", "neg"),
        ("text 2\nof two lines", "pos"),
        ("text 0\nof two lines", "pos"),
    ]
    root = make_folder(tmp_path / "imdb", "train/pos/1.txt", "train/unsup/2.txt", "test/pos/3.txt")
    raw = read(root, scratch, label_names=("pos",))
    assert {part: len(inputs) for part, (inputs, _) in raw.parts.items()} == {"train": 1, "test": 1}
    assert raw.classes == ["pos"]
    assert raw.files == [root]


def test_folders_that_are_not_as_they_should_be(tmp_path, scratch) -> None:
    (tmp_path / "empty").mkdir()
    assert "no texts" in refused(tmp_path / "empty", scratch).what
    root = make_folder(tmp_path / "r", "pos/b.txt", "neg/a.txt")
    error = refused(root, scratch, label_names=("pos", "negg"))
    assert error.what == "the folder has no folder 'negg'"
    assert error.fix == "did you mean 'neg'?"
    assert "its own splits" in refused(root, scratch, test_path=str(root)).what
    (root / "pos" / "b.txt").write_bytes(b"caf\xe9")
    error = refused(root, scratch)
    assert error.what == "not utf-8 at byte 3 (line 1)"
    assert error.where == str(root / "pos" / "b.txt")
    assert "no folder 'train'" in refused(make_folder(tmp_path / "t", "test/a/b.txt"), scratch).what


def test_relative_paths_start_at_the_projects_root(project, scratch, monkeypatch) -> None:
    lines(project, "a b\nc d\n")
    (project / "inner").mkdir()
    monkeypatch.chdir(project / "inner")
    assert len(samples(read(Path("x.txt"), scratch))) == 2


def test_a_missing_file(tmp_path, scratch) -> None:
    error = refused(tmp_path / "none.csv", scratch)
    assert isinstance(error, EnvironmentFault)
    assert error.exit_code == 5


def test_the_constructor_reads_nothing() -> None:
    Text(path="nowhere", test_path="nowhere/else")


def test_a_full_disk(tmp_path, scratch, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litlab.data.sources.text_files.array", full)
    error = refused(lines(tmp_path, "a b\n"), scratch)
    assert error.exit_code == 5
    assert "No space left" in error.what


# Labels


def test_integers_are_sorted_as_numbers(tmp_path, scratch) -> None:
    assert read(lines(tmp_path, "10 a\n9 b\n-1 c\n"), scratch).classes == ["-1", "9", "10"]


def test_names_by_place(tmp_path, scratch) -> None:
    raw = read(lines(tmp_path, "1 a\n0 b\n"), scratch, label_names=("neg", "pos", "none"))
    assert samples(raw) == [("a", "pos"), ("b", "neg")]
    assert raw.classes == ["neg", "pos", "none"]


def test_names_as_they_are(tmp_path, scratch) -> None:
    raw = read(lines(tmp_path, "pos a\nneg b\n"), scratch, label_names=("pos", "neg"))
    assert samples(raw) == [("a", "pos"), ("b", "neg")]
    # Numbers that are names are not places.
    raw = read(lines(tmp_path, "1 a\n2 b\n"), scratch, label_names=("1", "2"))
    assert samples(raw) == [("a", "1"), ("b", "2")]


def test_labels_out_of_range(tmp_path, scratch) -> None:
    path = lines(tmp_path, "0 a\n1 b\n2 c\n3 d\n1 e\n")
    error = refused(path, scratch, label_names=("neg", "pos"))
    assert error.exit_code == 3
    assert error.what == "2 labels are not among neg, pos: '2' (line 3), '3' (line 4)"
    assert error.where == str(path)
    error = refused(lines(tmp_path, "neg a\npos b\nPos c\n"), scratch, label_names=("neg", "pos"))
    assert error.what == "1 labels are not among neg, pos: 'Pos' (line 3)"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.csv", "text,label\na,1\nb,\n", 3),
        ("x.csv", "text,label\na,1\nb, \n", 3),
        ("x.jsonl", '{"text": "a", "label": null}\n', 1),
        ("x.jsonl", '{"text": "a", "label": NaN}\n', 1),
    ],
)
def test_a_missing_label(tmp_path, scratch, name, content, line) -> None:
    path = lines(tmp_path, content, name)
    error = refused(path, scratch)
    assert error.exit_code == 3
    assert error.what == f"line {line} has no label ('label')"
    assert error.where == str(path)


LISTS = [["b", "a", "b"], [], ["a"], "c", [2]]


def json_lines(folder, labels):
    rows = "".join(json.dumps({"text": "t", "label": label}) + "\n" for label in labels)
    return lines(folder, rows, "x.jsonl")


def test_lists_are_several_labels(tmp_path, scratch) -> None:
    raw = read(json_lines(tmp_path, LISTS), scratch)
    assert (raw.task, raw.classes) == ("multi_label", ["2", "a", "b", "c"])
    expected = [[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    assert raw.parts["all"][1].tolist() == expected
    assert raw.parts["all"][1].dtype == np.uint8


def test_lists_of_one_label_are_classes_unless_asked(tmp_path, scratch) -> None:
    path = json_lines(tmp_path, [["a"], ["b"]])
    assert read(path, scratch).task == "classification"
    raw = read(path, scratch, task="multi_label", label_names=("b", "a"))
    assert raw.parts["all"][1].tolist() == [[0, 1], [1, 0]]


def test_several_labels_where_one_was_asked_for(tmp_path, scratch) -> None:
    error = refused(json_lines(tmp_path, ["x", ["a", "b"]]), scratch, task="classification")
    assert error.what == "a text has several labels or none (lists from line 2 on)"
    assert "data.source.task=null" in error.fix


@pytest.mark.parametrize(("label", "what"), [({"x": 1}, "the label"), ([["x"]], "a label of")])
def test_labels_that_are_no_values(tmp_path, scratch, label, what) -> None:
    error = refused(json_lines(tmp_path, ["x", label]), scratch)
    assert error.exit_code == 3
    assert error.what.startswith(f"line 2: {what} ")


def test_labels_in_a_cell(tmp_path, scratch) -> None:
    path = lines(tmp_path, 'text,label\nt,"a; b"\nt,\nt,b\n', "x.csv")
    raw = read(path, scratch, label_separator=";")
    assert (raw.task, raw.classes) == ("multi_label", ["a", "b"])
    assert raw.parts["all"][1].tolist() == [[1, 1], [0, 0], [0, 1]]


def test_lists_in_parquet(tmp_path, scratch) -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", "b"], "label": [["x"], ["x", "y"]]})
    frame.to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", scratch).parts["all"][1].tolist() == [[1, 0], [1, 1]]


def test_numbers_in_parquet(tmp_path, scratch) -> None:
    import pandas as pd

    pd.DataFrame({"text": ["a", "b"], "label": [1.0, 0.0]}).to_parquet(tmp_path / "x.parquet")
    assert samples(read(tmp_path / "x.parquet", scratch)) == [("a", "1"), ("b", "0")]


def test_a_column_of_ids_is_no_column_of_classes(tmp_path, scratch) -> None:
    path = lines(tmp_path, "text,label\n" + "".join(f"a{i},{i}\n" for i in range(150)), "x.csv")
    error = refused(path, scratch)
    assert error.what == "150 different labels in 150 rows, such as '0'"
    assert "data.source.label" in error.fix


# Texts


def test_empty_texts_are_refused_or_padded(tmp_path, scratch) -> None:
    path = lines(tmp_path, "1 a\n0 \n1 b\n0\n")
    error = refused(path, scratch)
    assert error.exit_code == 3
    assert error.what == "2 empty texts, first x.txt:2, x.txt:4"
    assert "data.source.empty=pad" in error.fix
    raw = read(path, scratch, empty="pad")
    assert samples(raw) == [("a", "1"), ("", "0"), ("b", "1"), ("", "0")]
    assert raw.encoder is not None
    raw.encoder.fit(lambda: iter([["a a"]]))
    assert raw.encoder.encode([""])[0].tolist() == [0]


def test_null_is_an_empty_text(tmp_path, scratch) -> None:
    path = lines(tmp_path, '{"text": null, "label": 1}\n', "x.jsonl")
    assert "1 empty texts" in refused(path, scratch).what


def test_a_text_that_is_none(tmp_path, scratch) -> None:
    path = lines(tmp_path, '{"text": "a", "label": 1}\n{"text": 7, "label": 1}\n', "x.jsonl")
    assert refused(path, scratch).what == "line 2: 'text' is 7, which is not text"


def test_half_a_character(tmp_path, scratch) -> None:
    path = lines(tmp_path, '{"text": "a \\ud83d b", "label": 1}\n', "x.jsonl")
    assert samples(read(path, scratch)) == [("a ? b", "1")]


def test_further_columns(tmp_path, scratch) -> None:
    path = lines(tmp_path, "text,label,author,year\na,1,ann,1990\nb,0,,2001.5\n", "x.csv")
    raw = read(path, scratch, columns=("author", "year"))
    columns = raw.columns["all"]
    assert columns["author"].tolist() == ["ann", ""]
    np.testing.assert_array_equal(columns["year"], [1990, 2001.5])
    assert refused(path, scratch, columns=("autor",)).fix == "did you mean 'author'?"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "latin-one"}, "encoding=latin-one is not known"),
        ({"label_names": ("a", "a")}, "twice in label_names"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "vocab_size=100 is too small"),
        ({"delimiter": ",,"}, "not one character"),
    ],
)
def test_settings_that_cannot_be(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Text(path="x", **settings)


# The spool


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=20),
    data=st.data(),
)
def test_the_spool_gives_back_any_rows(tmp_path_factory, texts, data) -> None:
    spool = TextSpool(tmp_path_factory.mktemp("spool") / "x", iter(texts))
    assert len(spool) == len(texts)
    assert spool.sizes.tolist() == [len(text.encode()) for text in texts]
    rows = data.draw(st.lists(st.sampled_from(range(len(texts))), max_size=30)) if texts else []
    assert spool[np.array(rows, dtype=np.int64)] == [texts[row] for row in rows]


def test_memory_holds_no_texts(tmp_path) -> None:
    import tracemalloc

    tracemalloc.start()
    spool = TextSpool(tmp_path / "x", ("word " * 2000 for _ in range(5000)))  # 50 MB
    assert len(spool[np.arange(100)]) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 2**20
    assert (tmp_path / "x").stat().st_size == 50_000_000


# Prepared


def prepared(project: Path, path: Path, **settings: Any) -> dict[str, Any]:
    source = {"_target_": "litlab.data.sources.text.Text", "path": str(path), **settings}
    config = {"name": "made", "source": source, "val_fraction": 0.2, "test_fraction": 0.2}
    config |= {"split_seed": 0, "stratify": True}
    folder = project / "prepared"
    prepare(DataConfig.model_validate(config), folder)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def many(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [f"{i % 2} {i} " + "word " * int(rng.integers(1, 60)) for i in range(200)]
    return lines(tmp_path, "\n".join(rows))


def test_texts_are_stored_one_after_the_other(project) -> None:
    path = many(project)
    files = prepared(project, path, min_frequency=1)
    spec = DataSpec.load(project / "prepared")
    assert spec.tokenizer is not None
    assert files["tokenizer.json"].decode() == spec.tokenizer
    assert spec.vocabulary == ()
    assert spec.pad_id == 0
    assert spec.sizes == {"train": 128, "val": 32, "test": 40}
    encoder, written = TextEncoder.of(spec), path.read_text().split("\n")
    for name in spec.sizes:
        split = open_split(project / "prepared", spec, name)
        assert split.lengths is not None
        assert int(split.lengths.sum()) == len(split.x)
        for place, row in enumerate(split.source_index.tolist()):
            label, text = written[row].split(None, 1)
            x, y = split.take(torch.tensor([place]))
            assert x[0].tolist() == encoder.encode([text.strip()])[0].tolist()
            assert spec.classes[int(y)] == label


def test_long_texts_come_in_small_numbers(project, monkeypatch) -> None:
    path, asked = many(project), []
    get = TextSpool.__getitem__

    def spy(self: TextSpool, rows: Any) -> list[str]:
        asked.append(int(self.sizes[rows].sum()))
        return get(self, rows)

    whole = prepared(project, path)
    monkeypatch.setattr(TextSpool, "__getitem__", spy)
    monkeypatch.setattr("litlab.data.prepare.prepare.CHUNK_BYTES", 1000)
    assert prepared(project, path) == whole
    assert len(asked) > 40
    assert max(asked) < 1000 + 300  # and the longest text


def test_prepare_gives_the_same_bytes_again(project) -> None:
    path = many(project)
    assert prepared(project, path, tokenizer="bpe") == prepared(project, path, tokenizer="bpe")


# Real data


@needs_sentences
@pytest.mark.parametrize(
    ("name", "encoding", "number", "classes", "byte"),
    [
        ("TREC.train.all", "latin-1", 5452, 6, 3173),
        ("rt-polarity.all", "latin-1", 10662, 2, 3841),
        ("stsa.binary.train", "utf-8", 6920, 2, None),
    ],
)
def test_the_literatures_data(scratch, name, encoding, number, classes, byte) -> None:
    raw = read(SENTENCES / name, scratch, encoding=encoding)
    inputs, labels = raw.parts["all"]
    assert len(inputs) == len(labels) == number
    assert len(raw.classes) == classes
    if byte is not None:
        assert f"not utf-8 at byte {byte}" in refused(SENTENCES / name, scratch).what


@needs_sentences
def test_empty_sentences_of_the_customer_reviews_are_found(scratch) -> None:
    path = SENTENCES / "custrev.all"
    assert isinstance(refused(path, scratch), DataError)
    assert len(read(path, scratch, empty="pad").parts["all"][0]) == 3775
