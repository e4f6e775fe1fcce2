"""What `prepare` says that data were taken for; what was probably meant otherwise is a warning."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from litlab.config.compose import load
from litlab.data.prepare.overview import MOST_COLUMNS, doubts, overview
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Reading
from litlab.data.sources.image_folder import ImageFolder
from litlab.data.sources.text import folders_of
from litlab.data.spec import Column
from litlab.utils.errors import DataError
from made_data import make_raw, make_spec, prepare_raw

ROWS = 60
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=ROWS).round(3)
LABELS = ["yes", "no"] * (ROWS // 2)


@pytest.fixture
def said(project: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Prepare a source; return the warnings, and the lines that were said."""

    def run(*overrides: str) -> tuple[str, str]:
        config = load([*overrides, "data.name=made"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            prepare(config.data, project / "data" / "prepared" / "made")
        return "\n".join(str(w.message) for w in caught), capsys.readouterr().err

    return run


def save(folder: Path, name: str = "x.csv", **columns: Any) -> list[str]:
    pd.DataFrame({"noise": NOISE, **columns, "y": LABELS}).to_csv(folder / name, index=False)
    return ["data=table", f"data.path={folder / name}", "data.source.target=y"]


def test_columns_target_and_splits_of_a_table(project: Path, said: Any) -> None:
    colours = RNG.choice(["red", "green", "blue"], ROWS)
    people = [f"p{i // 3}" for i in range(ROWS)]
    given = save(project, colour=colours, note=LABELS, person=people)
    warned, lines = said(*given, "data.source.drop=[note]", "data.group=person")
    assert warned == ""
    assert "  numbers (1): noise\n" in lines
    assert "  categories (1): colour (3 values, such as 'blue')\n" in lines
    assert "  group: person\n" in lines
    assert "  left out (1): note (data.source.drop)\n" in lines
    assert "  target y: 2 classes (in train): no (" in lines
    assert "from x.csv, cut by the groups of 'person'" in lines


def test_the_files_of_the_splits_are_named(project: Path, said: Any) -> None:
    given = save(project)
    RNG.shuffle(NOISE)
    (project / "x.csv").rename(project / "old.csv")
    pd.DataFrame({"noise": RNG.normal(size=9).round(3), "y": LABELS[:9]}).to_csv("late.csv")
    given[1] = f"data.path={project / 'old.csv'}"
    more = [f"data.source.test_path={project / 'late.csv'}", "data.test_fraction=null"]
    _, lines = said(*given, *more)
    assert "from old.csv, cut at random (data.split_seed=0); test 9 from late.csv\n" in lines


@pytest.mark.parametrize("name", ["Unnamed: 0", "", "Unnamed: 0.1"])
def test_an_index_is_left_out_and_said(project: Path, said: Any, name: str) -> None:
    given = save(project)
    rows = pd.read_csv(project / "x.csv").rename_axis(name)
    rows.to_csv(project / "x.csv")
    warned, lines = said(*given)
    assert f"left out (1): {name or '(no name)'} (an index)\n" in lines
    assert "numbers (1): noise\n" in lines
    assert warned == ""


def test_many_columns_are_few_lines() -> None:
    names = tuple(f"column {i}" for i in range(300))
    columns = [Column(name=name, kind="numeric") for name in names[:150]]
    columns += [Column(name=n, kind="categorical", categories=("a\n", "b")) for n in names[150:]]
    spec = make_spec("tabular", shape=(300,), features=names, columns=tuple(columns))
    lines = overview(spec, Reading(left_out={f"x{i}": "an index" for i in range(300)}))
    assert len(lines) < 10
    assert max(map(len, lines)) < 100 * MOST_COLUMNS
    assert not any("\n" in line for line in lines)
    assert "  numbers (150): column 0, " in lines[1]


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        (("0", "0.0", "1", "1.0"), "'0' and '0.0', '1' and '1.0'"),
        (("Spam", "ham", "spam"), "'Spam' and 'spam'"),
        (("<=50K", "<=50K.", ">50K"), "'<=50K' and '<=50K.'"),
        (("-1", "0", "1"), "'no label'"),
        (("-1", "1"), ""),
        (("a", "a|b", "b"), "'a|b' combines other classes"),
        (("0.5", "1.0", "2.5"), "if they are amounts"),
        (("test_set", "training_set"), "named like splits"),
        (("images", "masks"), "named like masks"),
        (("cat", "contest", "dog"), ""),
        (("1", "2", "3"), ""),
    ],
)
def test_classes_that_are_probably_none(classes: tuple[str, ...], what: str) -> None:
    found = "\n".join(doubts(make_spec("tabular", classes=classes), Reading()))
    assert what in found if what else found == ""


