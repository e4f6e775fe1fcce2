import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from litlab.data.loading import file_of, of_values, open_split, sha256
from litlab.data.prepare.write_arrays import SplitWriter
from litlab.data.spec import SPLITS, DataSpec
from litlab.utils.errors import DataError
from made_data import KINDS, make_raw, make_spec, prepare_raw


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, DataSpec]:
    return tmp_path, prepare_raw(make_raw("image"), tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [0, 2])
def test_what_is_opened_is_what_the_source_held(kind, targets, tmp_path, monkeypatch) -> None:
    raw = make_raw(kind, targets=targets)
    folder = tmp_path / "made"
    spec = prepare_raw(raw, folder, monkeypatch)
    x, y = raw.parts["all"]
    for name in SPLITS:
        split = open_split(folder, spec, name)
        place = split.source_index.numpy()
        assert str(split.x.dtype) == f"torch.{spec.dtype}"
        inputs, _ = split.take(torch.arange(len(split)))
        if kind != "text":
            assert split.x.shape == (spec.sizes[name], *spec.shape)
        width = inputs.shape[1]  # a text's padding is made when it is taken
        np.testing.assert_array_equal(inputs, x[place][:, :width])
        assert not x[place][:, width:].any()
        np.testing.assert_array_equal(split.y, y[place].astype(np.float32 if targets else np.int64))
        assert split.y.dtype == (torch.float32 if targets else torch.int64)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_arrays_are_mapped_and_not_copied(prepared) -> None:
    folder, spec = prepared
    split = open_split(folder, spec, "train")
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(file_of(folder, "train")))
    ]
    for tensor in (split.x, split.y, split.source_index):
        assert any(low <= tensor.data_ptr() < high for low, high in ranges)


def test_writing_to_an_array_does_not_reach_the_file(prepared) -> None:
    folder, spec = prepared
    open_split(folder, spec, "train").x.zero_()
    assert open_split(folder, spec, "train").x.any()


def test_any_flipped_byte_is_noticed(prepared) -> None:
    folder, spec = prepared
    path = file_of(folder, "val")
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="checksum differs") as caught:
            open_split(folder, spec, "val")
    assert caught.value.exit_code == 3
    assert caught.value.where == str(path)
    path.write_bytes(content)
    open_split(folder, spec, "val")


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_file_is_noticed(prepared, cut: int) -> None:
    folder, spec = prepared
    path = file_of(folder, "train")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="checksum differs"):
        open_split(folder, spec, "train")


def test_a_missing_file_is_named(prepared) -> None:
    folder, spec = prepared
    file_of(folder, "test").unlink()
    with pytest.raises(DataError, match="missing") as caught:
        open_split(folder, spec, "test")
    assert caught.value.where == str(file_of(folder, "test"))
    assert "litlab prepare" in caught.value.fix


def test_a_spec_without_checksums_opens_nothing(prepared) -> None:
    with pytest.raises(DataError, match="checksum"):
        open_split(prepared[0], make_spec(), "train")


def write(path: Path, *pieces, dtype="float32", number=4) -> str:
    with SplitWriter(path, dtype, np.arange(number), np.arange(number)) as file:
        for piece in pieces:
            file.add(piece)
    return sha256(path)


def test_arrays_in_any_memory_order_and_any_pieces_are_stored_alike(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(4, 6)
    straight = write(tmp_path / "a", x)
    assert write(tmp_path / "b", np.asfortranarray(x)) == straight
    assert write(tmp_path / "c", x[:1], x[1:]) == straight


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_what_is_written_in_pieces_is_what_safetensors_reads(dtype, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    x = np.arange(35).reshape(5, 7).astype(dtype)  # an odd number of bytes
    write(tmp_path / "a", x[:2], x[2:], dtype=dtype, number=5)
    held = load_file(tmp_path / "a")
    assert set(held) == {"x", "y", "source_index"}
    np.testing.assert_array_equal(held["x"], x)
    assert held["x"].dtype == dtype
    np.testing.assert_array_equal(held["y"], np.arange(5))


def test_texts_are_kept_end_to_end_and_padded_when_taken(tmp_path: Path) -> None:
    texts = [np.array(ids, np.int32) for ids in ([5], [1, 2, 3], [4, 4], [9])]
    write(tmp_path / "train.safetensors", texts[:3], texts[3:], dtype="int32")
    checksums = {"train.safetensors": sha256(tmp_path / "train.safetensors")}
    spec = make_spec("text", pad_id=7, checksums=checksums)
    split = open_split(tmp_path, spec, "train")
    assert split.x.tolist() == [5, 1, 2, 3, 4, 4, 9]
    assert split.take(torch.tensor([3, 1]))[0].tolist() == [[9, 7, 7], [1, 2, 3]]
    assert split.take(torch.tensor([0, 3]))[0].tolist() == [[5], [9]]
    made = of_values(texts, pad_id=7)
    everything = torch.arange(4)
    assert torch.equal(made.take(everything)[0], split.take(everything)[0])
