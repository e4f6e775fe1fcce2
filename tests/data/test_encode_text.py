import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.encode.text import (
    MASK_ID,
    PAD_ID,
    UNK_ID,
    TextEncoder,
    load_tokenizer,
    train_tokenizer,
)
from litlab.data.spec import DataSpec
from litlab.utils.errors import DataError
from made_data import make_spec

UNITS = ["word", "char", "bpe"]
TRAIN = [
    "the film is good , and the cast too",
    "a bad film !!",
    "the cast is good",
    "Good or bad ? the film is long",
    "the cast is bad",
]


def fitted(unit: str = "word", texts: list[str] = TRAIN, **settings) -> TextEncoder:
    encoder = TextEncoder(unit=unit, **{"vocab_size": 400, **settings})
    encoder.fit(lambda: iter([texts[:2], texts[2:]]))
    return encoder


def text_spec(encoder: TextEncoder) -> DataSpec:
    return make_spec("text", vocabulary=()).model_copy(update=encoder.describe())


def words(encoder: TextEncoder, ids: np.ndarray) -> list[str]:
    return [encoder.tokenizer.id_to_token(int(i)) for i in ids]


@pytest.mark.parametrize("unit", UNITS)
def test_the_special_tokens_come_first(unit) -> None:
    encoder = fitted(unit)
    assert words(encoder, np.arange(3)) == ["<pad>", "<unk>", "<mask>"]
    assert (PAD_ID, UNK_ID, MASK_ID) == (0, 1, 2)
    described = encoder.describe()
    assert described["pad_id"] == 0
    assert described["vocab_size"] == len(json.loads(described["tokenizer"])["model"]["vocab"])


def test_words_are_told_apart_by_their_frequency() -> None:
    encoder = fitted(min_frequency=2)
    ids = encoder.encode(["The FILM is superb!!"])[0]
    assert words(encoder, ids) == ["the", "film", "is", "<unk>", "<unk>"]  # "!!" is seen once
    assert words(fitted(min_frequency=1), fitted(min_frequency=1).encode(["!!"])[0]) == ["!!"]
    seen = {word for text in TRAIN for word in text.lower().split()}
    often = {w for w in seen if sum(text.lower().split().count(w) for text in TRAIN) > 1}
    assert set(encoder.tokenizer.get_vocab()) == often | {"<pad>", "<unk>", "<mask>"}


def test_characters() -> None:
    encoder = fitted("char", ["abc\nab", "ab c"], min_frequency=1, lowercase=False)
    ids = encoder.encode(["b a\nA"])[0]
    assert words(encoder, ids) == ["b", " ", "a", "\n", "<unk>"]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_byte_pairs_know_every_text(text) -> None:
    import unicodedata

    encoder = BPE
    (ids,) = encoder.encode([text])
    assert ids.dtype == np.int32
    assert UNK_ID not in ids
    expected = unicodedata.normalize("NFC", text)
    assert encoder.tokenizer.decode(ids.tolist(), skip_special_tokens=False) == expected or not text


BPE = fitted("bpe", lowercase=False, max_length=1000)
BPE.length = 1000


def test_byte_pairs_merge_what_is_frequent() -> None:
    encoder = fitted("bpe", TRAIN * 5)
    assert len(encoder.encode(["the film is good"])[0]) < 8
    assert encoder.describe()["vocab_size"] <= 400


def test_case() -> None:
    kept = fitted(lowercase=False, min_frequency=1)
    assert words(kept, kept.encode(["Good good GOOD"])[0]) == ["Good", "good", "<unk>"]


def test_composed_and_decomposed_characters_are_one() -> None:
    encoder = fitted("word", ["caf\u00e9 cafe\u0301"], min_frequency=2)
    assert len(set(encoder.encode(["caf\u00e9 cafe\u0301"])[0].tolist())) == 1


@pytest.mark.parametrize("unit", UNITS)
def test_special_tokens_in_a_text_are_text(unit) -> None:
    for encoder in (fitted(unit), TextEncoder.of(text_spec(fitted(unit)))):
        for token in ("<pad>", "<mask>"):
            ids = encoder.encode([f"good {token} film"])[0]
            assert PAD_ID not in ids
            assert MASK_ID not in ids


def test_the_vocabulary_is_limited() -> None:
    texts = [f"word{i} word{i} word{i // 2}" for i in range(100)]
    assert fitted("word", texts, vocab_size=20).describe()["vocab_size"] == 20


@pytest.mark.parametrize(("unit", "least"), [("word", 4), ("char", 4), ("bpe", 259)])
def test_a_vocabulary_without_room_is_refused(unit, least) -> None:
    with pytest.raises(ValueError, match=f"give at least {least}"):
        TextEncoder(unit=unit, vocab_size=least - 1)
    assert fitted(unit, vocab_size=least).describe()["vocab_size"] <= least


def test_only_train_teaches() -> None:
    encoder = fitted()
    before = encoder.describe()
    encoder.encode(["entirely new words of a test text, which is longer than any before it"])
    assert encoder.describe() == before


