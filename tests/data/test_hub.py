"""Data sets of the hub and local files that `datasets` reads, through one source."""

import io
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub_stub import SHA, HubStub
from litlab.config.compose import load
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Raw
from litlab.data.sources.hub import Hub
from litlab.data.sources.hub_columns import Texts
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault, LitlabError

datasets = pytest.importorskip("datasets")
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value  # noqa: E402

NAMES = ["World", "Sports", "Business", "Sci/Tech"]
WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may ask the real hub, or write into the user's cache."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()


def texts(number: int, seed: int = 0, names: list[str] = NAMES) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset.from_dict(
        {
            "text": [" ".join(rng.choice(WORDS, 12)) for _ in range(number)],
            "label": [i % len(names) for i in range(number)],
        },
        features=Features({"text": Value("string"), "label": ClassLabel(names=names)}),
    )


def pictures(
    number: int, shape: tuple[int, ...], columns: dict[str, list[str]], image: str, seed: int = 0
) -> tuple[Dataset, np.ndarray]:
    from PIL import Image as Pillow

    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (number, *shape), dtype=np.uint8)
    cells = []
    for array in pixels:
        buffer = io.BytesIO()
        Pillow.fromarray(array).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    labels = {name: [i % len(names) for i in range(number)] for name, names in columns.items()}
    features = {name: ClassLabel(names=names) for name, names in columns.items()}
    dataset = Dataset.from_dict(
        {image: cells, **labels}, features=Features({image: Image(), **features})
    )
    return dataset, pixels


def write_parquet(folder: Path, **splits: Dataset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, dataset in splits.items():
        dataset.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return folder


def read(path: Path | str, scratch: Path, **settings: Any) -> Raw:
    scratch.mkdir(exist_ok=True)
    return Hub(path=str(path), **settings).read(scratch)


def rows(raw: Raw, part: str) -> Any:
    inputs = raw.parts[part][0]
    return inputs[np.arange(len(inputs))]


def test_texts_and_labels_are_those_of_the_library(tmp_path: Path) -> None:
    train, test = texts(50), texts(20, seed=1)
    raw = read(write_parquet(tmp_path / "d", train=train, test=test), tmp_path / "s")
    assert (raw.kind, raw.task) == ("text", "classification")
    assert list(raw.classes) == NAMES
    assert set(raw.parts) == {"train", "test"}
    assert rows(raw, "train") == train["text"][:]
    assert raw.parts["test"][1].tolist() == test["label"][:]
    some = np.array([7, 3, 3, 49])
    assert raw.parts["train"][0][some] == [train[int(i)]["text"] for i in some]
    assert raw.files == [tmp_path / "d"]


def test_the_same_data_in_every_format_read_alike(tmp_path: Path) -> None:
    train, test = texts(40), texts(20, seed=1)
    parquet = write_parquet(tmp_path / "parquet", train=train, test=test)
    DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "disk"))
    for name in ("csv", "jsonl"):
        (tmp_path / name).mkdir()
    named = train.cast_column("label", Value("int64"))
    named.to_csv(str(tmp_path / "csv" / "train.csv"), index=False)
    test.to_csv(str(tmp_path / "csv" / "test.csv"), index=False)
    train.to_json(str(tmp_path / "jsonl" / "train.jsonl"))
    test.to_json(str(tmp_path / "jsonl" / "test.jsonl"))
    reference = read(parquet, tmp_path / "s")
    for name in ("disk", "csv", "jsonl"):
        raw = read(tmp_path / name, tmp_path / f"s{name}")
        for part in ("train", "test"):
            assert rows(raw, part) == rows(reference, part), name
            assert (raw.parts[part][1] == reference.parts[part][1]).all(), name
        assert list(raw.classes) == (NAMES if name == "disk" else ["0", "1", "2", "3"])


