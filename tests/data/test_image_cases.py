"""Folders of pictures as people have them: what is decided of them, and what they become."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litlab.data.inputs.read_input import read_input
from litlab.data.prepare.prepare import prepare
from litlab.data.prepare.validate import check_raw
from litlab.data.raw import Raw
from litlab.data.sources.image_folder import ImageFolder
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, DataError, LitlabError
from made_data import make_config

RNG = np.random.default_rng(0)


def put(path: Path, array: np.ndarray | None = None, size: tuple[int, int] = (6, 5)) -> Path:
    """Write a picture, of noise if none is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8) if array is None else array
    Image.fromarray(pixels).save(path)
    return path


def put_all(root: Path, folders: Sequence[str], number: int = 3) -> Path:
    for folder in folders:
        for i in range(number):
            put(root / folder / f"{folder.replace('/', '-')}{i}.png")
    return root


def read(root: Path, **settings: Any) -> Raw:
    return ImageFolder(path=str(root), **settings).read()


def refused(root: Path, **settings: Any) -> LitlabError:
    with pytest.raises((DataError, ConfigError)) as caught:
        read(root, **settings)
    return caught.value


def decided(raw: Raw) -> dict[str, Any]:
    """The decisions, each by the last part of its setting."""
    assert all(d.why for d in raw.reading.decisions)
    return {d.setting.removeprefix("data.source."): d.value for d in raw.reading.decisions}


def named(raw: Raw) -> dict[str, list[tuple[str, str]]]:
    """Each part's pictures with their classes."""
    return {
        part: [(name, raw.classes[label]) for name, label in zip(x.names, y.tolist(), strict=True)]
        for part, (x, y) in raw.parts.items()
    }


def everything(raw: Raw, part: str = "all") -> np.ndarray:
    x, _ = raw.parts[part]
    return x[np.arange(len(x))]


# Splits of publishers


