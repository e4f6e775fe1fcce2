import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import KINDS, make_raw, make_spec, prepare_raw

from litlab.data.arrays import file_of, open_split, sha256, write_split
from litlab.data.spec import SPLITS, DataSpec
from litlab.errors import DataError


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
        assert split.x.shape == (spec.sizes[name], *spec.shape)
        assert str(split.x.dtype) == f"torch.{spec.dtype}"
        np.testing.assert_array_equal(split.x, x[place])
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
    for tensor in split:
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
    assert "litlab prepare data=made" in caught.value.fix


def test_a_spec_without_checksums_opens_nothing(prepared) -> None:
    with pytest.raises(DataError, match="checksum"):
        open_split(prepared[0], make_spec(), "train")


def test_arrays_in_any_memory_order_are_stored_alike(tmp_path: Path) -> None:
    x, y, index = np.arange(24.0).reshape(4, 6), np.arange(4), np.arange(4)
    straight = write_split(tmp_path, "a", x, y, index)
    assert write_split(tmp_path, "b", np.asfortranarray(x), y, index) == straight
    assert sha256(file_of(tmp_path, "b")) == straight
