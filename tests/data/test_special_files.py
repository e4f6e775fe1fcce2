"""Named pipes, sockets, devices and folders in the place of a file: refused, never waited for."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litlab.config.compose import read as read_params
from litlab.data.inputs.read_input import read_input
from litlab.data.prepare.source_files import changed
from litlab.data.sources.cifar import Cifar10
from litlab.data.sources.hub import Hub
from litlab.data.sources.idx import FashionMNIST, Idx
from litlab.data.sources.image_folder import ImageFolder
from litlab.data.sources.npz import Npz
from litlab.data.sources.plain_text import PlainText
from litlab.data.sources.table import Table
from litlab.data.sources.text import Text
from litlab.runs.checkpoint.io import read as read_checkpoint
from litlab.runs.folder import RunRecord, find, read_results
from litlab.utils.errors import LitlabError
from made_data import make_spec

TABLE = make_spec("tabular", columns=())
IMAGE = make_spec("image", shape=(1, 4, 4))
WORDS = make_spec("text")
SPECIAL = {"a named pipe": stat.S_IFIFO, "a socket": stat.S_IFSOCK}
IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[[Path, str], Path]]:
    """Put something that is no file at a path; fail if somebody opens a pipe to read it."""
    opened: list[Path] = []
    pipes: list[Path] = []
    done = Event()

    def watch() -> None:
        while not done.wait(0.2):
            for pipe in pipes:
                try:  # succeeds only while a reader waits, who is then let go
                    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                    opened.append(pipe)
                except OSError:
                    pass

    def put(path: Path, kind: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in SPECIAL:
            os.mknod(path, SPECIAL[kind] | 0o600)
        elif kind == "a device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        if kind == "a named pipe":
            pipes.append(path)
        return path

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    yield put
    done.set()
    watcher.join()
    assert not opened, "a reader waited for a named pipe"


def pictures(root: Path) -> Path:
    for label in "ab":
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / label / "0.png")
    return root


def idx(root: Path) -> Path:
    (root / IDX_NAMES[1]).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0]))
    return root


def cifar(root: Path) -> Path:
    for number in range(1, 6):
        if number != 2:
            (root / f"data_batch_{number}.bin").write_bytes(bytes(3073))
    (root / "test_batch.bin").write_bytes(bytes(3073))
    return root


# Where the special file is put, seen from a folder, and what reads that folder or file.
READERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "table": ("x.csv", lambda path, root: Table(path=str(path), target="y").read(root)),
    "table, Parquet": (
        "x.parquet",
        lambda path, root: Table(path=str(path), target="y").read(root),
    ),
    "text, lines": ("x.txt", lambda path, root: Text(path=str(path)).read(root)),
    "text, CSV": ("x.csv", lambda path, root: Text(path=str(path)).read(root)),
    "text, JSON lines": ("x.jsonl", lambda path, root: Text(path=str(path)).read(root)),
    "text, Parquet": ("x.parquet", lambda path, root: Text(path=str(path)).read(root)),
    "text, folder": ("t/a/x.txt", lambda path, root: Text(path=str(root / "t")).read(root)),
    "plain text": ("x.txt", lambda path, root: PlainText(path=str(path)).read(root)),
    "plain text, folder": (
        "t/x.txt",
        lambda path, root: PlainText(path=str(root / "t")).read(root),
    ),
    "npz": ("x.npz", lambda path, root: Npz(path=str(path)).read()),
    "images": (
        "p/a/x.png",
        lambda path, root: ImageFolder(path=str(pictures(root / "p"))).read(),
    ),
    "idx": (IDX_NAMES[0], lambda path, root: Idx(path=str(idx(root))).read()),
    "idx, gzipped": (f"{IDX_NAMES[0]}.gz", lambda path, root: Idx(path=str(idx(root))).read()),
    "cifar": ("data_batch_2.bin", lambda path, root: Cifar10(path=str(cifar(root))).read()),
    "hub, file": ("x.csv", lambda path, root: Hub(path=str(path)).read(root)),
    "hub, folder": ("h/x.csv", lambda path, root: Hub(path=str(root / "h")).read(root)),
    "predict, arrays": ("x.npy", lambda path, root: read_input(path, TABLE)),
    "predict, table": ("x.csv", lambda path, root: read_input(path, TABLE)),
    "predict, image": ("x.png", lambda path, root: read_input(path, IMAGE)),
    "predict, images": ("p/a/x.png", lambda path, root: read_input(pictures(root / "p"), IMAGE)),
    "predict, idx": ("x.idx", lambda path, root: read_input(path, IMAGE)),
    "predict, words": ("x.txt", lambda path, root: read_input(path, WORDS)),
    "what was prepared from": ("x.csv", lambda path, root: changed({str(path): "1"}, root / "m")),
    "checkpoint": ("x.ckpt", lambda path, root: read_checkpoint(path)),
    "a checkpoint's name": ("x.ckpt", lambda path, root: find(str(path))),
    "a run's checkpoint": ("run/best.ckpt", lambda path, root: find(str(path.parent))),
    "a run's record": ("run/run.json", lambda path, root: RunRecord.load(path.parent)),
    "a run's results": ("run/metrics.json", lambda path, root: read_results(path.parent)),
    "--params": ("x.yaml", lambda path, root: read_params(path)),
}
FOLDERS_ARE_READ = {"images", "text, CSV", "text, JSON lines", "text, lines", "text, Parquet"} | {
    "plain text",
    "hub, file",
    "hub, folder",
    "predict, table",
    "predict, image",
    "predict, images",
    "predict, idx",
    "predict, words",
    "what was prepared from",
    "a checkpoint's name",
}


def exit_code_of(reader: str) -> int:
    if reader == "--params":
        return 2
    return 4 if "checkpoint" in reader or "run's" in reader else 3


CASES = [
    (reader, kind)
    for reader in READERS
    for kind in (*SPECIAL, "a device", "a folder")
    if kind != "a folder" or reader not in FOLDERS_ARE_READ
]


@pytest.mark.parametrize(("reader", "kind"), CASES)
def test_what_is_no_file_is_refused_with_its_path(
    reader: str, kind: str, project: Path, place: Any
) -> None:
    where, read = READERS[reader]
    root = project / "made"
    path = place(root / where, kind)
    with pytest.raises(LitlabError) as caught:
        read(path, root)
    assert caught.value.exit_code == exit_code_of(reader)
    said = str(caught.value)
    if "images" in reader and kind == "a device" and not reader.startswith("predict"):
        assert "a link that points outside of" in said
    elif reader != "a run's results":
        assert f"is {kind}" in said
    assert str(path) in said or str(path.parent) in said


def test_a_folder_of_pictures_is_listed_without_opening(tmp_path: Path, place: Any) -> None:
    root = pictures(tmp_path / "p")
    place(root / "a" / "notes", "a named pipe")
    raw = ImageFolder(path=str(root)).read()
    assert raw.notes() == ["1 other file left out: 1 notes"]


def test_a_missing_file_and_a_pipe_are_told_apart(tmp_path: Path, place: Any) -> None:
    place(tmp_path / "f" / IDX_NAMES[0], "a named pipe")
    with pytest.raises(LitlabError, match="there is no train-images-idx3-ubyte"):
        FashionMNIST(folder=str(tmp_path / "f")).read()
