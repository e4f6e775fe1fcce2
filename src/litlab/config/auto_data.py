"""`data=auto`: which preset reads a path, by the files' names and a look at their first lines."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from litlab.utils.errors import ConfigError
from litlab.utils.files import dumps
from litlab.utils.output import one_line, say
from litlab.utils.paths import project_root

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
TABLES = {".csv", ".tsv", ".tab", ".data", ".dat", ".parquet", ".pq", ".xls", ".xlsx"}
LINES, BYTES = 200, 2**20  # of a file are looked at, at most
WORDS = 4  # on average make a column one of texts
TEXT_NAMES = re.compile(r"text|sentence|review|message|body|content|comment|tweet|question", re.I)
LABELS = re.compile(r"labels?|class(es)?|target|category|sentiment|y", re.I)
PARTS = {
    "val_path": re.compile(r"(val|valid|validation|dev)\b", re.I),
    "test_path": re.compile(r"(test|testing)\b", re.I),
}


class Found(NamedTuple):
    """What fits a path.

    Attributes:
        preset: Of conf/data.
        settings: Its settings, by dotted name.
        why: In words.
    """

    preset: str
    settings: dict[str, str]
    why: str


def expand(overrides: Sequence[str]) -> list[str]:
    """Replace `data=auto` by the preset that fits `data.path`, and say which.

    Args:
        overrides: As typed; `data.target` names the column to predict.

    Raises:
        ConfigError: There is no `data.path`, or nothing there that a preset reads.
    """
    if "data=auto" not in overrides:
        return list(overrides)
    given = dict(o.partition("=")[::2] for o in overrides if "=" in o)
    if "data.path" not in given:
        raise ConfigError("data=auto needs a path", "data=auto", "add data.path=FILE_OR_FOLDER")
    path = project_root() / Path(_unquoted(given["data.path"])).expanduser()
    found = look(path, _unquoted(given.get("data.target", "")) or None)
    replaced = {"data", "data.target"} | ({"data.path"} & found.settings.keys())
    kept = [o for o in overrides if o.partition("=")[0] not in replaced]
    settings = {"data.name": name_of(path)} | found.settings
    given = dict(o.partition("=")[::2] for o in kept)
    new = [override(key, value) for key, value in settings.items() if key not in given]
    say(f"data={found.preset}: {one_line(found.why)}")
    return [f"data={found.preset}", *new, *kept]


def override(key: str, value: str) -> str:
    """Return a setting as an override that Hydra reads as this text; null is none."""
    return f"{key}={_quoted(value)}"


def name_of(path: Path) -> str:
    """Return a name for the prepared data of a path."""
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    return re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower()[:60] or "data"


def look(path: Path, target: str | None = None) -> Found:
    """Return the preset of conf/data that reads what lies at a path.

    Args:
        path: A file or folder.
        target: The column to predict, or the array, if there are several.

    Raises:
        ConfigError: Nothing is there, or nothing that a preset reads, or nothing that has a target.
    """
    found = _look(path, target)
    if target is None or target in found.settings.values():
        return found
    if found.preset == "npz":
        return found._replace(settings=found.settings | {"data.source.y": target})
    what = f"{found.why}: there is no column to name"
    raise ConfigError(what, f"target {target}", "leave it out")


def _look(path: Path, target: str | None) -> Found:
    if path.is_dir():
        return _folder(path, target)
    if not path.is_file():
        raise ConfigError("there is no such file or folder", str(path), "check data.path")
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    if suffixes & {".npz", ".npy"}:
        return Found("npz", {}, f"{path.name} holds NumPy arrays")
    if suffixes & {".jsonl", ".ndjson", ".json"}:
        return _json(path, target)
    if suffixes & TABLES:
        return _table(path, target)
    if re.search(r"idx[123]-ubyte", path.name):
        return Found("idx", {"data.path": _typed(path.parent)}, f"{path.name} is an IDX file")
    if suffixes & PICTURES:
        fix = f"give the folder of all pictures: data.path={path.parent}"
        raise ConfigError("a single picture", str(path), fix)
    return _text(path, target)


def _folder(path: Path, target: str | None) -> Found:
    files = [f for f in _walk(path) if f.is_file()]
    kinds = [f.suffix.lower() for f in files]
    if any(re.search(r"idx[123]-ubyte", f.name) for f in files):
        return Found("idx", {}, f"{path.name}/ holds IDX files")
    if any(kind in PICTURES for kind in kinds):
        return Found("image_folder", {}, f"{path.name}/ holds pictures")
    if {".npy", ".npz"} & set(kinds):
        return Found("npz", {}, f"{path.name}/ holds NumPy arrays")
    tables = sorted(f for f in files if f.suffix.lower() in TABLES and f.parent == path)
    if tables:
        parts = {key: [f for f in tables if name.match(f.stem)] for key, name in PARTS.items()}
        rest = [f for f in tables if not any(f in found for found in parts.values())]
        if len(rest) == 1:
            found = look(rest[0], target)
            more = {f"data.source.{key}": _typed(f[0]) for key, f in parts.items() if f}
            more |= {"data.test_fraction": "null"} if parts["test_path"] else {}
            return found._replace(settings={"data.path": _typed(rest[0])} | found.settings | more)
        names = ", ".join(f.name for f in tables[:5])
        fix = f"name one of them, e.g. data.path={tables[0]}"
        raise ConfigError(f"a folder of several tables ({names})", str(path), fix)
    if ".txt" in kinds and any(f.parent != path for f in files):
        return Found("text", {}, f"{path.name}/ holds folders of texts")
    what = f"no pictures, arrays, tables or texts among {len(files):,} files"
    raise ConfigError(what, str(path), "choose a preset: data=image_folder, npz, table, text, hub")


def _typed(path: Path) -> str:
    """A path as a setting has it: from the project's root where it lies below."""
    root = project_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _walk(path: Path, most: int = 5000) -> list[Path]:
    """The files below a folder, at most some thousands, without hidden ones."""
    found: list[Path] = []
    for file in path.rglob("*"):
        if not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(path).parts):
            found.append(file)
        if len(found) >= most:
            break
    return found


