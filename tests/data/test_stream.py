import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.encode.text import StreamEncoder
from litlab.data.loading import BatchLoader, StreamSplit, num_windows, open_split
from litlab.data.raw import Raw
from litlab.utils.errors import DataError
from made_data import prepare_raw


def make_split(number, length, *, shifts=False):
    nothing = torch.zeros(0, dtype=torch.int64)
    ids = torch.arange(number, dtype=torch.int32)
    return StreamSplit(ids, nothing, nothing, context_length=length, shifts=shifts)


@given(st.integers(2, 90), st.integers(1, 12))
def test_windows_follow_one_another_and_each_token_has_the_next_one(number, length):
    split = make_split(number, length)
    assert len(split) == num_windows(number, length) == (number - 1) // length
    if not len(split):
        return
    x, y = split.take(torch.arange(len(split)))
    assert x.shape == y.shape == (len(split), length)
    assert y.dtype == torch.int64
    assert torch.equal(x.flatten(), torch.arange(len(split) * length, dtype=torch.int32))
    assert torch.equal(y, x + 1)


@given(st.integers(9, 90), st.integers(1, 8), st.integers(0, 2**31), st.integers(0, 50))
def test_an_epoch_s_windows_are_shifted_and_stay_inside(number, length, seed, epoch):
    split = make_split(number, length, shifts=True)
    split.begin_epoch(seed, epoch)
    shift = int(split.shift)
    assert 0 <= shift < length
    x, y = split.take(torch.arange(len(split)))
    assert torch.equal(y, x + 1)
    assert int(y.max()) < number
    expected = torch.arange(len(split)) * length + shift
    assert torch.equal(x[:, 0], expected.clamp(max=number - length - 1).int())


def test_shifts_are_of_seed_and_epoch_alone_and_of_train_alone():
    split, again = make_split(999, 32, shifts=True), make_split(999, 32, shifts=True)
    seen = []
    for epoch in range(20):
        split.begin_epoch(7, epoch)
        seen.append(int(split.shift))
    assert len(set(seen)) > 8
    again.begin_epoch(7, 13)
    assert int(again.shift) == seen[13]
    still = make_split(999, 32)
    still.begin_epoch(7, 13)
    assert int(still.shift) == 0


def test_the_loader_shifts_every_epoch_and_serves_every_window():
    loader = BatchLoader(make_split(101, 10, shifts=True), batch_size=4, shuffle=True, seed=3)
    epochs = []
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([x for x, _, _ in loader]))
    shifts = {int(x[:, 0].min()) for x in epochs}
    assert len(shifts) > 2
    for x in epochs:
        starts = sorted(x[:, 0].tolist())
        assert starts == [min(int(starts[0]) + 10 * i, 90) for i in range(10)]


def test_on_another_device_it_is_the_same():
    split = make_split(50, 8, shifts=True)
    split.begin_epoch(0, 1)
    moved = split.to(torch.device("cpu"))
    index = torch.tensor([0, 3])
    assert torch.equal(moved.take(index)[0], split.take(index)[0])
    assert len(moved) == len(split)
    assert split.nbytes == 50 * 4


TEXT = "".join(f"{i:03d} abc\n" for i in range(200))


class Blocks:
    """A text in blocks of ten characters."""

    def __len__(self):
        return len(TEXT) // 10

    def __getitem__(self, rows):
        return [TEXT[10 * row : 10 * row + 10] for row in rows.tolist()]


def prepare_text(tmp_path, monkeypatch, length=7, **settings):
    raw = Raw(
        kind="text",
        task="language_model",
        parts={"all": (Blocks(), np.zeros(len(Blocks()), np.int64))},
        licence="none",
        origin="made here",
        encoder=StreamEncoder(context_length=length),
    )
    return prepare_raw(raw, tmp_path / "made", monkeypatch, stratify=False, **settings)


def test_prepared_splits_are_the_text_in_order(tmp_path, monkeypatch):
    spec = prepare_text(tmp_path, monkeypatch)
    assert (spec.task, spec.kind, spec.shape, spec.pad_id) == ("language_model", "text", (7,), None)
    streams = []
    for name in ("train", "val", "test"):
        split = open_split(tmp_path / "made", spec, name)
        assert len(split) == spec.sizes[name]
        assert split.shifts == (name == "train")
        streams.append(split.x)
    encoder = StreamEncoder()
    encoder.fit(lambda: iter([[TEXT]]))
    from litlab.data.encode.text import load_tokenizer

    text = load_tokenizer(spec.tokenizer).decode(torch.cat(streams).tolist())
    assert text == TEXT
    assert [len(s) for s in streams] == [1020, 260, 320]


def test_a_split_shorter_than_the_context_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="the val split has 260 tokens.*300 needs 301") as caught:
        prepare_text(tmp_path, monkeypatch, length=300)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "made").exists()
