import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litlab.config.instantiate import build
from litlab.data.inputs.images import Form, decode
from litlab.data.prepare.prepare import prepare
from litlab.data.prepare.split import cut
from litlab.data.prepare.validate import check_raw, check_splits
from litlab.data.raw import Raw
from litlab.data.sources.image_folder import ImageFolder
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from made_data import make_config

RNG = np.random.default_rng(0)
TARGET = "litlab.data.sources.image_folder.ImageFolder"


def put(path: Path, size: tuple[int, int] = (6, 5), mode: str = "RGB", **settings: Any) -> Path:
    """Write a picture of noise; size is height and width."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **settings)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four pictures each."""
    root = tmp_path / "photos"
    for name in ("dog", "cat"):
        for number in range(4):
            put(root / name / f"{number}.png")
    return root


def read(root: Path, **settings: Any) -> Raw:
    raw = ImageFolder(path=str(root), **settings).read()
    check_raw(raw, "made")
    return raw


def refused(root: Path, **settings: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(root, **settings)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


def everything(raw: Raw, part: str = "all") -> np.ndarray:
    x, _ = raw.parts[part]
    return x[np.arange(len(x))]


# Layouts


def test_a_folder_a_class(photos: Path) -> None:
    raw = read(photos)
    x, y = raw.parts["all"]
    assert raw.classes == ["cat", "dog"]
    assert y.tolist() == [0] * 4 + [1] * 4
    assert x.shape == (8, 3, 6, 5)
    expected = [photos / name / f"{i}.png" for name in raw.classes for i in range(4)]
    for image, path in zip(everything(raw), expected, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)).transpose(2, 0, 1))
    assert raw.notes() == []
    assert raw.image_fit is None
    assert list(raw.files) == [photos]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG", "png", "webp", "bmp", "tif", "gif"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        put(tmp_path / name / f"x.{suffix}")
    assert len(read(tmp_path).parts["all"][0]) == 2