def test_a_single_file_and_a_single_split_are_all(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "d", train=texts(20), other=texts(8, seed=2))
    raw = read(folder / "other-00000-of-00001.parquet", tmp_path / "s")
    assert set(raw.parts) == {"all"}
    assert len(raw.parts["all"][0]) == 8


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    def mapped_mib() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) / 1024

    def rows_of(number: int) -> Iterator[dict[str, str]]:
        yield from ({"text": f"{i} " + "x" * 60_000} for i in range(number))

    dataset = Dataset.from_generator(
        rows_of, gen_kwargs={"number": 3000}, cache_dir=str(tmp_path), writer_batch_size=50
    )
    before = mapped_mib()
    texts = Texts(dataset, "text")
    for start in range(0, 3000, 100):
        chunk = texts[np.arange(start, start + 100)]
        assert chunk[7].startswith(f"{start + 7} xxx")
    assert mapped_mib() - before < 100  # of 172


@pytest.mark.parametrize(("shape", "channels"), [((9, 7), 1), ((9, 7, 3), 3)])
def test_images_are_decoded_exactly(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    dataset, pixels = pictures(300, shape, {"label": ["a", "b"]}, "image")
    raw = read(write_parquet(tmp_path / "d", train=dataset), tmp_path / "s")
    images = raw.parts["all"][0]
    assert raw.kind == "image"
    assert images.shape == (300, channels, 9, 7)
    wanted = pixels[:, None] if channels == 1 else pixels.transpose(0, 3, 1, 2)
    assert (rows(raw, "all") == wanted).all()
    assert (images[np.array([299, 0])] == wanted[[299, 0]]).all()
    assert raw.image_fit is None


def test_images_of_other_sizes_are_refused_or_resized(tmp_path: Path) -> None:
    small, _ = pictures(4, (8, 8), {"label": ["a", "b"]}, "image")
    large, _ = pictures(3, (8, 10), {"label": ["a", "b"]}, "image", seed=1)
    folder = write_parquet(tmp_path / "d", train=small, test=large)
    with pytest.raises(DataError, match=r"2 sizes: 4 of 8x8, 3 of 10x8 .*data\.source\.size"):
        read(folder, tmp_path / "s")
    raw = read(folder, tmp_path / "t", size=6, fit="crop", color="rgb")
    assert rows(raw, "test").shape == (3, 3, 6, 6)
    assert raw.image_fit == "crop"
    assert raw.notes() == ["images converted to RGB: 7 L"]


def test_an_image_folder(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    for i, array in enumerate(pixels):
        path = tmp_path / "d" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(array).save(path)
    raw = read(tmp_path / "d", tmp_path / "s")
    assert list(raw.classes) == ["a", "b"]
    order = [0, 2, 1, 3]  # by class, then name
    assert (rows(raw, "all") == pixels[order].transpose(0, 3, 1, 2)).all()
    assert raw.parts["all"][1].tolist() == [0, 0, 1, 1]


def test_a_file_outside_the_data_set_is_not_opened(tmp_path: Path) -> None:
    dataset, _ = pictures(2, (4, 4), {"label": ["a", "b"]}, "image")
    secret = tmp_path / "secret.png"
    secret.write_bytes(dataset.cast_column("image", Image(decode=False))[0]["image"]["bytes"])
    pointing = Dataset.from_dict(
        {"image": [{"bytes": None, "path": str(secret)}] * 2, "label": [0, 1]},
        features=dataset.features,
    )
    with pytest.raises(DataError, match="outside the data set"):
        read(write_parquet(tmp_path / "d", train=pointing), tmp_path / "s")


def test_a_damaged_or_missing_image_is_named_by_its_row(tmp_path: Path) -> None:
    dataset, _ = pictures(3, (4, 4), {"label": ["a", "b"]}, "image")
    for cell, message in (
        ({"bytes": b"no picture", "path": None}, "not a readable image.*row 1"),
        (None, "no image.*row 1"),
    ):
        cells = dataset.cast_column("image", Image(decode=False))["image"][:]
        cells[1] = cell
        damaged = Dataset.from_dict(
            {"image": cells, "label": dataset["label"][:]}, features=dataset.features
        )
        folder = write_parquet(tmp_path / "d", train=damaged)
        with pytest.raises(DataError, match=message):
            read(folder, tmp_path / f"s{cell is None}")


def test_missing_labels_are_refused_with_their_rows(tmp_path: Path) -> None:
    train = texts(10)
    test = texts(6, seed=1).map(lambda row: {"label": -1})
    folder = write_parquet(tmp_path / "d", train=train, validation=texts(8, seed=2), test=test)
    with pytest.raises(DataError, match=r"6 samples without a label.*rows of test: 0, 1, 2, 3, 4,"):
        read(folder, tmp_path / "s")
    raw = read(folder, tmp_path / "t", test_split="validation")
    assert {part: len(y) for part, (_, y) in raw.parts.items()} == {"train": 10, "test": 8}
    assert raw.notes() == ["splits left out: test"]


@pytest.mark.parametrize("kind", ["text", "tabular", "auto"])
@pytest.mark.parametrize("feature", [List(Value("string")), List(ClassLabel(names=["x", "y"]))])
def test_several_labels_are_refused(tmp_path: Path, kind: str, feature: Any) -> None:
    features = Features({"text": Value("string"), "label": feature})
    dataset = Dataset.from_dict({"text": ["a", "b"], "label": [["x"], ["x", "y"]]}, features)
    path = write_parquet(tmp_path / "x", train=dataset)
    with pytest.raises(DataError, match="the target 'label' holds lists") as caught:
        read(path, tmp_path / "scratch", kind=kind)
    assert "several labels" in caught.value.fix


def test_empty_texts_are_refused_or_kept(tmp_path: Path) -> None:
    train = texts(10).map(lambda row, i: {"text": ["", None, "  "][i] if i < 3 else row["text"]},
                          with_indices=True)  # fmt: skip
    folder = write_parquet(tmp_path / "d", train=train)
    with pytest.raises(DataError, match=r"3 empty texts in column 'text' \(rows: 0, 1, 2\)"):
        read(folder, tmp_path / "s")
    assert rows(read(folder, tmp_path / "t", empty="pad"), "all")[:3] == ["", "", ""]


def test_columns_are_found_when_it_is_clear_which(tmp_path: Path) -> None:
    pairs = texts(10).add_column("second", ["x"] * 10)
    folder = write_parquet(tmp_path / "pairs", train=pairs)
    assert read(folder, tmp_path / "a", kind="tabular").kind == "tabular"
    with pytest.raises(ConfigError, match="one column of texts, and there is 2: text, second"):
        read(folder, tmp_path / "b", kind="text")
    assert rows(read(folder, tmp_path / "c", input="second"), "all") == ["x"] * 10
    with pytest.raises(ConfigError, match=r"no column 'lable'.*data\.source\.target.*'label'"):
        read(folder, tmp_path / "d", target="lable")
    nameless = pairs.rename_column("label", "one").cast_column("one", Value("int64"))
    with pytest.raises(ConfigError, match="no target column is given.*text, one, second"):
        read(write_parquet(tmp_path / "n", train=nameless), tmp_path / "e")
    numbered = write_parquet(tmp_path / "idx", train=texts(10).add_column("idx", list(range(10))))
    assert read(numbered, tmp_path / "f").kind == "text"


def test_a_text_with_a_number_to_predict_is_a_regression(tmp_path: Path) -> None:
    scored = texts(10).cast_column("label", Value("float32"))
    raw = read(write_parquet(tmp_path / "d", train=scored), tmp_path / "s", target="label")
    assert (raw.task, list(raw.targets)) == ("regression", ["label"])
    assert raw.parts["all"][1].tolist() == [[float(i % 4)] for i in range(10)]


def test_columns_to_split_by_are_there(tmp_path: Path) -> None:
    grouped = texts(10).add_column("author", [f"a{i % 3}" for i in range(10)])
    raw = read(write_parquet(tmp_path / "d", train=grouped), tmp_path / "s", input="text")
    assert raw.columns["all"]["author"].tolist() == grouped["author"][:]
    assert "nobody" not in raw.columns["all"]


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "d", train=texts(10), test=texts(5, seed=1))
    with pytest.raises(ConfigError, match=r"no split 'trian'.*train_split.*'train'"):
        read(folder, tmp_path / "s", train_split="trian")


def test_tables_are_handed_to_the_source_of_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = Dataset.from_dict(
        {
            "size": rng.normal(size=60),
            "colour": rng.choice(["red", "green"], 60).tolist(),
            "grade": [i % 3 for i in range(60)],
            "extra": [[1, 2]] * 60,
            "price": rng.normal(size=60),
        },
        features=Features(
            {
                "size": Value("float64"),
                "colour": Value("string"),
                "grade": ClassLabel(names=["low", "middle", "high"]),
                "extra": List(Value("int64")),
                "price": Value("float32"),
            }
        ),
    )
    folder = write_parquet(tmp_path / "d", train=table, test=table.select(range(20)))
    with pytest.raises(DataError, match=r"columns extra hold neither.*drop=\[extra\]"):
        read(folder, tmp_path / "a", target="price")
    with pytest.raises(ConfigError, match="no column 'extar'.*'extra'"):
        read(folder, tmp_path / "b", target="price", drop=("extar",))
    raw = read(folder, tmp_path / "c", target="price", drop=("extra",))
    assert (raw.kind, raw.task, list(raw.targets)) == ("tabular", "regression", ["price"])
    assert raw.parts["train"][1][:, 0].tolist() == pytest.approx(table["price"][:])
    assert raw.encoder is not None
    inputs = raw.parts["train"][0]
    raw.encoder.fit(lambda: iter([inputs[np.arange(60)]]))
    by_name = {column.name: column for column in raw.encoder.describe()["columns"]}
    assert by_name["grade"].categories == ("high", "low", "middle")  # the names, not the numbers
    encoded = raw.encoder.encode(inputs[np.arange(60)])
    assert encoded[:, 0] == pytest.approx(table["size"][:], rel=1e-6)


def test_a_tables_fault_names_the_data_set(tmp_path: Path) -> None:
    table = Dataset.from_dict({"a": [1.0, None, 3.0], "label": ["x", "y", "x"]})
    folder = write_parquet(tmp_path / "d", train=table)
    with pytest.raises(DataError) as caught:
        read(folder, tmp_path / "s", kind="tabular", impute="refuse")
    assert str(tmp_path / "s") not in str(caught.value)
    assert str(folder) in caught.value.where


def test_a_loading_script_is_not_run(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "d", train=texts(10))
    (folder / "d.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match="its own code, which litlab does not run"):
        read(folder, tmp_path / "s")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.csv", "https://x.invalid/a.csv"])
def test_a_card_that_names_other_files_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_parquet(tmp_path / "d", train=texts(10))
    for files in (
        f"data_files: {name}",
        f"data_files:\n  - split: train\n    path: ['a', '{name}']",
    ):
        card = "---\nconfigs:\n- config_name: good\n  data_files: '*.parquet'\n"
        card += f"- config_name: bad\n  {files}\n---\n"
        (folder / "README.md").write_text(card)
        with pytest.raises(DataError, match="names a file that does not exist"):
            read(folder, tmp_path / "s", config="good")


def test_a_configuration_is_a_folder_where_the_card_lists_none(tmp_path: Path) -> None:
    for name, number in (("one", 5), ("two", 7)):
        write_parquet(tmp_path / "d" / name, train=texts(number))
    raw = read(tmp_path / "d", tmp_path / "s", config="two")
    assert numbers(raw) == {"all": 7}
    with pytest.warns(UserWarning, match=r"data\.source\.config is ignored"):
        read(tmp_path / "d" / "one" / "train-00000-of-00001.parquet", tmp_path / "t", config="two")


def test_odd_names_of_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reads \[ \] in a path as a pattern.*rename it"):
        read(write_parquet(tmp_path / "texts [2024]", train=texts(10)), tmp_path / "s")
    folder = write_parquet(tmp_path / "my, 'own' {new} texts", train=texts(10))
    assert numbers(read(folder, tmp_path / "s")) == {"all": 10}
    (file,) = folder.iterdir()
    assert numbers(read(file, tmp_path / "t")) == {"all": 10}


def test_damaged_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match="cannot read it"):
        read(tmp_path / "d", tmp_path / "s")
    (tmp_path / "d" / "train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="cannot read it"):
        read(tmp_path / "d", tmp_path / "t")


def test_nothing_is_left_in_the_cache_for_local_files(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from litlab.data.sources.hub import Hub\n"
        "Hub(path=sys.argv[1]).read(Path(sys.argv[2]))"
    )
    folder = write_parquet(tmp_path / "d", train=texts(10))
    (tmp_path / "s").mkdir()
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(folder), str(tmp_path / "s")],
        env=environment,
        check=True,
    )
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


