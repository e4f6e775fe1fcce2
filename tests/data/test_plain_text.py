import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.encode.text import load_tokenizer
from litlab.data.loading import open_split
from litlab.data.prepare.prepare import prepare
from litlab.data.sources import plain_text
from litlab.data.sources.plain_text import PlainText
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from made_data import make_config

SHAKESPEARE = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt"
LINES = "".join(f"{i} lines of text; naïve – “quoted”.\n" for i in range(400))


def texts(path, scratch, part="all", **settings):
    """All blocks of a part, read in an odd order."""
    raw = PlainText(path=str(path), **settings).read(scratch)
    blocks, targets = raw.parts[part]
    assert len(blocks) == len(targets)
    rows = np.random.default_rng(0).permutation(len(blocks))
    found = dict(zip(rows.tolist(), blocks[rows], strict=True))
    return [found[i] for i in range(len(blocks))]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_blocks_together_are_the_text(tmp_path, scratch, encoding):
    file = write(tmp_path / "a.txt", LINES, encoding)
    found = texts(file, scratch, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert "".join(found) == LINES
    assert max(map(len, found)) <= plain_text.LONGEST_BLOCK
    assert len(found) > 50


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_characters_and_line_breaks_across_reads_stay_whole(tmp_path, scratch, monkeypatch, size):
    monkeypatch.setattr(plain_text, "READ_BYTES", size)
    file = write(tmp_path / "a.txt", "\ufeffä\r\n日本\r\r\n𝄞 end")
    assert "".join(texts(file, scratch)) == "ä\n日本\n\n𝄞 end"


def test_blocks_end_with_a_line_or_before_a_word(tmp_path, scratch):
    found = texts(write(tmp_path / "a.txt", LINES), scratch)
    assert all(block.endswith("\n") for block in found)
    found = texts(write(tmp_path / "b.txt", LINES.replace("\n", " ")), scratch)
    assert all(block.startswith(" ") for block in found[1:])
    found = texts(write(tmp_path / "c.txt", "x" * 1000), scratch)
    assert [len(block) for block in found] == [64] * 15 + [40]


@given(st.text(st.sampled_from("ab \n"), max_size=300), st.integers(2, 40), st.integers(1, 50))
def test_cutting_loses_nothing(text, longest, piece):
    pieces = [text[i : i + piece] for i in range(0, len(text), piece)]
    blocks = list(plain_text._cut(pieces, longest))
    assert "".join(blocks) == text
    assert all(0 < len(block) <= longest for block in blocks)


def test_a_folder_s_files_follow_one_another(tmp_path, scratch):
    folder = tmp_path / "books"
    folder.mkdir()
    for name in ("b", "a"):
        write(folder / f"{name}.txt", f"{name} " * 300)
    write(folder / "notes.md", "not this")
    assert "".join(texts(folder, scratch)) == "a " * 300 + "b " * 300


def test_a_publisher_s_splits_are_kept(tmp_path, scratch):
    folder = tmp_path / "wiki"
    folder.mkdir()
    for name in ("train", "valid", "test"):
        write(folder / f"{name}.txt", name * 200)
    for part, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert "".join(texts(folder, scratch, part)) == name * 200
    (folder / "valid.txt").unlink()
    raw = PlainText(path=str(folder)).read(scratch)
    assert set(raw.parts) == {"train", "test"}
    assert [f.name for f in raw.files] == ["train.txt", "test.txt"]


@pytest.mark.parametrize(("before", "at"), [("abc", 3), ("é" * 9, 18), ("x" * 2000, 2000)])
def test_text_of_another_encoding_names_file_and_byte(tmp_path, scratch, monkeypatch, before, at):
    monkeypatch.setattr(plain_text, "READ_BYTES", 8)
    file = tmp_path / "a.txt"
    file.write_bytes(before.encode() + b"\xe9 latin")
    with pytest.raises(DataError, match=f"not utf-8 at byte {at} .*a.txt.*latin-1") as caught:
        texts(file, scratch)
    assert caught.value.exit_code == 3
    assert "".join(texts(file, scratch, encoding="latin-1")).endswith("é latin")


def test_a_text_cut_off_within_a_character_is_refused(tmp_path, scratch):
    file = tmp_path / "a.txt"
    file.write_bytes("abcé".encode()[:-1])
    with pytest.raises(DataError, match="not utf-8 at byte 3"):
        texts(file, scratch)


def test_what_is_not_there(tmp_path, scratch):
    with pytest.raises(EnvironmentFault) as caught:
        PlainText(path=str(tmp_path / "none.txt")).read(scratch)
    assert caught.value.exit_code == 5
    with pytest.raises(DataError, match="no .txt files"):
        PlainText(path=str(scratch)).read(scratch)
    with pytest.raises(DataError, match="there is no text"):
        texts(write(tmp_path / "empty.txt", ""), scratch)
    with pytest.raises(ValueError, match="encoding=utf-9"):
        PlainText(path="a.txt", encoding="utf-9")
    with pytest.raises(ValueError, match="at least 259"):
        PlainText(path="a.txt", tokenizer="bpe", vocab_size=200)


def config_of(path, **source):
    target = "litlab.data.sources.plain_text.PlainText"
    source = {"_target_": target, "path": str(path), "context_length": 16, **source}
    return make_config(source=source, val_fraction=0.1, test_fraction=0.1, stratify=False)


@pytest.mark.parametrize(("unit", "back"), [("char", LINES), ("bpe", LINES)])
def test_prepared_text_comes_back_whole(tmp_path, unit, back):
    file = write(tmp_path / "a.txt", LINES)
    spec = prepare(config_of(file, tokenizer=unit, vocab_size=300), tmp_path / "made")
    ids = [open_split(tmp_path / "made", spec, s).x.tolist() for s in ("train", "val", "test")]
    assert load_tokenizer(spec.tokenizer).decode(sum(ids, [])) == back
    assert min(map(min, ids)) >= 3  # neither padding nor unknown


def test_words_lose_white_space_and_nothing_else(tmp_path):
    file = write(tmp_path / "a.txt", LINES)
    spec = prepare(config_of(file, tokenizer="word"), tmp_path / "made")
    ids = open_split(tmp_path / "made", spec, "train").x.tolist()
    text = load_tokenizer(spec.tokenizer).decode(ids)
    assert text.startswith("0 lines of text ; naïve –")


def test_characters_that_train_lacks_are_unknown_and_counted(tmp_path, capsys):
    file = write(tmp_path / "a.txt", LINES + "ЖЖЖ" * 200)
    with pytest.warns(UserWarning, match="test 37%"):
        spec = prepare(config_of(file), tmp_path / "made")
    assert 1 in open_split(tmp_path / "made", spec, "test").x
    assert 1 not in open_split(tmp_path / "made", spec, "train").x
    assert "of the tokens are not in the vocabulary" in capsys.readouterr().err


def test_the_same_text_gives_the_same_bytes(tmp_path):
    file = write(tmp_path / "a.txt", LINES)
    made = [prepare(config_of(file, tokenizer="bpe", vocab_size=400), tmp_path / n) for n in "ab"]
    assert made[0] == made[1]


def test_a_test_fraction_beside_a_publisher_s_test_split_is_refused_if_typed(tmp_path):
    folder = tmp_path / "wiki"
    folder.mkdir()
    write(folder / "train.txt", LINES)
    write(folder / "test.txt", LINES.upper())
    config = config_of(folder)
    config._typed = frozenset({"data.test_fraction"})
    with pytest.raises(ConfigError, match="test_fraction"):
        prepare(config, tmp_path / "made")


def test_reading_keeps_no_more_than_a_few_pieces(tmp_path, scratch):
    file = tmp_path / "long.txt"
    with file.open("w") as opened:
        for i in range(400_000):
            opened.write(f"{i} a line of some length to make it long\n")
    tracemalloc.start()
    raw = PlainText(path=str(file)).read(scratch)
    blocks, _ = raw.parts["all"]
    for start in range(0, len(blocks), 1024):
        blocks[np.arange(start, min(start + 1024, len(blocks)))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.stat().st_size > 17e6
    assert peak < 9e6


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tiny Shakespeare is not beside the project")
def test_tiny_shakespeare(tmp_path):
    spec = prepare(config_of(SHAKESPEARE, context_length=64), tmp_path / "made")
    assert spec.vocab_size == 65 + 3
    ids = [open_split(tmp_path / "made", spec, s).x.tolist() for s in ("train", "val", "test")]
    text = load_tokenizer(spec.tokenizer).decode(sum(ids, []))
    assert text == SHAKESPEARE.read_text()
    assert 1 not in sum(ids, [])
