"""Reads new texts for a network to label, or to measure a language model on."""

import warnings
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.encode.text import TextEncoder
from litlab.data.sources.text_files import FORMAT_OF, Layout, MissingColumn, lines_of, read_whole
from litlab.data.sources.text_files import read_rows as read_text_rows
from litlab.data.spec import Array, DataSpec
from litlab.utils.errors import DataError, nearest


def read_texts(path: Path, spec: DataSpec) -> tuple[list[str], list[Array]]:
    """Return a name and the token ids of each text, as `prepare` would store them.

    CSV, TSV, JSON lines and Parquet have a column of the name that the training data's had; of a
    folder, each `.txt` is a text; of any other file, each line. What is not UTF-8 is read in the
    training data's encoding, with a warning.

    Raises:
        DataError: There are no texts, or the file is not what it should be.
    """
    settings = spec.settings.get("source", {})
    source = settings if isinstance(settings, dict) else {}
    encoding = str(source.get("encoding", "utf-8"))
    try:
        pairs = _read(path, source, "utf-8")
    except DataError as error:
        if not error.what.startswith("not utf-8") or encoding.lower() in ("utf-8", "utf8"):
            raise
        warnings.warn(f"{error.what}: read as {encoding}, as the training data", stacklevel=2)
        pairs = _read(path, source, encoding)
    if not pairs:
        raise DataError("the file has no texts", str(path), "write one text per line")
    return [name for name, _ in pairs], encode_texts((text for _, text in pairs), spec)


def encode_texts(texts: Iterable[str], spec: DataSpec) -> list[Array]:
    """Return each text's ids `(its length,)`, int32; warn of texts that were cut, or are empty.

    Raises:
        DataError: The data were not prepared by a tokenizer.
    """
    encoder = TextEncoder.of(spec)
    encoded = encoder.encode(texts)
    for note in encoder.notes():
        warnings.warn(note, stacklevel=3)
    return encoded


def _read(path: Path, source: Mapping[str, Any], encoding: str) -> list[tuple[str, str]]:
    """Pairs of a name and a text."""
    if path.is_dir():
        files = sorted(path.rglob("*.txt"))
        return [
            (file.relative_to(path).as_posix(), read_whole(file, encoding).strip())
            for file in files
        ]
    if path.suffix.lower() not in FORMAT_OF:
        return [(f"{path.name}:{n}", line.strip()) for n, line in lines_of(path, encoding)]
    layout = Layout(
        encoding=encoding,
        delimiter=source.get("delimiter"),
        header=source.get("header", True),
        quotes=source.get("quotes", True),
    )
    first = 1 if layout.format_of(path) == "parquet" else 0  # it has rows, from 0, and no lines
    column = str(source.get("text", "text"))
    try:
        return [
            (f"{path.name}:{number - first}", "" if cell is None else str(cell).strip())
            for _, number, (cell,) in read_text_rows(path, [column], layout)
        ]
    except MissingColumn as error:
        what = f"{error.what}, the model was trained with it"
        fix = f"rename '{error.close}' to '{column}'" if error.close else error.fix
        raise DataError(what, error.where, fix) from None


def read_words(path: Path, spec: DataSpec) -> Array:
    """Return the ids of a file's lines, padded, by the words of `spec.vocabulary`, `(N, L)`.

    Raises:
        DataError: The file is not UTF-8, or a word is not in the vocabulary.
    """
    known = {word: i for i, word in enumerate(spec.vocabulary)}
    length, pad = spec.shape[0], spec.pad_id or 0
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    rows, cut = [], 0
    for number, line in enumerate(StringIO(text.removeprefix("\ufeff"), newline=None), start=1):
        words = line.split()
        unknown = [word for word in words if word not in known]
        if unknown:
            hint = nearest(unknown[0], known)
            raise DataError(
                f"line {number}: '{unknown[0]}' is not in the vocabulary",
                str(path),
                hint if len(known) < 20 or "mean" in hint else f"use only its {len(known)} words",
            )
        cut += len(words) > length
        ids = [known[word] for word in words[:length]]
        rows.append(ids + [pad] * (length - len(ids)))
    if cut:
        warnings.warn(f"{cut} lines are longer than {length} words and were cut", stacklevel=2)
    return np.array(rows, dtype=np.int64).reshape(-1, length)