ADULT = (
    "age,workclass,fnlwgt,education,education.num,marital.status,occupation,relationship,race,sex,"
    "capital.gain,capital.loss,hours.per.week,native.country,income"
)
HOUSING = [
    "MedInc",
    "HouseAge",
    "AveRooms",
    "AveBedrms",
    "Population",
    "AveOccup",
    "Latitude",
    "Longitude",
    "MedHouseVal",
]


def housing(number: int, seed: int) -> Dataset:
    values = np.random.default_rng(seed).normal(size=(len(HOUSING), number))
    return Dataset.from_dict(dict(zip(HOUSING, values, strict=True)))


def adult(folder: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [ADULT]
    for i in range(120):
        work, native = rng.choice(["Private", "State-gov", "?"]), rng.choice(["United-States", "?"])
        school, status, job, home, race, sex = (
            rng.choice(names.split())
            for names in (
                *("HS-grad Masters", "Widowed Divorced", "Sales Tech-support", "Wife Unmarried"),
                *("White Black", "Male Female"),
            )
        )
        lines.append(
            f"{rng.integers(17, 90)},{work},{rng.integers(10**6)},{school},{rng.integers(1, 17)},"
            f"{status},{job},{home},{race},{sex},{rng.integers(9)},{rng.integers(4000)},"
            f"{rng.integers(1, 99)},{native},{['<=50K', '>50K'][i % 2]}"
        )
    folder.mkdir()
    (folder / "adult.csv").write_text("\n".join(lines) + "\n")


def stand_in(preset: str, folder: Path) -> None:
    """A small data set with the columns, types and splits of the one on the hub."""
    ten = [f"class{i}" for i in range(10)]
    shapes: dict[str, tuple[tuple[int, ...], str, dict[str, list[str]]]] = {
        "mnist_hub": ((28, 28), "image", {"label": ten}),
        "fashion_mnist_hub": ((28, 28), "image", {"label": ten}),
        "cifar10_hub": ((32, 32, 3), "img", {"label": ten}),
        "cifar100_hub": (
            (32, 32, 3),
            "img",
            {"fine_label": [f"fine{i}" for i in range(20)], "coarse_label": ten},
        ),
    }
    if preset in shapes:
        shape, image, columns = shapes[preset]
        train, test = (pictures(n, shape, columns, image, seed=n)[0] for n in (200, 40))
        write_parquet(folder, train=train, test=test)
    elif preset == "ag_news":
        write_parquet(folder, train=texts(80), test=texts(40, seed=1))
    elif preset == "imdb":
        train, test, rest = (texts(60, seed=i, names=["neg", "pos"]) for i in range(3))
        rest = rest.map(lambda row: {"label": -1})
        write_parquet(folder, train=train, test=test, unsupervised=rest)
    elif preset == "california_housing":
        parts = {"train": housing(80, 0), "validation": housing(30, 1), "test": housing(20, 2)}
        write_parquet(folder, **parts)
    else:
        adult(folder)


@pytest.mark.parametrize(
    ("preset", "kind", "shape", "outputs", "sizes"),
    [
        ("ag_news", "text", (12,), 4, (72, 8, 40)),
        ("imdb", "text", (12,), 2, (54, 6, 60)),
        ("california_housing", "tabular", (8,), 1, (80, 30, 20)),
        ("mnist_hub", "image", (1, 28, 28), 10, (180, 20, 40)),
        ("fashion_mnist_hub", "image", (1, 28, 28), 10, (180, 20, 40)),
        ("cifar10_hub", "image", (3, 32, 32), 10, (180, 20, 40)),
        ("cifar100_hub", "image", (3, 32, 32), 20, (180, 20, 40)),
        ("adult_hub", "tabular", (14,), 2, (81, 15, 24)),
    ],
)
def test_presets_prepare_data_of_their_columns(
    project: Path,
    tmp_path: Path,
    preset: str,
    kind: str,
    shape: tuple[int, ...],
    outputs: int,
    sizes: tuple[int, ...],
) -> None:
    stand_in(preset, tmp_path / "d")
    config = load([f"data={preset}", f"data.path={tmp_path / 'd'}"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="val has no samples of the classes")
        spec = prepare(config.data, tmp_path / "prepared")
    assert (spec.kind, spec.shape, spec.num_outputs) == (kind, shape, outputs)
    assert tuple(spec.sizes.values()) == sizes
    assert spec.task == ("regression" if preset == "california_housing" else "classification")
    again = prepare(config.data, tmp_path / "again")
    assert again.checksums == spec.checksums


def test_every_preset_of_the_hub_is_tried() -> None:
    conf = Path(__file__).parents[2] / "conf" / "data"
    found = {path.stem for path in conf.glob("*.yaml") if "- hub\n" in path.read_text()}
    mark = test_presets_prepare_data_of_their_columns.pytestmark[0]
    assert found == {case[0] for case in mark.args[1]}


@pytest.fixture
def hub(tmp_path: Path, online: Callable[[str], None]) -> Iterator[HubStub]:
    folder = write_parquet(tmp_path / "repo" / "data", train=texts(40), test=texts(12, seed=1))
    (folder.parent / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Made up\n")
    many = tmp_path / "many"
    for config, number in (("first", 5), ("second", 6)):
        write_parquet(many / config, train=texts(number), validation=texts(4, seed=number))
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        f"  - split: train\n    path: {config}/train-*\n"
        f"  - split: test\n    path: {config}/validation-*\n"
        for config in ("first", "second")
    )
    (many / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    scripted = write_parquet(tmp_path / "scripted", train=texts(5))
    (scripted / "scripted.py").write_text("raise SystemExit('ran')\n")
    repositories = {
        "owner/made": folder.parent,
        "owner/many": many,
        "owner/scripted": scripted,
        "owner/gated": many,
    }
    with HubStub(repositories, answers={"owner/gated": (403, "GatedRepo")}) as stub:
        online(stub.address)
        yield stub


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives a function that makes an address the hub's; an empty one forbids asking it."""
    import huggingface_hub

    def set_address(address: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", not address)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return set_address


def numbers(raw: Raw) -> dict[str, int]:
    return {part: len(inputs) for part, (inputs, _) in raw.parts.items()}


def fetched(hub: HubStub) -> list[str]:
    return [line for line in hub.asked if line.startswith("GET") and line.endswith(".parquet")]


def test_a_data_set_is_fetched_once_and_then_there_without_a_network(
    hub: HubStub, tmp_path: Path, online: Callable[[str], None]
) -> None:
    raw = read("made", tmp_path / "a")  # the hub's old names have no owner
    assert numbers(raw) == {"train": 40, "test": 12}
    assert rows(raw, "train") == texts(40)["text"][:]
    assert raw.licence == "cc-by-4.0"
    assert raw.origin == f"https://huggingface.co/datasets/owner/made/tree/{SHA}"
    assert list(raw.files) == []
    assert len(fetched(hub)) == 2
    assert not [line for line in hub.asked if "telemetry" in line]
    hub.asked.clear()
    read("owner/made", tmp_path / "b")
    assert hub.asked
    assert fetched(hub) == []
    hub.fails = True
    with pytest.warns(UserWarning, match=r"cannot be reached .*read from the hub's cache"):
        assert numbers(read("owner/made", tmp_path / "c")) == numbers(raw)
    hub.asked.clear()
    online("")
    for place, name in (("d", "owner/made"), ("e", "made")):
        assert numbers(read(name, tmp_path / place)) == numbers(raw)
    assert hub.asked == []


def test_only_the_chosen_configuration_is_fetched(
    hub: HubStub, tmp_path: Path, online: Callable[[str], None]
) -> None:
    with pytest.raises(ConfigError, match=r"several config.*source\.config.* first, second"):
        read("owner/many", tmp_path / "a")
    with pytest.raises(ConfigError, match=r"no configuration 'third'.* first, second"):
        read("owner/many", tmp_path / "b", config="third")
    raw = read("owner/many", tmp_path / "c", config="second")
    assert numbers(raw) == {"train": 6, "test": 4}
    assert len(fetched(hub)) == 2
    assert not [line for line in hub.asked if "first/" in line]
    online("")
    assert numbers(read("owner/many", tmp_path / "d", config="second")) == numbers(raw)
    with pytest.raises(EnvironmentFault, match="not complete in the hub's cache"):
        read("owner/many", tmp_path / "e", config="first")


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"path": "owner/scripted"}, 3, "its own code (scripted.py), which litlab does not run"),
        ({"path": "owner/gated"}, 5, "gated data set"),
        ({"path": "owner/nothing"}, 5, "no such data set on the hub"),
        ({"path": "owner/made", "revision": "v9"}, 2, "has no 'v9' | data.source.revision"),
        ({"path": "data/raw/mine"}, 5, "data/raw/mine"),
        ({"path": "mine.csv"}, 5, "mine.csv"),
    ],
)
def test_what_the_hub_does_not_give(
    hub: HubStub, tmp_path: Path, settings: dict[str, str], code: int, message: str
) -> None:
    with pytest.raises(LitlabError) as caught:
        read(scratch=tmp_path / "s", **settings)
    assert caught.value.exit_code == code
    assert message in str(caught.value)
    assert "owner" in settings["path"] or hub.asked == []
    assert not list((tmp_path / "cache").rglob("*.py"))


