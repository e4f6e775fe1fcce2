"""A checkpoint is whole or not there, whatever happens while it is written."""

import hashlib
import os
import random
import resource
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litlab.runs.checkpoint import io
from litlab.runs.checkpoint.io import KEY, probe, read, sweep, verify, write
from litlab.utils import files
from litlab.utils.errors import CheckpointError, EnvironmentFault


def content(value: float, size: int = 5000) -> dict:
    manifest = {"schema": io.SCHEMA, "step": int(value)}
    card = {"schema": io.SCHEMA, "manifest": manifest}
    return {"state_dict": {"w": torch.full((size,), value)}, KEY: card}


def value_of(path: Path) -> float:
    return read(path)["state_dict"]["w"][0].item()


def test_what_is_written_is_read(tmp_path) -> None:
    path = tmp_path / "deep" / "last.ckpt"
    write(content(3.0), path)
    assert verify(path) == {"schema": io.SCHEMA, "step": 3}
    assert value_of(path) == 3.0
    assert os.listdir(path.parent) == ["last.ckpt"]
    # The manifest and the checksum are no obstacle to others.
    assert torch.load(path, weights_only=True)["state_dict"]["w"][0] == 3.0
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_one_before_is_kept(tmp_path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for value in (1.0, 2.0, 3.0):
        write(content(value), last, previous)
    assert (value_of(last), value_of(previous)) == (3.0, 2.0)


def test_without_hard_links(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links")

    monkeypatch.setattr(os, "link", refuse)
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for value in (1.0, 2.0):
        write(content(value), last, previous)
    assert (value_of(last), value_of(previous)) == (2.0, 1.0)


def test_the_order_of_the_calls(tmp_path, monkeypatch) -> None:
    """Flush the file, flush the folder, rename, flush the folder: what survives a power loss."""
    calls = []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        assert self.parent == Path(target).parent
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write(content(1.0), tmp_path / "last.ckpt")
    assert calls == ["file", "folder", "rename", "folder"]


def in_child(work: Callable[[], None]) -> int:
    """Run it in a process of its own and return how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be killed when a save comes to a place."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    module, name = {
        "midway": (zipfile.ZipFile, "writestr"),
        "fsync": (os, "fsync"),
        "folder": (files, "sync_folder"),
        "keep": (files, "_keep"),
        "link": (os, "link"),
        "rename": (Path, "replace"),
    }[place]
    monkeypatch.setattr(module, name, die)


@pytest.mark.parametrize("place", ["midway", "fsync", "folder", "keep", "link", "rename"])
def test_killed_during_a_save(tmp_path, monkeypatch, place) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    write(content(1.0), last, previous)
    write(content(2.0), last, previous)

    def save() -> None:
        kill_at(place, monkeypatch)
        write(content(3.0), last, previous)

    assert in_child(save) == -signal.SIGKILL
    assert value_of(last) == 2.0
    assert value_of(previous) in (1.0, 2.0)
    assert len(os.listdir(tmp_path)) > 2
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]


def test_killed_between_the_rename_and_the_flush(tmp_path, monkeypatch) -> None:
    last = tmp_path / "last.ckpt"
    write(content(1.0), last)

    def save() -> None:
        real, count = files.sync_folder, []

        def die_second(folder: Path) -> None:
            count.append(1)
            if len(count) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            real(folder)

        monkeypatch.setattr(files, "sync_folder", die_second)
        write(content(2.0), last)

    assert in_child(save) == -signal.SIGKILL
    assert value_of(last) == 2.0


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert caught.value.exit_code == 4
    return caught.value.what


def test_every_cut_is_noticed(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    write(content(1.0, 50_000), path)
    whole = path.read_bytes()
    assert len(whole) > 200_000
    for length in [*range(0, len(whole), 4096), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert refused(path)
    path.write_bytes(whole + b"\0")
    assert refused(path)


def test_every_flipped_bit_is_noticed(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    write(content(1.0), path)
    whole, draw = path.read_bytes(), random.Random(0)
    places = [draw.randrange(8 * len(whole)) for _ in range(200)]
    tail = [8 * (len(whole) - back) for back in range(1, 120)]  # checksum, manifest, lengths
    for place in places + tail:
        altered = bytearray(whole)
        altered[place // 8] ^= 1 << place % 8
        path.write_bytes(altered)
        assert "damaged" in refused(path)


def test_one_written_before_the_manifest_was_a_member(tmp_path) -> None:
    """As litlab wrote them until 2026-11: digest and manifest in the archive's comment."""
    path, text = tmp_path / "last.ckpt", b'{"schema":2,"step":3}'
    torch.save(content(3.0), path)
    digest = hashlib.sha256(path.read_bytes() + text).hexdigest().encode()
    comment = digest + text
    old = path.read_bytes()[:-2] + len(comment).to_bytes(2, "little") + comment
    path.write_bytes(old)
    assert verify(path) == {"schema": 2, "step": 3}
    assert value_of(path) == 3.0
    for place in (100, 12_000, len(old) - 5, len(old) - len(comment) - 1):
        path.write_bytes(old[:place] + bytes([old[place] ^ 1]) + old[place + 1 :])
        assert "damaged" in refused(path)


def test_a_checksum_that_was_cut_off(tmp_path) -> None:
    torch.save(content(1.0), tmp_path / "last.ckpt")
    assert "lost its checksum" in refused(tmp_path / "last.ckpt")


def test_a_full_disk_keeps_the_old_one(tmp_path) -> None:
    last = tmp_path / "last.ckpt"
    write(content(1.0), last)

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(EnvironmentFault, match="cannot be written: File too large"):
            write(content(2.0, 100_000), last)
        with pytest.raises(EnvironmentFault, match="no room for checkpoints of 1 MiB"):
            probe(tmp_path, 2**20)

    assert in_child(save) == 0
    assert value_of(last) == 1.0
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_folder_that_is_a_file(tmp_path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(EnvironmentFault) as caught:
        write(content(1.0), tmp_path / "runs" / "last.ckpt")
    assert caught.value.exit_code == 5
    with pytest.raises(EnvironmentFault, match="no room"):
        probe(tmp_path / "runs", 1000)


def test_probing_leaves_nothing(tmp_path) -> None:
    probe(tmp_path / "new", 2**20)
    assert os.listdir(tmp_path / "new") == []