LAYOUTS: dict[str, tuple[list[str], dict[str, int], dict[str, str]]] = {
    # Folders of three pictures each; images by part; decisions.
    "documented": (["train/a", "train/b", "test/a", "test/b"], {"train": 6, "test": 6}, {}),
    "sets": (
        ["training_set/a", "training_set/b", "test_set/a", "test_set/b"],
        {"train": 6, "test": 6},
        {"train": "training_set", "test": "test_set"},
    ),
    "nested twice": (
        ["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a"],
        {"train": 6, "test": 3},
        {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
    ),
    "dev and testing": (
        ["train/a", "train/b", "dev/a", "testing/b"],
        {"train": 6, "val": 3, "test": 3},
        {"train": "train", "val": "dev", "test": "testing"},
    ),
    "in one folder": (
        ["data/Train/a", "data/Train/b", "data/Valid/a"],
        {"train": 6, "val": 3},
        {"train": "data/Train", "val": "data/Valid"},
    ),
    "classes in one folder": (["photos/a", "photos/b"], {"all": 6}, {"train": "photos"}),
    "train alone": (["train/a", "train/b"], {"all": 6}, {"train": "train"}),
    "a class called train": (["bus", "car", "train"], {"all": 9}, {}),
    "left behind": (["a", "b", "__MACOSX", ".ipynb_checkpoints", "@eaDir"], {"all": 6}, {}),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_folders_named_like_splits_are_splits(case: str, tmp_path: Path) -> None:
    folders, sizes, decisions = LAYOUTS[case]
    root = put_all(tmp_path / "root", folders)
    raw = read(root)
    assert {part: len(x) for part, (x, _) in raw.parts.items()} == sizes
    assert decided(raw) == decisions
    assert named(read(root, **decisions)) == named(raw)
    classes = {Path(f).name for f in folders if not f.startswith((".", "@", "_"))}
    assert raw.classes == sorted(classes)


@pytest.mark.parametrize("inner", ["", "seg_pred/"])
def test_pictures_without_classes_are_for_predict(inner: str, tmp_path: Path) -> None:
    root = put_all(tmp_path, ["seg_train/a", "seg_train/b", "seg_test/a"])
    for i in range(4):
        put(root / "seg_pred" / inner / f"{i}.png")
    raw = read(root)
    assert list(raw.parts) == ["train", "test"]
    assert raw.classes == ["a", "b"]
    reason = "4 images without class folders: label them with `litlab predict`"
    assert raw.reading.left_out == {"seg_pred/": reason}


def test_a_test_folder_without_labels_is_left_out(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["train/a", "train/b", "test"])
    raw = read(root)
    assert list(raw.parts) == ["all"]
    assert raw.reading.left_out == {
        "test/": "3 images without class folders: label them with `litlab predict`"
    }


def test_what_lies_beside_splits_is_asked_about_at_once(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["train/a", "train/b", "test/a", "aug/a", "masks"])
    (root / "docs").mkdir()
    (root / "docs" / "x.txt").write_text("no images here")
    error = refused(root)
    assert error.what.endswith("there are folders that are not a split: 'aug', 'masks'")
    fix = "leave them out with data.source.train=train data.source.test=test"
    assert error.fix.startswith(fix)
    raw = read(root, train="train", test="test")
    assert list(raw.parts) == ["train", "test"]
    assert list(raw.reading.left_out) == ["aug/", "docs/", "masks/"]


def test_the_same_split_twice_and_a_stranger_are_refused_together(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["train/a", "train/b", "val/a", "validation/a", "extra/b"])
    error = refused(root)
    assert str(error).count("error: ") == 2
    assert "'val' and 'validation' are both val" in str(error)
    assert "'extra'" in str(error)


def test_folders_named_like_splits_may_be_classes(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["training_set", "test_set"])
    raw = read(root, train=".")
    assert raw.classes == ["test_set", "training_set"]


def test_classes_in_the_root_beside_a_test_folder(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b", "held/a", "held/b"])
    raw = read(root, train=".", test="held")
    assert {part: len(x) for part, (x, _) in raw.parts.items()} == {"train": 6, "test": 6}
    assert raw.classes == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"test": "test"}, "data.source.test is set, but the folder of the train split is not"),
        ({"train": "trian", "test": "nothing"}, "there is no folder 'trian' in it"),
        ({"train": "../other"}, "there is no folder '../other' in it"),
        ({"train": "train", "labels": "labels.csv"}, "data.source.labels and folders of splits"),
        ({"label_column": "x"}, "data.source.label_column has no effect"),
    ],
)
def test_folders_that_are_not_there(settings: Any, what: str, tmp_path: Path) -> None:
    put_all(tmp_path / "other", ["a", "b"])
    root = put_all(tmp_path / "root", ["train/a", "train/b", "test/a"])
    assert what in str(refused(root, **settings))