def test_half_a_download_is_not_taken_for_the_whole(
    hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: Callable[[str], None]
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.breaks = "test-"
    with pytest.raises(EnvironmentFault, match="the download was interrupted"):
        read("owner/made", tmp_path / "a")
    online("")
    with pytest.raises(EnvironmentFault, match="not complete in the hub's cache"):
        read("owner/made", tmp_path / "b")
    hub.breaks = ""
    online(hub.address)
    assert numbers(read("owner/made", tmp_path / "c")) == {"train": 40, "test": 12}


@pytest.mark.parametrize("fault", ["offline", "refused", "no such host", "silent", "failing"])
def test_without_the_hub_it_is_one_line_within_ten_seconds(
    hub: HubStub,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    online: Callable[[str], None],
    fault: str,
) -> None:
    hub.fails = fault == "failing"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections, and never answers
        addresses = {
            "offline": "",
            "refused": "http://127.0.0.1:9",
            "no such host": "http://hub.invalid",
            "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        online(addresses.get(fault, hub.address))
        start = time.monotonic()
        with pytest.raises(EnvironmentFault) as caught:
            read("owner/made", tmp_path / "s")
        seconds = time.monotonic() - start
    assert seconds < 10
    assert "no such file or folder here, not complete in the hub's cache" in caught.value.what
    reason = "HF_HUB_OFFLINE" if fault == "offline" else "cannot be reached"
    assert reason in caught.value.what
    assert capfd.readouterr().err == ""  # no retries, no tracebacks: the caller prints one line


def test_an_address_that_is_looked_up_for_ever_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, online: Callable[[str], None]
) -> None:
    online("http://hub.invalid")
    monkeypatch.setattr("litlab.data.sources.hub_fetch.DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *a, **k: time.sleep(5))
    with pytest.raises(EnvironmentFault, match=r"no answer in 0\.2 s"):
        read("owner/made", tmp_path / "s")


def test_the_command_says_so_in_one_line(project: Path, tmp_path: Path) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "litlab", "prepare", "data=ag_news"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert "HF_HUB_OFFLINE forbids requests to the hub | data.path=fancyzhx/ag_news | " in line
    assert not (project / "data" / "prepared" / "ag_news").exists()
