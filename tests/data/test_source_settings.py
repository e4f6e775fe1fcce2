"""Every setting of every source changes what is prepared, or is refused: none is ignored."""

import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from litlab.data.prepare.prepare import prepare
from litlab.data.sources.cifar import Cifar10, Cifar100
from litlab.data.sources.hub import Hub
from litlab.data.sources.idx import FashionMNIST, Idx
from litlab.data.sources.image_folder import ImageFolder
from litlab.data.sources.npz import Npz
from litlab.data.sources.plain_text import PlainText
from litlab.data.sources.synthetic import MNIST1D, Synthetic
from litlab.data.sources.table import Table
from litlab.data.sources.text import Text
from litlab.utils.errors import ConfigError, LitlabError
from made_data import make_config

CONF = Path(__file__).parents[2] / "conf"
RECORDS = {"licence": "other", "origin": "elsewhere"}
TOKENS = {"vocab_size": 9, "min_frequency": 30, "lowercase": False}


@dataclass
class Case:
    """A source on one kind of data.

    Attributes:
        source: The class.
        make: Writes the files into a folder and returns the settings that differ from the default.
        values: Other values, by setting; those of bool and Literal are found in the signature.
        same: Values that rightly change nothing, by setting.
        data: Settings of `data` beside the source's, where the default would not do.
    """

    source: Any
    make: Callable[[Path], dict[str, Any]]
    values: dict[str, Any] = field(default_factory=dict)
    same: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# The files


def npz(folder: Path, x: Any, **settings: Any) -> dict[str, Any]:
    y = np.arange(len(x)) % 3
    np.savez(folder / "a.npz", x=x, y=y, other=x[::-1], z=(y + 1) % 3)
    np.savez(folder / "b.npz", x=x[:-3], y=y[:-3])
    return {"path": str(folder / "a.npz"), **settings}