def test_longer_texts_are_cut_and_counted() -> None:
    encoder = fitted(max_length=4)
    assert [len(ids) for ids in encoder.encode(["the film is good or bad", "the film"])] == [4, 2]
    assert encoder.describe()["shape"] == (4,)
    assert "1 of 2 texts were cut to 4 tokens" in encoder.notes()


def test_the_length_is_the_longest_of_train() -> None:
    encoder = fitted(max_length=256)
    longest = max(len(ids) for ids in encoder.encode(TRAIN))
    assert encoder.describe()["shape"] == (longest,)
    assert not any("cut" in note for note in encoder.notes())
    assert len(encoder.encode(["the " * 99])[0]) == longest
    assert any("cut" in note for note in encoder.notes())


@pytest.mark.parametrize("unit", UNITS)
def test_an_empty_text_is_one_token_of_padding(unit) -> None:
    encoder = fitted(unit)
    ids = encoder.encode(["", "the film"])
    assert ids[0].tolist() == [PAD_ID]
    assert len(ids[1]) >= 2
    assert "1 of 2 texts are empty: one padding token each" in encoder.notes()


def test_unknown_tokens_are_counted() -> None:
    encoder = fitted()
    encoder.encode(["the superb film", "the film"])
    assert encoder.notes()[0].startswith("1 of 5 tokens (20.0%)")


def test_nothing_to_learn_from() -> None:
    with pytest.raises(DataError, match="the train split has no tokens"):
        fitted(texts=["", " "])


@pytest.mark.parametrize("unit", UNITS)
def test_new_texts_are_encoded_as_the_old_ones_were(unit) -> None:
    encoder = fitted(unit, max_length=9)
    texts = ["The film is good!", "", "x" * 50, "é漢 <pad>"]
    again = TextEncoder.of(text_spec(encoder))
    for one, other in zip(encoder.encode(texts), again.encode(texts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert encoder.notes() == again.notes()


def test_data_without_a_tokenizer() -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        TextEncoder.of(make_spec("text"))


@pytest.mark.parametrize("unit", UNITS)
def test_many_texts_at_once_are_as_one_by_one(unit, monkeypatch) -> None:
    texts = [TRAIN[i % 5][: i % 30] for i in range(300)]
    encoder = fitted(unit)
    whole = encoder.encode(texts)
    monkeypatch.setattr("litlab.data.encode.text.BATCH_CHARACTERS", 50)
    for one, other in zip(whole, encoder.encode(texts), strict=True):
        np.testing.assert_array_equal(one, other)
    for text, ids in zip(texts, whole, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], ids)


@pytest.mark.parametrize("unit", UNITS)
def test_how_texts_come_in_chunks_teaches_nothing(unit) -> None:
    whole, pieces = TextEncoder(unit=unit, vocab_size=300), TextEncoder(unit=unit, vocab_size=300)
    whole.fit(lambda: iter([TRAIN]))
    pieces.fit(lambda: ([text] for text in TRAIN))
    assert whole.describe() == pieces.describe()


TRAINS_AGAIN = """
import hashlib, random, sys
from litlab.data.encode.text import train_tokenizer
rng = random.Random(0)
letters = "abcdefghij" + "éàüößñ漢字仮名"
texts = [" ".join("".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(20))
         for _ in range(300)]
for unit in ("word", "char", "bpe"):
    tokenizer = train_tokenizer(texts, unit, vocab_size=400, min_frequency=1, lowercase=True)
    print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


def test_the_same_texts_give_the_same_bytes_in_every_process() -> None:
    """Ties between equally frequent tokens are many here, and hashing differs between processes."""
    found = set()
    for seed, threads in (("1", "1"), ("2", "2"), ("random", "2")):
        done = subprocess.run(
            [sys.executable, "-c", TRAINS_AGAIN],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
                "PYTHONHASHSEED": seed,
                "RAYON_NUM_THREADS": threads,
            },
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert len(done.stdout.split()) == 3


def test_a_tokenizer_says_the_same_after_a_round_trip() -> None:
    tokenizer = train_tokenizer(TRAIN, "word", vocab_size=99, min_frequency=1, lowercase=True)
    assert load_tokenizer(tokenizer.to_str()).to_str() == tokenizer.to_str()


@pytest.mark.parametrize("model", ["cnn", "mlp", "transformer", "simple_cnn", "simple_nn"])
def test_an_empty_text_is_finite_in_every_model(project, model) -> None:
    from litlab.config.compose import load
    from litlab.tasks.build import build_model

    encoder = fitted(texts=[*TRAIN, "long " * 20])
    spec = text_spec(encoder)
    net = build_model(load([f"model={model}"]), spec)
    empty, full = encoder.encode(["", TRAIN[0]])
    batch = torch.zeros(2, len(full), dtype=torch.int32)
    batch[1] = torch.from_numpy(full)
    for training in (True, False):
        outputs = net.train(training)(batch)
        outputs.sum().backward()
        assert outputs.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
