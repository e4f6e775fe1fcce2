"""Checkpoint files that are whole or not there, and that know their own checksum.

A checkpoint is what `torch.save` writes, a zip archive, with two additions that other readers skip:
the member `archive/litlab.json`, a manifest of what the checkpoint is of, to be read without
unpacking it; and as the archive's comment the SHA-256 of all before.
"""

import errno
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import CheckpointIO

from litlab.utils.errors import CheckpointError, EnvironmentFault
from litlab.utils.files import dumps, parse_json, write_atomically
from litlab.utils.paths import not_a_file

KEY = "litlab"
RESUME = "resume"  # the part that only resuming needs
RAW = "current_model_state"  # Lightning's name for the weights being trained, beside their average
SCHEMA = 2
MANIFEST = "archive/litlab.json"  # torch allows members of its own folder only
DIGEST = 64  # hexadecimal digits of a SHA-256
CHUNK = 2**20
OTHER = "use another checkpoint of the run; nothing in this one was executed"
Manifest = dict[str, Any]


def write(content: Mapping[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint beside its name, flush it to the disk, then rename it.

    Whenever the process or the machine dies, `path` is either the old file or the new one.

    Args:
        content: Tensors and plain values; `content["litlab"]["manifest"]` becomes its manifest.
        path: Where to.
        previous: Keeps the file that was there until the next one takes its place, if given.

    Raises:
        EnvironmentFault: It cannot be written; what was there before still is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(_write_into, content=content), previous=previous)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        what = f"a checkpoint cannot be written: {cause.strerror}"
        fix = "free the disk or make the folder writable, then train with --resume"
        raise EnvironmentFault(what, str(path), fix) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the system's own error; torch covers it with one of its archive's."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _write_into(file: BinaryIO, content: Mapping[str, Any]) -> None:
    torch.save(content, cast("IO[bytes]", file))
    with zipfile.ZipFile(file, "a") as archive:
        manifest = content.get(KEY, {}).get("manifest", {})
        archive.writestr(MANIFEST, dumps(manifest))
    digest = _digest(file, file.seek(-2, os.SEEK_END))  # before the comment's length, so far 0
    file.write(len(digest).to_bytes(2, "little") + digest)


def _digest(file: BinaryIO, end: int, more: bytes = b"") -> bytes:
    """Return the SHA-256 of a file's first bytes, of a comment's length of 0, and of more."""
    total = hashlib.sha256()
    file.seek(0)
    for start in range(0, end, CHUNK):
        total.update(file.read(min(CHUNK, end - start)))
    total.update(b"\0\0" + more)
    return total.hexdigest().encode()


def probe(folder: Path, size: int) -> None:
    """Find out whether a folder has room for checkpoints, by reserving it for a moment.

    Args:
        folder: Where they are to go.
        size: Bytes.

    Raises:
        EnvironmentFault: It has not, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        what = f"no room for checkpoints of {size / 2**20:.0f} MiB: {error.strerror}"
        fix = "free the disk, or choose another --out"
        raise EnvironmentFault(what, str(folder), fix) from None


def sweep(folder: Path) -> None:
    """Remove what a write that was killed has left."""
    for left in folder.glob(".*.ckpt.*tmp"):
        with suppress(OSError):
            left.unlink()


def verify(path: Path) -> Manifest:
    """Compare a checkpoint with its checksum and return its manifest.

    Raises:
        CheckpointError: It is missing, cut off, altered, or was not written by litlab.
    """
    if not path.is_file():
        found = not_a_file(path)
        what = f"is {found}, not a checkpoint" if found else "there is no such checkpoint"
        raise CheckpointError(what, str(path), "name a run or a .ckpt file")
    manifest = _verify(path)
    if manifest is None:
        raise CheckpointError("damaged: it has lost its checksum", str(path), OTHER)
    return manifest


def _verify(path: Path) -> Manifest | None:
    """Return the manifest of a checkpoint that fits its checksum; None if it has no checksum."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            comment = archive.comment
            if not comment:
                return None
            end = path.stat().st_size - len(comment) - 2
            digest, text = comment[:DIGEST], comment[DIGEST:]  # until 2026-11 the manifest too
            fits = digest == _digest(file, end, text)
            fits = fits and file.read(2) == len(comment).to_bytes(2, "little")
            text = text or archive.read(MANIFEST)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged archive leads zipfile to before the file
            raise CheckpointError(f"cannot be read: {error.strerror}", str(path), OTHER) from None
        fits = False
    except Exception:  # zipfile has no one type for what a bad file can do
        fits = False
    if not fits:
        raise CheckpointError("damaged: its checksum does not fit", str(path), OTHER)
    with suppress(ValueError):
        manifest = parse_json(text)
        if isinstance(manifest, dict):
            return manifest
    raise CheckpointError("its manifest is not a JSON object", str(path), OTHER)


def read(path: Path) -> dict[str, Any]:
    """Verify a checkpoint and unpack it; only tensors and plain values are accepted.

    Raises:
        CheckpointError: It is missing, damaged, or holds code, none of which was run.
    """
    summed = (_verify(path) if path.is_file() else verify(path)) is not None
    try:
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one type for what a bad file can do
        what = f"not a weights-only checkpoint ({type(error).__name__})"
        raise CheckpointError(what, str(path), OTHER) from None
    if not isinstance(content, dict):
        raise CheckpointError("not a litlab checkpoint", str(path), "name one that litlab wrote")
    if not summed and _schema(content) == SCHEMA:
        raise CheckpointError("damaged: it has lost its checksum", str(path), OTHER)
    return content


def _refuse_packed(path: Path) -> None:
    """Refuse what unpacks to more than the file has: torch stores weights as they are.

    Raises:
        ValueError: An entry is compressed, or several share their bytes.
    """
    if not zipfile.is_zipfile(path):
        return  # torch says what it is
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("compressed")


def _schema(content: dict[str, Any]) -> Any:
    metadata = content.get(KEY)
    return metadata.get("schema") if isinstance(metadata, dict) else None


class VerifiedCheckpointIO(CheckpointIO):
    """How Lightning's strategies write and read checkpoints: atomically, with a checksum."""

    def __init__(self) -> None:
        self._content: dict[str, Any] | None = None
        self._collects = False

    def content_of(self, trainer: pl.Trainer, path: Path) -> dict[str, Any]:
        """Return what a Trainer whose plugin this is would save now, and write nothing.

        All processes of a run call it together; only the first is given the content.

        Args:
            trainer: The Trainer.
            path: Where the content will be written.
        """
        self._content, self._collects = None, True
        try:
            trainer.save_checkpoint(path, weights_only=False)
            return self._content or {}
        finally:
            self._content, self._collects = None, False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, or hand it to `content_of`."""
        if self._collects:
            self._content = checkpoint
        else:
            write(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, whatever is asked for: nothing but weights is loaded."""
        return read(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)