def test_classes_are_named_where_they_are_few() -> None:
    few = overview(make_spec("image", classes=tuple(f"c{i}" for i in range(20))), Reading())
    assert "c19" in "\n".join(few)
    many = overview(make_spec("image", classes=tuple(f"c{i}" for i in range(21))), Reading())
    assert "21 classes, from 'c0' to 'c20'" in "\n".join(many)
    assert "c19" not in "\n".join(many)


def pictures(root: Path, *folders: str, name: str = "{}.png") -> Path:
    for place, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            image = np.full((4, 4), 10 * place + number, np.uint8)
            Image.fromarray(image).save(root / folder / name.format(number))
    return root


@pytest.mark.parametrize(
    ("folders", "fix"),
    [
        (("training_set/a", "training_set/b", "test_set/a"), "training_set to train"),
        (("seg_train/a", "seg_test/a", "seg_pred/a"), "move seg_pred away"),
        (
            ("Train_images/a", "Validate/a", "dev-set/a"),
            "rename Train_images to train, dev-set to val",
        ),
    ],
)
def test_splits_of_the_publisher_are_no_classes(tmp_path: Path, folders: Any, fix: str) -> None:
    with pytest.raises(DataError, match="named like splits") as caught:
        folders_of(pictures(tmp_path, *folders))
    assert fix in caught.value.fix


def test_classes_that_end_like_splits_are_classes(tmp_path: Path) -> None:
    root = pictures(tmp_path, "blood_test", "strength_training")
    assert folders_of(root) == {"all": root}
    assert ImageFolder(path=str(root)).read().classes == ["blood_test", "strength_training"]


@pytest.mark.parametrize("parts", [("",), ("train/", "test/")])
def test_masks_are_no_class(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        pictures(tmp_path / part, "images")
        pictures(tmp_path / part, "masks", name="{}_mask.png")
    with pytest.raises(DataError, match="'masks' has a file for each of 'images'") as caught:
        ImageFolder(path=str(tmp_path)).read()
    assert "segmentation is not supported" in caught.value.fix
    for classes in (("cats", "dogs"), ("mask", "no_mask")):  # of the same names
        root = pictures(tmp_path / classes[0], *classes)
        assert ImageFolder(path=str(root)).read().classes == [*classes]


@pytest.mark.filterwarnings("ignore:.*validation|.*test")
def test_texts_without_spaces(project: Path, said: Any) -> None:
    letters = list("他很不好电影我是欢坏")
    texts = ["".join(RNG.choice(letters, 12)) for _ in range(ROWS)]
    pd.DataFrame({"text": texts, "label": LABELS}).to_csv("zh.csv", index=False)
    given = ["data=text", f"data.path={project / 'zh.csv'}"]
    with pytest.raises(DataError, match="of the tokens of train are unknown") as caught:
        said(*given)
    assert "data.source.tokenizer=char" in caught.value.fix
    warned, lines = said(*given, "data.source.tokenizer=char")
    assert "unknown" not in warned
    assert "unknown tokens: train 0.0%" in lines
    assert "target label: 2 classes" in lines


def test_many_unknown_tokens_are_a_warning(project: Path, said: Any) -> None:
    texts = [f"a good {'film' if i % 2 else 'book'} {i} {i + 1000}" for i in range(ROWS)]
    pd.DataFrame({"text": texts, "label": LABELS}).to_csv("x.csv", index=False)
    warned, lines = said("data=text", f"data.path={project / 'x.csv'}")
    assert "many tokens are unknown (train 40%, val 40%, test 40%)" in warned
    assert "data.source.tokenizer=char or bpe" in warned
    assert "unknown tokens: train 40.0%, val 40.0%, test 40.0%" in lines


def test_dark_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dark = (make_raw("image").parts["all"][0] // 16, np.arange(60) % 3)
    with pytest.warns(UserWarning, match="the brightest pixel of train is 15 of 255"):
        prepare_raw(make_raw("image", parts={"all": dark}), tmp_path / "made", monkeypatch)


def test_what_was_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = prepare_raw(make_raw(), tmp_path / "made", monkeypatch)
    kept = Reading.model_validate_json((tmp_path / "made" / "reading.json").read_text())
    assert overview(spec, kept)[1] == "  numbers (4): f0, f1, f2, f3"