def test_the_order_is_that_of_the_names_however_the_disk_lists_them(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(photos / "cat" / "deep" / "10.png")
    first = read(photos)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self.entries = sorted(scandir(path), key=lambda e: e.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    second = read(photos)
    names = first.parts["all"][0].names
    assert names == second.parts["all"][0].names == sorted(names)
    np.testing.assert_array_equal(everything(first), everything(second))
    np.testing.assert_array_equal(first.parts["all"][1], second.parts["all"][1])


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_parts_of_the_publishers(tmp_path: Path, val: str) -> None:
    for part, number in {"train": 6, val: 2, "test": 3}.items():
        for name in ("b", "a"):
            for i in range(number):
                put(tmp_path / part / name / f"{i}.png")
    raw = read(tmp_path)
    sizes = {"train": 12, "val": 4, "test": 6}
    assert {name: len(x) for name, (x, _) in raw.parts.items()} == sizes
    assert raw.classes == ["a", "b"]
    assert list(raw.parts) == ["train", "val", "test"]
    rows = cut(raw, make_config(test_fraction=None))
    assert {split: len(r.rows) for split, r in rows.items()} == sizes
    rows = cut(raw, make_config(test_fraction=0.2))  # what conf/data/image_folder.yaml starts from
    assert {split: len(r.rows) for split, r in rows.items()} == sizes


def test_train_alone_is_all_there_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / "train" / name / "x.png")
    assert list(read(tmp_path).parts) == ["all"]


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    """Parts are taken for parts where one of them is for training."""
    for name in ("test", "control"):
        put(tmp_path / name / "x.png")
    assert read(tmp_path).classes == ["control", "test"]


def test_a_class_of_test_that_train_lacks_is_refused_by_its_name(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/zebra"):
        put(tmp_path / place / "x.png")
    raw = read(tmp_path)
    assert raw.classes == ["a", "b", "zebra"]
    y = {part: targets for part, (_, targets) in raw.parts.items()}
    with pytest.raises(DataError, match="test has classes that are not in train: zebra"):
        check_splits(raw, {**y, "val": y["train"]})


def test_what_is_beside_the_parts(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "extra/a"):
        put(tmp_path / place / "x.png")
    assert "'extra'" in refused(tmp_path).what


def test_a_part_that_is_there_twice(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "val/a", "validation/a"):
        put(tmp_path / place / "x.png")
    assert "'val' and 'validation' are both val" in refused(tmp_path).what


def test_other_files_are_left_out_and_counted(photos: Path) -> None:
    for place in ("notes.txt", "cat/Thumbs.db", "cat/x.heic", "dog/y.HEIC", "dog/README"):
        (photos / place).write_text("no picture")
    for hidden in (".DS_Store", "cat/._0.png", ".cache/0.png"):
        (photos / hidden).parent.mkdir(exist_ok=True)
        (photos / hidden).write_text("no picture either")
    raw = read(photos)
    assert len(raw.parts["all"][0]) == 8
    assert raw.notes() == ["5 other files left out: 1 .db, 2 .heic, 1 .txt, 1 README"]


# Sizes and modes


def test_mixed_sizes_become_a_square_unless_a_size_is_set(photos: Path) -> None:
    put(photos / "cat" / "2.png", (7, 5))
    for number in range(10, 17):
        put(photos / "dog" / f"{number}.png", (300, 200))
    raw = read(photos)
    assert everything(raw).shape == (15, 3, 5, 5)  # the median of 5, 5 and 200
    (size,) = raw.reading.decisions
    assert (size.setting, size.value) == ("data.source.size", 5)
    assert size.why == "the images have 3 sizes, from 5x6 to 200x300 pixels"
    assert raw.image_fit == "resize"
    raw = read(photos, size=8)
    assert raw.reading.decisions == ()
    assert everything(raw).shape == (15, 3, 8, 8)
    assert raw.image_fit == "resize"


@pytest.mark.parametrize("fit", ["resize", "crop"])
@pytest.mark.parametrize(("size", "form"), [(4, (4, 4)), ((4, 9), (4, 9)), ([3, 7], (3, 7))])
def test_every_picture_is_brought_into_the_size(photos: Path, fit, size, form) -> None:
    put(photos / "cat" / "0.png", (30, 50))
    raw = read(photos, size=size, fit=fit)
    assert raw.image_fit == fit
    images = everything(raw)
    assert images.shape == (8, 3, *form)
    names = raw.parts["all"][0].names
    for image, name in zip(images, names, strict=True):
        np.testing.assert_array_equal(image, decode(photos / name, Form(3, *form, fit))[0])


def test_sizes_are_compared_as_the_pictures_are_seen(photos: Path) -> None:
    """A phone stores a picture held upright on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    put(photos / "cat" / "phone.png", (5, 6), exif=exif)
    assert everything(read(photos)).shape == (9, 3, 6, 5)


@pytest.mark.parametrize(
    ("color", "channels", "note"),
    [
        ("auto", 3, "images converted to RGB: 1 CMYK, 1 I;16, 1 L, 1 RGBA"),
        ("rgb", 3, "images converted to RGB: 1 CMYK, 1 I;16, 1 L, 1 RGBA"),
        ("gray", 1, "images converted to L: 1 CMYK, 1 I;16, 7 RGB, 1 RGBA"),
    ],
)
def test_pictures_are_converted_as_configured_and_counted(
    photos: Path, color: str, channels: int, note: str
) -> None:
    put(photos / "cat" / "grey.png", mode="L")
    put(photos / "cat" / "print.jpg", mode="CMYK")
    put(photos / "dog" / "glass.png", mode="RGBA")
    Image.fromarray(np.full((6, 5), 40000, np.uint16)).save(photos / "dog" / "0.png")
    raw = read(photos, color=color)
    assert everything(raw).shape == (11, channels, 6, 5)
    assert raw.notes() == [note]
    everything(raw)
    assert raw.notes() == [note]  # however often they are decoded


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    for name, mode in (("a", "L"), ("b", "1")):
        put(tmp_path / name / "x.png", mode=mode)
    assert read(tmp_path).parts["all"][0].shape == (2, 1, 6, 5)
    assert read(tmp_path, color="rgb").parts["all"][0].shape == (2, 3, 6, 5)


# Bad input


def damage(photos: Path) -> list[str]:
    """Three pictures that look well from outside, and one that is none."""
    names = ["cat/a.jpg", "cat/b.png", "dog/c.webp", "dog/d.bmp"]
    for name in names[:3]:
        path = put(photos / name, (6, 5))
        path.write_bytes(path.read_bytes()[:-60])
    (photos / names[3]).write_bytes(b"no picture")
    return names


def test_what_cannot_be_decoded_is_refused_with_its_path(photos: Path) -> None:
    path = put(photos / "cat" / "9.jpg", (60, 50))
    path.write_bytes(path.read_bytes()[:-900])
    raw = read(photos, size=6)  # the header is whole
    with pytest.raises(DataError, match="truncated") as caught:
        everything(raw)
    assert caught.value.where == str(path)
    assert "data.source.on_error=skip" in caught.value.fix
    (photos / "dog" / "1.png").write_bytes(b"no picture")
    (photos / "dog" / "3.png").write_bytes(b"")
    error = refused(photos)
    assert error.what == "not a readable image: unknown format (and 1 more)"
    assert error.where == str(photos / "dog" / "1.png")
    assert "data.source.on_error=skip" in error.fix


def test_what_cannot_be_decoded_is_skipped_and_counted_when_asked(photos: Path) -> None:
    names = damage(photos)
    raw = read(photos, on_error="skip")
    assert everything(raw).shape == (8, 3, 6, 5)
    assert raw.parts["all"][1].tolist() == [0] * 4 + [1] * 4
    assert len(raw.columns["all"]["file"]) == 8
    assert raw.notes() == [f"4 images left out that cannot be decoded: {', '.join(names)}"]


def test_a_class_of_which_nothing_is_left(photos: Path) -> None:
    for path in (photos / "dog").iterdir():
        path.write_bytes(b"no picture")
    assert "no readable images of class 'dog'" in refused(photos, on_error="skip").what


def test_a_decompression_bomb(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(photos / "cat" / "bomb.png", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    error = refused(photos, size=4)
    assert "decompression bomb" in error.what
    assert error.where == str(path)
    raw = read(photos, size=4, on_error="skip")
    assert len(raw.parts["all"][0]) == 8
    assert raw.notes() == ["1 images left out that cannot be decoded: cat/bomb.png"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda root: None, "no class folders"),
        (lambda root: put(root / "x.png"), "no class folders"),
        (lambda root: (root / "empty").mkdir(), "no images of class 'empty'"),
        (lambda root: put(root / "only" / "x.png"), "a single class, 'only'"),
        (lambda root: put(root / "train" / "x.png"), "no class folders"),
        (lambda root: put(root / "train" / "only" / "x.png"), "a single class, 'only'"),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, make: Callable[[Path], object], what: str) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    make(root)
    error = refused(root)
    assert what in error.what
    assert error.where.startswith(str(root))


def test_an_empty_class_beside_others(photos: Path) -> None:
    (photos / "bird").mkdir()
    (photos / "bird" / "notes.txt").write_text("none yet")
    error = refused(photos)
    assert error.what == "no images of class 'bird': it holds 1 .txt"
    assert error.where == str(photos / "bird")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no such file") as caught:
        read(tmp_path / "absent")
    assert caught.value.exit_code == 5
    assert "is a file" in refused(put(tmp_path / "x.png")).what


def test_a_folder_that_may_not_be_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(EnvironmentFault, match="Permission denied") as caught:
        read(photos)
    assert caught.value.where == str(photos / "dog")


# Links


def link(place: Path, target: Path | str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("place", ["bird", "cat/deep", "cat/x.png", "x.txt", "train"])
@pytest.mark.parametrize("form", ["absolute", "relative", "through another"])
def test_a_link_out_of_the_root_is_refused_and_named(photos: Path, place: str, form: str) -> None:
    outside = photos.parent / "secrets"
    put(outside / "a" / "x.png")
    target = outside / "a" / "x.png" if place.endswith("g") else outside
    if form == "relative":
        target = Path(os.path.relpath(target, (photos / place).parent))
    elif form == "through another":
        link(photos / ".hidden", target)
        target = photos / ".hidden"
    link(photos / place, target)
    error = refused(photos)
    assert "a link that points outside of 'photos'" in error.what
    assert error.where == str(photos / place)


def test_a_root_whose_name_begins_alike_is_outside(photos: Path) -> None:
    put(photos.parent / "photos2" / "x.png")
    link(photos / "cat" / "x.png", photos.parent / "photos2" / "x.png")
    assert "a link that points outside of" in refused(photos).what


def test_links_within_the_root_are_followed(photos: Path) -> None:
    link(photos / "cat" / "copy.png", photos / "cat" / "0.png")
    link(photos / "again", photos / "dog")
    raw = read(photos)
    assert raw.classes == ["again", "cat", "dog"]
    assert len(raw.parts["all"][0]) == 13
    images, names = everything(raw), raw.parts["all"][0].names
    copy, original = names.index("cat/copy.png"), names.index("cat/0.png")
    np.testing.assert_array_equal(images[copy], images[original])


def test_the_root_itself_may_be_a_link(photos: Path) -> None:
    link(photos.parent / "elsewhere", photos)
    assert len(read(photos.parent / "elsewhere").parts["all"][0]) == 8


@pytest.mark.parametrize("target", [".", "..", "../cat", "x.png"])
def test_links_in_a_circle_end(photos: Path, target: str) -> None:
    link(photos / "cat" / "x.png", target)
    assert "link" in refused(photos).what


def test_a_link_to_nothing(photos: Path) -> None:
    link(photos / "cat" / "x.png", photos / "cat" / "gone.png")
    error = refused(photos)
    assert "No such file" in error.what
    assert error.where == str(photos / "cat" / "x.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_text(photos: Path) -> None:
    os.mkdir(os.fsencode(photos) + b"/caf\xe9")
    error = refused(photos)
    assert error.what == "a name that is not UTF-8"
    assert error.where.endswith("caf\\xe9")


# Columns


def test_columns_to_split_by(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for patient in range(10):
            for view in range(2):
                put(tmp_path / name / f"p{patient}_{view}.png")
    raw = read(tmp_path, group_pattern=r"^(p\d+)_")
    columns = raw.columns["all"]
    assert columns["file"][:3].tolist() == ["p0_0", "p0_1", "p1_0"]
    assert columns["group"][:3].tolist() == ["p0", "p0", "p1"]
    rows = cut(raw, make_config(group="group", stratify=False))
    seen = [set(columns["group"][r.rows]) for r in rows.values()]
    assert sum(map(len, seen)) == 10


def test_names_that_do_not_match_the_pattern(photos: Path) -> None:
    pattern = r"^(\d)\.png"
    assert read(photos, group_pattern=pattern).columns["all"]["group"].tolist() == [*"01230123"]
    for number in range(7):
        put(photos / "dog" / f"stray{number}.png")
    error = refused(photos, group_pattern=pattern)
    assert error.what.startswith("7 names do not match")
    assert error.what.count("dog/stray") == 5


@pytest.mark.parametrize("pattern", ["(", r"p\d+", ""])
def test_patterns_that_cannot_work(photos: Path, pattern: str) -> None:
    node = {"_target_": TARGET, "path": str(photos), "group_pattern": pattern}
    with pytest.raises(ConfigError, match="group_pattern") as caught:
        build(node, where="data.source")
    assert caught.value.exit_code == 2


# Prepared


def prepared(root: Path, folder: Path, **source: Any) -> DataSpec:
    node = {"_target_": TARGET, "path": str(root), **source}
    return prepare(make_config(name=folder.name, source=node), folder)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Sixty pictures of three classes."""
    for number in range(60):
        put(tmp_path / "digits" / f"class{number % 3}" / f"{number}.jpg", (20, 24))
    return tmp_path / "digits"


@pytest.mark.usefixtures("project")
def test_the_same_pictures_give_the_same_bytes_on_any_number_of_cores(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = []
    for cores in (1, 3):
        monkeypatch.setattr("litlab.data.inputs.images.count_cores", lambda cores=cores: cores)
        specs.append(prepared(digits, tmp_path / f"on{cores}", size=[6, 8], fit="crop"))
    for spec in specs:
        assert spec.shape == (3, 6, 8)
        assert spec.image_fit == "crop"
        assert spec.classes == ("class0", "class1", "class2")
        assert sum(spec.sizes.values()) == 60
    assert specs[0].checksums == specs[1].checksums
    assert specs[0].mean == specs[1].mean


@pytest.mark.usefixtures("project")
def test_a_picture_cut_short_leaves_nothing_behind(digits: Path, tmp_path: Path) -> None:
    path = digits / "class1" / "4.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    folder = tmp_path / "prepared" / "digits"
    with pytest.raises(DataError, match="truncated") as caught:
        prepared(digits, folder)
    assert caught.value.where == str(path)
    assert [left.name for left in folder.parent.iterdir() if left.is_dir()] == []
    assert sum(prepared(digits, folder, on_error="skip").sizes.values()) == 59
