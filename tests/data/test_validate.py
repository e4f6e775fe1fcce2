import numpy as np
import pytest

from litlab.data.prepare.prepare import stored
from litlab.data.prepare.validate import check_chunk, check_raw, check_splits
from litlab.utils.errors import DataError
from made_data import KINDS, make_raw


def check(raw, source="made"):
    """As prepare does: what is known at once, then chunk by chunk."""
    check_raw(raw, source)
    shape = ()
    for name, (x, _) in raw.parts.items():
        where = f"{source}, part '{name}'"
        check_chunk(raw, stored(raw, x), np.arange(len(x)), where, shape)
        shape = x.shape[1:]


def with_part(raw, x=None, y=None, name="all"):
    inputs, targets = raw.parts["all"]
    raw.parts = {name: (inputs if x is None else x, targets if y is None else y)}
    return raw


def spoiled(values, place, value):
    values = values.astype(np.float64 if isinstance(value, float) else values.dtype)
    values[place] = value
    return values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [0, 2])
def test_sound_data_pass(kind, targets) -> None:
    check(make_raw(kind, targets=targets))


def cases():
    table, (x, y) = make_raw, make_raw().parts["all"]
    image = make_raw("image").parts["all"][0]
    text = make_raw("text").parts["all"][0]
    targets = make_raw(targets=2).parts["all"][1]
    return {
        "no channel": (with_part(table("image"), image[:, 0]), "image inputs of shape"),
        "flat sequence": (with_part(table("sequence"), x), "sequence inputs of shape"),
        "complex images": (with_part(table("image"), image * 1j), "image inputs of complex128"),
        "uneven": (with_part(table(), y=y[:-1]), "60 inputs and 59 targets"),
        "nothing": (with_part(table(), x[:0], y[:0]), "no samples"),
        "no width": (with_part(table("image"), image[..., :0]), "image inputs of shape"),
        "words": (with_part(table(), x.astype(str)), "tabular inputs of <U"),
        "objects": (with_part(table(), x.astype(object)), "tabular inputs of object"),
        "NaN": (with_part(table(), spoiled(x, (7, 1), np.nan)), r"inputs in 1 rows, first \[7\]"),
        "infinity": (with_part(table(), spoiled(x, [3, 9], np.inf)), r"2 rows, first \[3, 9\]"),
        "too large": (with_part(table(), spoiled(x, (4, 0), 1e300)), r"1 rows, first \[4\]"),
        "NaN target": (
            with_part(table(targets=2), y=spoiled(targets, (5, 1), np.nan)),
            r"targets in 1 rows, first \[5\]",
        ),
        "flat targets": (
            with_part(table(targets=1), y=targets[:, 0]),
            r"shape \(60,\) for 1 named",
        ),
        "unnamed target": (with_part(table(targets=1), y=targets), r"shape \(60, 2\) for 1 named"),
        "label too large": (
            with_part(table(), y=spoiled(y, slice(2, 9), 3)),
            r"7 labels outside 0..2 \(row 2: 3, row 3: 3, row 4: 3, row 5: 3, row 6: 3\)",
        ),
        "negative label": (with_part(table(), y=spoiled(y, 4, -1)), r"1 labels .* \(row 4: -1\)"),
        "fractional labels": (with_part(table(), y=y + 0.5), "labels of float64"),
        "NaN label": (with_part(table(), y=spoiled(y, 0, np.nan)), "labels of float64"),
        "images as labels": (with_part(table("image"), y=image[:, 0]), r"shape \(60, 6, 5\)"),
        "labels as images": (with_part(table("image"), y.astype(np.uint8)), r"of shape \(60,\)"),
        "one class": (table(classes=1), "1 class "),
        "class twice": (_renamed(classes=["a", "b", "a"]), "'a' appears twice in classes"),
        "feature twice": (_renamed(features=["a", "b", "b", "c"]), "'b' appears twice in features"),
        "features": (_renamed(features=["a", "b"]), "4 features, 2 names"),
        "unknown part": (with_part(table(), name="training"), r"parts \['training'\]"),
        "only a test part": (with_part(table(), name="test"), r"parts \['test'\]"),
        "id too large": (with_part(table("text"), text + 1), "ids from 1 to 6, .* vocabulary of 6"),
        "negative id": (with_part(table("text"), text - 1), "ids from -1 to 4"),
        "fractional ids": (with_part(table("text"), text * 1.0), "text inputs of float64"),
    }


def _renamed(**names):
    raw = make_raw()
    for name, value in names.items():
        setattr(raw, name, value)
    return raw


@pytest.mark.parametrize("name", cases())
def test_refusals(name) -> None:
    raw, message = cases()[name]
    with pytest.raises(DataError, match=message) as caught:
        check(raw, "my.Source")
    assert caught.value.exit_code == 3
    assert "my.Source" in caught.value.where
    assert caught.value.fix


def test_the_part_is_named() -> None:
    x, y = make_raw().parts["all"]
    raw = make_raw(parts={"train": (x, y), "test": (spoiled(x, 0, np.nan), y)})
    with pytest.raises(DataError) as caught:
        check(raw, "my.Source")
    assert caught.value.where == "my.Source, part 'test'"


def test_parts_of_different_shapes() -> None:
    large = make_raw("image", shape=(1, 9, 9)).parts["all"]
    raw = make_raw("image", parts={"train": make_raw("image").parts["all"], "test": large})
    with pytest.raises(DataError, match=r"different shapes: \(1, 9, 9\) and \(1, 6, 5\)"):
        check(raw)


def labels(train, val, test):
    return {"train": np.array(train), "val": np.array(val), "test": np.array(test)}


def test_sound_splits_pass() -> None:
    assert check_splits(make_raw(), labels([0, 1, 2], [0, 1, 2], [2])) == []


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (labels([0, 1], [], [1]), "the val split is empty"),
        (labels([1, 1], [1], [1]), "train has a single class"),
        (labels([0, 1], [2, 0], [1]), "val has classes that are not in train: class 2"),
        (labels([0, 1], [0, 1], [1, 2]), "test has classes that are not in train: class 2"),
    ],
)
def test_split_refusals(targets, message) -> None:
    with pytest.raises(DataError, match=message):
        check_splits(make_raw(), targets)


def test_a_class_that_val_lacks_is_worth_a_warning() -> None:
    (message,) = check_splits(make_raw(), labels([0, 1, 2], [0], [0]))
    assert "val has no samples of the classes class 1, class 2" in message


def test_regression_has_no_classes_to_miss() -> None:
    values = {name: np.zeros((2, 1)) for name in ("train", "val", "test")}
    assert check_splits(make_raw(targets=1), values) == []


def test_a_single_class_stops_unless_allowed() -> None:
    targets = labels([1, 1], [1], [1])
    with pytest.raises(DataError, match="single class") as caught:
        check_splits(make_raw(), targets)
    assert caught.value.exit_code == 3
    assert "data.allow=[single_class]" in caught.value.fix
    (message,) = check_splits(make_raw(), targets, ["single_class"])
    assert "single class" in message
