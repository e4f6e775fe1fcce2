"""A file is whole or not there; what happens when a process is killed is in test_io.py."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from litlab.utils.files import write_atomically


def test_text_bytes_and_what_writes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ("ä\n", "ä\n".encode(), lambda file: file.write("ä\n".encode())):
        write_atomically(path, content)
        assert path.read_bytes() == "ä\n".encode()
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, fail)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_need_not_outlast_a_power_failure_is_not_flushed(tmp_path: Path, monkeypatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    write_atomically(tmp_path / "file", "x", flush=False)
    assert not flushed
    write_atomically(tmp_path / "file", "x")
    assert len(flushed) == 3