def test_every_empty_class_is_named_with_what_it_holds(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b"])
    for name, suffix in (("c", "heic"), ("d", "mp4"), ("e", "txt")):
        (root / name).mkdir()
        (root / name / f"x.{suffix}").write_text("x")
    message = str(refused(root))
    assert message.count("error: no images of class") == 3
    assert "it holds 1 .heic" in message
    assert "magick mogrify" in message
    assert "videos are not supported" in message


def test_pictures_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b"])
    (root / "a" / "x.heic").write_text("x")
    (doubt,) = read(root).reading.doubts
    assert doubt.startswith("1 .heic files are left out: convert them")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("x")
    assert "unpack the archive" in refused(tmp_path / "a.zip").fix


@pytest.mark.parametrize("masks", ["masks", "image_masks", "labels"])
def test_masks_are_no_class(masks: str, tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / "images" / f"{i}.png")
        put(tmp_path / masks / f"{i}_mask.png")
    error = refused(tmp_path)
    assert f"'{masks}' has a file for each of 'images'" in error.what
    assert "data.source.train=." in error.fix
    assert read(tmp_path, train=".").classes == sorted(["images", masks])


# A table of labels


def csv_of(rows: Sequence[Sequence[object]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


ROWS = [(f"{i}.png", "ab"[i % 2]) for i in range(6)]
DECIDED = {"labels": "labels.csv", "file_column": "file", "label_column": "label"}
TABLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # Name of the table, content, decisions.
    "csv": ("labels.csv", csv_of([("file", "label"), *ROWS]), DECIDED),
    "semicolons": ("labels.csv", csv_of([("file", "label"), *ROWS], ";"), DECIDED),
    "tabs": (
        "labels.tsv",
        csv_of([("file", "label"), *ROWS], "\t"),
        DECIDED | {"labels": "labels.tsv"},
    ),
    "bom": ("labels.csv", "\ufeff" + csv_of([("file", "label"), *ROWS]), DECIDED),
    "without suffix": (
        "train.csv",
        csv_of([("id", "breed"), *((name[:-4], label) for name, label in ROWS)]),
        {"labels": "train.csv", "file_column": "id", "label_column": "breed"},
    ),
    "with folders": (
        "labels.csv",
        csv_of([("file", "label"), *((f"images/{name}", label) for name, label in ROWS)]),
        DECIDED,
    ),
    "no header": (
        "labels.csv",
        csv_of(ROWS),
        {"labels": "labels.csv", "file_column": "column0", "label_column": "column1"},
    ),
    "unknown name": (
        "labels.csv",
        csv_of([("path", "colour"), *ROWS]),
        {"labels": "labels.csv", "file_column": "path", "label_column": "colour"},
    ),
    "more columns": (
        "labels.csv",
        csv_of([("label", "file", "age"), *((b, a, 7) for a, b in ROWS)]),
        DECIDED,
    ),
    "one-hot": (
        "truth.csv",
        csv_of([("image", "a", "b"), *((n, int(c == "a"), int(c == "b")) for n, c in ROWS)]),
        {"labels": "truth.csv", "file_column": "image"},
    ),
    "json by file": ("labels.json", json.dumps(dict(ROWS)), DECIDED | {"labels": "labels.json"}),
    "json rows": (
        "labels.json",
        json.dumps([{"file": name, "label": label} for name, label in ROWS]),
        DECIDED | {"labels": "labels.json"},
    ),
    "json lines": (
        "metadata.jsonl",
        "".join(json.dumps({"file_name": name, "label": [label]}) + "\n" for name, label in ROWS),
        {"labels": "metadata.jsonl", "file_column": "file_name", "label_column": "label"},
    ),
}


@pytest.mark.parametrize("where", [".", "images"])
@pytest.mark.parametrize("case", TABLES)
def test_labels_from_a_table(case: str, where: str, tmp_path: Path) -> None:
    name, content, decisions = TABLES[case]
    if case == "with folders" and where == ".":
        where = "images"
    for number in range(7):  # one of them is not in the table
        put(tmp_path / where / f"{number}.png")
    (tmp_path / name).write_text(content, encoding="utf-8")
    raw = read(tmp_path)
    found = {Path(file).name: label for file, label in named(raw)["all"]}
    assert found == dict(ROWS)
    assert decided(raw) == decisions
    assert f"1 images have no label in {name}: left out" in raw.notes()
    assert named(read(tmp_path, **decisions)) == named(raw)


def labelled(root: Path, rows: Sequence[Sequence[object]], number: int = 6) -> Path:
    for i in range(number):
        put(root / f"{i}.png")
    (root / "labels.csv").write_text(csv_of(rows))
    return root


def test_a_table_may_name_splits_and_groups(tmp_path: Path) -> None:
    rows = [
        (name, label, "train" if i < 4 else "test", f"p{i}") for i, (name, label) in enumerate(ROWS)
    ]
    raw = read(labelled(tmp_path, [("file", "label", "split", "patient"), *rows]))
    assert {part: len(x) for part, (x, _) in raw.parts.items()} == {"train": 4, "test": 2}
    assert decided(raw)["split_column"] == "split"
    assert raw.columns["test"]["patient"].tolist() == ["p4", "p5"]


@pytest.mark.parametrize("form", ["a|b", "a b", "json", "columns"])
def test_several_labels_an_image(form: str, tmp_path: Path) -> None:
    given = [["a"], ["b"], ["a", "b"], ["b"], ["a", "b"], ["a"]]
    if form == "columns":
        rows = [[f"{i}.png", int("a" in x), int("b" in x)] for i, x in enumerate(given)]
        labelled(tmp_path, [("file", "a", "b"), *rows])
    else:
        mark = "|" if form == "json" else form[1]
        labelled(
            tmp_path,
            [("file", "label"), *((f"{i}.png", mark.join(x)) for i, x in enumerate(given))],
        )
    if form == "json":
        (tmp_path / "labels.csv").unlink()
        content = {f"{i}.png": labels for i, labels in enumerate(given)}
        (tmp_path / "labels.json").write_text(json.dumps(content))
    raw = read(tmp_path)
    assert (raw.task, raw.classes) == ("multi_label", ["a", "b"])
    assert decided(raw)["task"] == "multi_label"
    x, y = raw.parts["all"]
    found = {name: list(labels) for name, labels in zip(x.names, y.tolist(), strict=True)}
    assert found == {f"{i}.png": ["a" in x, "b" in x] for i, x in enumerate(given)}
    check_raw(raw, "made")
    assert len(read(tmp_path, task="classification").classes) == 3


def test_amounts_are_a_regression(tmp_path: Path) -> None:
    rows = [("file", "age"), *((f"{i}.png", 20.5 + i) for i in range(6))]
    raw = read(labelled(tmp_path, rows))
    assert (raw.task, raw.targets) == ("regression", ["age"])
    assert sorted(raw.parts["all"][1][:, 0].tolist()) == [20.5 + i for i in range(6)]
    assert decided(raw)["task"] == "regression"
    assert read(tmp_path, task="classification").task == "classification"


@pytest.mark.parametrize(
    ("rows", "settings", "what", "fix"),
    [
        (
            [("file", "label"), ("0.png", "a"), ("0.png", "b"), *ROWS[1:]],
            {},
            "0.png has two labels, 'a' and 'b'",
            "one cell",
        ),
        (
            [("file", "size", "colour"), *((a, b, b) for a, b in ROWS)],
            {},
            "(columns: size, colour)",
            "data.source.label_column",
        ),
        ([("file", "label"), *ROWS], {"labels": "label.csv"}, "no file 'label.csv'", "labels.csv"),
        (
            [("file", "label"), *ROWS],
            {"labels": "labels.csv", "label_column": "lable"},
            "no column 'lable'",
            "'label'",
        ),
        (
            [("file", "label"), *((f"no{i}.png", "a") for i in range(6))],
            {"labels": "labels.csv"},
            "0% of the rows name an image",
            "file_column",
        ),
        ([("file", "label"), *((name, "a") for name, _ in ROWS)], {}, "a single class, 'a'", ""),
    ],
)
def test_tables_that_are_not_clear(
    rows: Any, settings: Any, what: str, fix: str, tmp_path: Path
) -> None:
    error = refused(labelled(tmp_path, rows), **settings)
    assert what in error.what
    assert fix in error.fix


def test_two_tables_that_name_the_pictures_are_asked_about(tmp_path: Path) -> None:
    root = labelled(tmp_path, [("file", "label"), *ROWS])
    (root / "other.csv").write_text(csv_of([("file", "label"), *ROWS]))
    error = refused(root)
    assert "several tables name the images: labels.csv, other.csv" in error.what
    assert read(root, labels="other.csv").classes == ["a", "b"]


def test_class_folders_count_for_more_than_a_table(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b"])
    (root / "info.csv").write_text(csv_of([("file", "label"), ("a0.png", "x"), ("b0.png", "y")]))
    assert read(root).classes == ["a", "b"]


# Pixels of more than eight bits


def deep(make: Callable[[int], np.ndarray], root: Path, suffix: str, number: int = 12) -> Path:
    for i in range(number):
        put(root / "ab"[i % 2] / f"{i}.{suffix}", make(i))
    return root


@pytest.mark.parametrize(
    ("suffix", "make", "mode"),
    [
        ("png", lambda i: RNG.integers(0, 4096, (6, 5)).astype(np.uint16), "16 bits"),
        ("tif", lambda i: RNG.integers(0, 4096, (6, 5)).astype(np.uint16), "16 bits"),
        ("tif", lambda i: RNG.normal(0.5, 0.1, (6, 5)).astype(np.float32), "floats"),
    ],
)
def test_deep_pixels_keep_their_values(suffix: str, make: Any, mode: str, tmp_path: Path) -> None:
    root = deep(make, tmp_path, suffix)
    raw = read(root)
    assert raw.dtype == "float32"
    (decision,) = raw.reading.decisions
    assert (decision.setting, decision.value) == ("data.source.dtype", "float32")
    assert mode in decision.why
    for image, name in zip(everything(raw), raw.parts["all"][0].names, strict=True):
        np.testing.assert_array_equal(image[0], np.asarray(Image.open(root / name)))
    assert raw.notes() == []
    assert everything(read(root, size=4)).shape == (12, 1, 4, 4)
    assert everything(read(root, color="rgb")).shape == (12, 3, 6, 5)


def test_a_few_deep_pictures_among_bytes_are_pointed_out(tmp_path: Path) -> None:
    root = deep(lambda i: np.full((6, 5), 255, np.uint8), tmp_path, "png")
    put(root / "a" / "0.png", np.full((6, 5), 40000, np.uint16))
    raw = read(root)
    assert raw.dtype == "uint8"
    assert [s.setting for s in raw.reading.suggestions] == ["data.source.dtype"]
    assert everything(read(root, dtype="float32")).max() == 40000


def test_floats_are_never_bytes(tmp_path: Path) -> None:
    root = deep(lambda i: np.full((6, 5), 0.5, np.float32), tmp_path, "tif")
    error = refused(root, dtype="uint8")
    assert "no range that becomes 0 to 255" in error.what
    assert error.fix == "set data.source.dtype=float32"


def test_pages_of_a_stack_are_not_dropped_in_silence(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b"])
    pages = [Image.fromarray(np.zeros((6, 5), np.uint8)) for _ in range(3)]
    pages[0].save(root / "a" / "stack.tif", save_all=True, append_images=pages[1:])
    (doubt,) = read(root).reading.doubts
    assert doubt.startswith("1 TIFF files hold several pages")


def test_a_size_that_changes_nothing_has_no_fit(tmp_path: Path) -> None:
    root = put_all(tmp_path, ["a", "b"])
    assert "keep this size" in refused(root, fit="crop").what


# Prepared, and new data


def prepared(root: Path, **source: Any) -> DataSpec:
    node = {"_target_": "litlab.data.sources.image_folder.ImageFolder", "path": str(root), **source}
    return prepare(make_config(source=node, name="a"), root.parent / "out")


@pytest.mark.usefixtures("project")
def test_new_pictures_are_read_as_those_of_train(tmp_path: Path) -> None:
    root = deep(
        lambda i: RNG.integers(1000, 4096, (26, 25)).astype(np.uint16), tmp_path / "root", "png", 40
    )
    spec = prepared(root)
    assert spec.dtype == "float32"
    assert spec.mean[0] == pytest.approx(2548, rel=0.05)
    new = tmp_path / "new"
    put(new / "a" / "1.png", np.full((26, 25), 3000, np.uint16))
    for hidden in ("a/._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png"):
        put(new / hidden)
    names, values = read_input(new, spec)
    assert names == ["a/1.png"]
    assert values.dtype == np.float32
    assert (np.asarray(values) == 3000).all()


@pytest.mark.usefixtures("project")
def test_the_same_data_come_of_the_decisions_written_out(tmp_path: Path) -> None:
    root = put_all(tmp_path / "root", ["seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"], 9)
    put(root / "seg_train" / "a" / "large.png", size=(40, 50))
    spec = prepared(root)
    written = {d.setting: d.value for d in read(root).reading.decisions}
    again = prepared(root, **{name.removeprefix("data.source."): v for name, v in written.items()})
    assert again.checksum == spec.checksum
    assert spec.sizes["test"] == 18