def table(folder: Path, *, parquet: bool = False, amounts: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    number = np.round(rng.normal(size=60), 3)
    frame = pd.DataFrame(
        {
            "a": rng.permutation(60),
            "b": number if parquet else [str(n).replace(".", ",") for n in number],
            "c": rng.choice(["red", "green", "blue"], 60),
            "g": np.arange(60) // 2,
            "t": np.arange(60),
            "y": number * 3 if amounts else rng.choice(["yes.", "no."], 60),
        }
    ).astype({"a": "Int64"})
    frame.loc[3, "a"], frame.loc[5, "a"] = None, -1
    frame["y"] = frame["y"].astype(str).str.replace(".", ",") if amounts else frame["y"]
    frame.loc[7, "y"] = None
    if parquet:
        frame.to_parquet(folder / "a.parquet")
        frame[:40].to_parquet(folder / "b.parquet")
    for name, rows in (("a.csv", frame), ("b.csv", frame[:40])):
        text = rows.to_csv(index=False)
        (folder / name).write_text(f"# a comment\n{text}")
    path = folder / ("a.parquet" if parquet else "a.csv")
    csv = {} if parquet else {"comment": "#", "decimal": ","}
    return {"path": str(path), "target": "y", "impute": "median", **csv}


WORDS = "the Film was good bad Dull fine never again one two three".split()  # noqa: SIM905


def texts(folder: Path, suffix: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    written = [" ".join(rng.choice(WORDS, 3 + i % 5)) + f" n{i}" for i in range(60)]
    written[7] = "" if suffix != "txt" else written[7]
    written[9] = 'a "quoted" text' if suffix in ("csv", "tsv") else written[9]
    frame = pd.DataFrame(
        {"text": written, "label": ["bad", "good", "dull"] * 20, "who": np.arange(60) // 2}
    )
    frame["text2"], frame["label2"] = frame["text"] + " more", frame["label"].str[:1]
    for stem, rows in (("a", frame), ("b", frame[:40])):
        path = folder / f"{stem}.{suffix}"
        if suffix == "parquet":
            rows.to_parquet(path)
        elif suffix == "jsonl":
            lines = [json.dumps(row) for row in rows.to_dict("records")]
            path.write_text("\n".join(lines))
        elif suffix == "txt":
            path.write_text("\n".join(f"{r.label} {r.text}" for r in rows.itertuples()))
        else:
            rows.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    return {"path": str(folder / f"a.{suffix}"), **({"empty": "pad"} if suffix != "txt" else {})}


def text_folder(folder: Path) -> dict[str, Any]:
    given = texts(folder, "jsonl")
    for root in ("a", "b"):
        lines = Path(given["path"]).read_text().splitlines()
        for i, line in enumerate(lines if root == "a" else lines[:40]):
            row = json.loads(line)
            (folder / root / row["label"]).mkdir(parents=True, exist_ok=True)
            (folder / root / row["label"] / f"{i}.txt").write_text(row["text"])
    return {"path": str(folder / "a"), "empty": "pad"}


def plain(folder: Path) -> dict[str, Any]:
    words = np.random.default_rng(0).choice([*WORDS, "\n"], 3000)
    (folder / "a.txt").write_text(" ".join(words))
    (folder / "b.txt").write_text(" ".join(words[:2500]))
    return {"path": str(folder / "a.txt")}


def pictures(folder: Path) -> dict[str, Any]:
    for root, number in (("a", 20), ("b", 15)):
        for i in range(number):
            for name in ("cat", "dog"):
                path = folder / root / name / f"p{i // 2}_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(8, 10, 3, seed=2 * i + (name == "dog"))).save(path)
    (folder / "a" / "cat" / "p0_0.png").write_bytes(b"no picture")
    return {"path": str(folder / "a"), "size": 6, "on_error": "skip"}


def idx(folder: Path) -> dict[str, Any]:
    for prefix, seed in (("a-", 0), ("b-", 1)):
        for part, number in (("train", 60), ("test", 20)):
            images = noise(number, 6, 6, seed=10 * seed + len(part))
            for content, array in (("images", images), ("labels", np.arange(number) % 3)):
                shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
                path = folder / f"{prefix}{part}-{content}-idx{array.ndim}-ubyte"
                head = bytes((0, 0, 8, array.ndim)) + shape
                path.write_bytes(head + array.astype(np.uint8).tobytes())
    return {"path": str(folder), "prefix": "a-"}


def fashion(folder: Path) -> dict[str, Any]:
    for name, prefix in (("a", "a-"), ("b", "b-")):
        (folder / name).mkdir()
        idx(folder / name)
        for path in (folder / name).iterdir():
            if path.name.startswith(prefix):
                path.rename(path.with_name(path.name[2:].replace("test", "t10k")))
    return {"folder": str(folder / "a")}


def cifar(folder: Path) -> dict[str, Any]:
    for name, seed in (("a", 0), ("b", 1)):
        (folder / name).mkdir()
        for part, number in (("train", 600), ("test", 200)):
            records = noise(number, 2 + 3072, seed=10 * seed + len(part))
            records[:, 1] = np.arange(number) % 100
            records[:, 0] = records[:, 1] % 20
            (folder / name / f"{part}.bin").write_bytes(records.tobytes())
        for label, number in (("fine", 100), ("coarse", 20)):
            names = "\n".join(f"{label} {i}" for i in range(number))
            (folder / name / f"{label}_label_names.txt").write_text(names)
    return {"path": str(folder / "a")}


def cifar10(folder: Path) -> dict[str, Any]:
    for name, seed in (("a", 0), ("b", 1)):
        (folder / name).mkdir()
        for i, file in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
            records = noise(50, 1 + 3072, seed=10 * seed + i)
            records[:, 0] = np.arange(50) % 10
            (folder / name / file).write_bytes(records.tobytes())
    return {"path": str(folder / "a")}


def hub(folder: Path, kind: str) -> dict[str, Any]:
    import datasets

    given: dict[str, Any] = {"path": str(folder / "a"), "target": "label", "test_split": "held"}
    if kind == "image":
        cells = [Image.fromarray(noise(8, 10, 3, seed=i)) for i in range(60)]
        frame: dict[str, Any] = {"image": cells, "other": cells[::-1]}
        given |= {"input": "image", "size": 6, "kind": "image"}
    elif kind == "text":
        rows = pd.read_json(texts(folder, "jsonl")["path"], lines=True)
        frame = {"text": rows["text"].tolist(), "other": rows["text2"].tolist()}
        given |= {"input": "text", "empty": "pad", "kind": "text"}
    else:
        table(folder)
        rows = pd.read_csv(folder / "a.csv", comment="#")
        frame = {"a": rows["a"].tolist(), "b": rows["t"].tolist(), "c": rows["c"].tolist()}
        frame |= {"g": rows["g"].tolist(), "t": rows["t"].tolist()}
        given |= {"impute": "median"}
    frame |= {"label": [0, 1, 2] * 20, "label2": [0, 1, 1] * 20, "who": list(range(60))}
    if kind == "tabular":
        del frame["who"]
    for name, number in (("a", 60), ("b", 50)):
        whole = datasets.Dataset.from_dict({key: cells[:number] for key, cells in frame.items()})
        parts = {"train": range(40), "extra": range(5, 45), "held": range(40, number)}
        parts["held2"] = range(41, number)
        made = datasets.DatasetDict({part: whole.select(rows) for part, rows in parts.items()})
        made.save_to_disk(str(folder / name))
    return given


# The cases

NPZ = {"path": "b.npz", "x": "other", "y": "z", "impute": "zero", **RECORDS}
CLASSES = {"task": ("classification",)}  # as auto decides
PICTURES = {
    **{"path": "b", "size": (5, 7), "group_pattern": r"^(p\d+)_", "dtype": "float32"},
    **{"train": ".", "val": "val", "test": "test", "labels": "labels.csv"},
    **{"file_column": "file", "label_column": "label", "split_column": "split"},
    **RECORDS,
}
TABLE = {
    **{"path": "b.csv", "val_path": "b.csv", "test_path": "b.csv", "target": "c"},
    **{"delimiter": ";", "names": ("A", "b", "c", "g", "t", "y"), "comment": "%"},
    **{"encoding": "utf-16", "na_values": ("-1",), "numeric": ("c",), "categorical": ("a",)},
    **{"drop": ("a",), "group": "g", "time": "t", "max_categories": 2, "label_suffix": "."},
    **{"header": False, "skip_start": 5, "skip_end": 3, "decimal": ".", "dates": {"c": "%Y"}},
    **{"missing_target": "refuse", "impute": "mean"},
    **RECORDS,
}
TEXT = {
    **{"val_path": "b", "test_path": "b", "text": "text2", "label": "label2", "columns": ("who",)},
    **{"encoding": "utf-16", "delimiter": ";", "label_names": ("good", "dull", "bad")},
    **{"task": "multi_label", "label_separator": "a"},
    **{"max_length": 3, **TOKENS, **RECORDS},
}
HUB = {
    **{"path": "b", "config": "other", "revision": "main", "input": "other", "target": "label2"},
    **{"train_split": "extra", "val_split": "extra", "test_split": "held2", "size": (5, 7)},
    **{"max_length": 3, **TOKENS, "numeric": ("c",), "categorical": ("a",), "drop": ("a",)},
    **{"group": "g", "time": "t", "na_values": ("-1",), "max_categories": 2},
    **{"dates": {"c": "%Y"}, "missing_target": "refuse", "impute": "mean"},
}
# data.group and data.time reach these settings, and samples of other kinds by their own columns.
OF_DATA = {"group": ("g",), "time": ("t",)}

CASES = {
    "npz-image": Case(
        Npz,
        lambda f: npz(f, noise(60, 4, 5, 4), channels="last"),
        NPZ,
        CLASSES,
    ),
    "npz-gray": Case(Npz, lambda f: npz(f, noise(60, 4, 5)), NPZ, CLASSES),
    "npz-sequence": Case(
        Npz,
        lambda f: npz(f, noise(60, 4, 7) / 7, kind="sequence"),
        NPZ,
        CLASSES,
    ),
    "npz-plain-sequence": Case(
        Npz, lambda f: npz(f, noise(60, 7) / 7, kind="sequence"), NPZ, CLASSES
    ),
    "npz-tabular": Case(Npz, lambda f: npz(f, noise(60, 7) / 7), NPZ, CLASSES),
    "table": Case(Table, table, TABLE, {"task": ("classification",)}),
    "table-regression": Case(
        Table, lambda f: table(f, amounts=True), TABLE, {"task": ("regression",)}
    ),
    "table-parquet": Case(
        Table,
        lambda f: table(f, parquet=True),
        {**TABLE, "path": "b.parquet", "val_path": "b.parquet", "test_path": "b.parquet"},
        # Numbers in Parquet are numbers already; texts with a comma are not in this file.
        {"task": ("classification",), "decimal": (".",)},
    ),
    "text-csv": Case(
        Text, lambda f: texts(f, "csv"), {**TEXT, "path": "b.csv"}, {"format": ("csv",)}
    ),
    "text-tsv": Case(
        Text, lambda f: texts(f, "tsv"), {**TEXT, "path": "b.tsv"}, {"format": ("tsv",)}
    ),
    "text-jsonl": Case(
        Text, lambda f: texts(f, "jsonl"), {**TEXT, "path": "b.jsonl"}, {"format": ("jsonl",)}
    ),
    "text-parquet": Case(
        Text, lambda f: texts(f, "parquet"), {**TEXT, "path": "b.parquet"}, {"format": ("parquet",)}
    ),
    "text-lines": Case(
        Text,
        lambda f: texts(f, "txt"),
        {**TEXT, "path": "b.txt"},
        {"format": ("lines",), "empty": ("pad",)},  # a line without a text has no label either
    ),
    "text-folder": Case(Text, text_folder, {**TEXT, "path": "b"}),
    "plain-text": Case(
        PlainText,
        plain,
        {**TOKENS, "path": "b.txt", "vocab_size": 9, "min_frequency": 300, "lowercase": True}
        | {"context_length": 7, "encoding": "utf-16"},
        data={"stratify": False, "allow": ["near_duplicates"]},
    ),
    "image-folder": Case(
        ImageFolder,
        pictures,
        PICTURES,
        {"color": ("rgb",), "train": (".",)},
    ),
    "image-folder-one-size": Case(
        ImageFolder,
        lambda f: pictures(f) | {"size": None},
        PICTURES,
        {"color": ("rgb",), "train": (".",)},
    ),
    "idx": Case(Idx, idx, {"path": "b", "prefix": "b-", **RECORDS}, data={"test_fraction": None}),
    "fashion-mnist": Case(FashionMNIST, fashion, {"folder": "b"}, data={"test_fraction": None}),
    "cifar10": Case(Cifar10, cifar10, {"path": "b"}, data={"test_fraction": None}),
    "cifar100": Case(Cifar100, cifar, {"path": "b"}, data={"test_fraction": None}),
    "mnist1d": Case(MNIST1D, lambda f: {}, {"seed": 1}, data={"test_fraction": None}),
    "synthetic": Case(
        Synthetic,
        lambda f: {"num_samples": 60},
        {"num_samples": 50, "num_classes": 4, "seed": 1},
    ),
    "hub-image": Case(
        Hub,
        lambda f: hub(f, "image"),
        HUB,
        {"color": ("rgb",), "kind": ("auto",), "task": ("classification",), **OF_DATA},
        {"test_fraction": None},
    ),
    "hub-text": Case(
        Hub,
        lambda f: hub(f, "text"),
        HUB,
        {"kind": ("auto",), "task": ("classification",), **OF_DATA},
        {"test_fraction": None},
    ),
    "hub-tabular": Case(
        Hub,
        lambda f: hub(f, "tabular"),
        HUB,
        {"kind": ("tabular",), "missing_target": ("refuse",)},
        {"test_fraction": None},
    ),
}


def parameters(source: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(source).parameters)


def others(case: Case, name: str, value: Any, folder: Path) -> Iterator[Any]:
    """Other values of a setting: every one of a Literal, else the one that the case gives."""
    hint = get_type_hints(case.source.__init__)[name]
    if get_origin(hint) is Literal:
        yield from (choice for choice in get_args(hint) if choice != value)
    elif hint is bool and name not in case.values:
        yield not value
    else:
        other = case.values[name]  # a new setting needs a value here that matters
        is_path = name in ("path", "folder", "val_path", "test_path")
        if name in ("val_path", "test_path") and not Path(other).suffix:
            other += Path(case.values["path"]).suffix
        yield str(folder / other) if is_path else other


def outcome(case: Case, settings: dict[str, Any], folder: Path) -> object:
    """What is prepared, with what warnings; or how it is refused."""
    target = f"{case.source.__module__}.{case.source.__name__}"
    config = make_config(source={"_target_": target, **settings}, **case.data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            spec = prepare(config, folder)
        except LitlabError as error:
            return str(error)
    spec_only = spec.model_dump(exclude={"settings", "source_files"})
    return spec_only, sorted(str(warning.message) for warning in warned)


@pytest.fixture(autouse=True)
def _few_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MNIST-1D make 200 samples and not 5,000."""
    from mnist1d.data import get_dataset_args

    def few() -> Any:
        arguments = get_dataset_args()
        arguments.num_samples = 200
        return arguments

    monkeypatch.setattr("mnist1d.data.get_dataset_args", few)


@pytest.mark.parametrize("name", CASES)
def test_no_setting_is_ignored(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    base = case.make(tmp_path)
    before = outcome(case, base, tmp_path / "out")
    assert isinstance(before, tuple), before
    ignored = []
    for setting, parameter in parameters(case.source).items():
        value = base.get(setting, parameter.default)
        for other in others(case, setting, value, tmp_path):
            same = outcome(case, base | {setting: other}, tmp_path / "out") == before
            if same != (other in case.same.get(setting, ())):
                ignored.append(f"{setting}={other}")
    assert not ignored


def test_every_source_is_walked() -> None:
    nodes = [yaml.safe_load(path.read_text())["data"] for path in CONF.glob("data/*.yaml")]
    targets = {node["source"].get("_target_", "???") for node in nodes} - {"???"}
    walked = {f"{case.source.__module__}.{case.source.__name__}" for case in CASES.values()}
    without_settings = set()
    for target in targets - walked:
        module, _, name = target.rpartition(".")
        source = getattr(__import__(module, fromlist=[name]), name)
        if not parameters(source):
            without_settings.add(target)
    assert targets == walked | without_settings


@pytest.mark.parametrize("setting", ["columns", "group_pattern"])
def test_what_splits_may_go_by_needs_such_a_split(setting: str, tmp_path: Path) -> None:
    source = {"_target_": "litlab.data.sources.text.Text", "path": "x", setting: "who"}
    with pytest.raises(ConfigError, match=f"data.source.{setting} has no effect"):
        prepare(make_config(source=source), tmp_path / "out")