def _json(path: Path, target: str | None) -> Found:
    lines = _first_lines(path)
    try:
        sample = json.loads(lines[0]) if lines else {}
    except (ValueError, RecursionError):
        sample = {}
    sample = sample[0] if isinstance(sample, list) and sample else sample
    sample = sample if isinstance(sample, dict) else {}
    texts = [k for k, v in sample.items() if isinstance(v, str) and k != target]
    longest = max(texts, key=lambda name: len(sample[name]), default="text")
    text = next((name for name in texts if TEXT_NAMES.search(name)), longest)
    label = target or next((k for k in sample if LABELS.fullmatch(k)), "label")
    settings = {"data.source.text": text, "data.source.label": label}
    return Found("text", settings, f"{path.name} holds JSON, its texts under '{text}'")


def _table(path: Path, target: str | None) -> Found:
    """A table; one whose only column beside the target is long text is a set of labelled texts."""
    columns = {} if path.suffix.lower() in (".parquet", ".pq") else _columns(path)
    names = list(columns)
    label = target or next((name for name in names if LABELS.fullmatch(name)), None)
    texts = [name for name in names if name != label and _is_text(columns[name])]
    others = [name for name in names if name not in (label, *texts)]
    if len(texts) == 1 and label in names and len(others) <= 1:
        settings = {"data.source.text": texts[0], "data.source.label": str(label)}
        why = f"column '{texts[0]}' of {path.name} holds texts, '{label}' their labels"
        return Found("text", settings, why)
    if label is None:
        known = f": {', '.join(map(repr, names[:30]))}" if names else ""
        fix = f"name the column to predict: data.target={_quoted(names[-1]) if names else 'COLUMN'}"
        raise ConfigError(f"which column is to be predicted{known}?", str(path), fix)
    return Found("table", {"data.source.target": label}, f"{path.name} is a table")


def _columns(path: Path) -> dict[str, list[str]]:
    """The first cells of each column, as far as a quick look can tell columns apart."""
    lines = _first_lines(path)
    try:
        style: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff("\n".join(lines), ",;\t|")
    except csv.Error:
        style = csv.excel
    try:
        rows = [row for row in csv.reader(lines, style) if row]
    except csv.Error:  # a cell without an end: the source says where
        return {}
    if not rows:
        return {}
    return {name.strip(): [r[i] for r in rows[1:] if i < len(r)] for i, name in enumerate(rows[0])}


def _is_text(cells: list[str]) -> bool:
    return bool(cells) and mean(len(cell.split()) for cell in cells) >= WORDS


def _text(path: Path, target: str | None) -> Found:
    lines = [line for line in _first_lines(path) if line.strip()]
    if not lines:
        raise ConfigError("the file is empty", str(path), "give another data.path")
    fields = [len(re.split(r"[\t;,|]", line)) for line in lines]
    if target or (len(set(fields)) == 1 and fields[0] > 2):
        return _table(path, target)
    first = [line.split(maxsplit=1)[0] for line in lines]
    labelled = all(word.startswith("__label__") for word in first)
    if labelled or (len(lines) > 10 and len(set(first)) <= max(2, len(lines) // 10)):
        return Found("text", {}, f"{path.name} holds lines of a label and a text")
    return Found("plain_text", {}, f"{path.name} is running text, for a language model")


def _first_lines(path: Path) -> list[str]:
    """The first lines of a text, gzipped or not; of a long one without an end, its beginning."""
    import gzip
    import zlib

    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read(BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot be read: {error}", str(path), "check data.path") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = content.decode(encoding, "replace").splitlines()
    if len(content) == BYTES and len(lines) > 1:
        lines = lines[:-1]  # which is cut
    return lines[:LINES]


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] in "'\"" else value


def _quoted(value: str) -> str:
    """A value as Hydra's grammar takes it."""
    plain = re.fullmatch(r"[\w./-]+", value, re.ASCII) or value == "null"
    return value if plain else dumps(value, ensure_ascii=False)
