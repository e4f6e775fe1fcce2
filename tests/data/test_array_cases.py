"""Arrays as people save them: what is decided of them, what they become, and that they train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litlab.data.inputs.read_input import read_input
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Raw
from litlab.data.sources.array_names import parsed
from litlab.data.sources.npz import Npz, channel_axis, impute, kind_of
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, DataError
from made_data import make_config

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(100, 30, shape).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def read(folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> Raw:
    np.savez(folder / "a.npz", **arrays)
    return Npz(path=str(folder / "a.npz"), **(settings or {})).read()


def refused(folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> Any:
    with pytest.raises((DataError, ConfigError)) as caught:
        read(folder, settings, **arrays)
    assert caught.value.fix
    return caught.value


def decided(raw: Raw) -> dict[str, Any]:
    """The decisions, each by the last part of its setting."""
    found = {d.setting.removeprefix("data.source."): d.value for d in raw.reading.decisions}
    assert len(found) == len(raw.reading.decisions)
    assert all(d.why for d in raw.reading.decisions)
    return found


def values(raw: Raw, part: str = "all") -> np.ndarray:
    x = raw.parts[part][0]
    return np.asarray(x[np.arange(len(x))])


def assert_same(one: Raw, other: Raw) -> None:
    assert (one.kind, one.task, list(one.parts)) == (other.kind, other.task, list(other.parts))
    assert one.dtype == other.dtype
    for part in one.parts:
        np.testing.assert_array_equal(values(one, part), values(other, part))
        np.testing.assert_array_equal(one.parts[part][1], other.parts[part][1])


# Names

Y20, Y8 = LABELS[:20], LABELS[:8]
NAMES: dict[str, tuple[dict[str, int], dict[str, Any], list[str], dict[str, str]]] = {
    # Arrays by name and number of samples; decisions; parts; what is left out.
    "plain": ({"x": 20, "y": 20}, {}, ["all"], {}),
    "capitals": ({"X": 20, "Y": 20}, {"x": "X", "y": "Y"}, ["all"], {}),
    "parts": (
        {"X_train": 20, "Y_train": 20, "X_test": 8, "Y_test": 8},
        {"x": "X", "y": "Y"},
        ["train", "test"],
        {},
    ),
    "keras": ({"x_train": 20, "y_train": 20, "x_test": 8, "y_test": 8}, {}, ["train", "test"], {}),
    "medmnist": (
        {
            f"{p}_{a}": n
            for p, n in (("train", 20), ("val", 8), ("test", 8))
            for a in ("images", "labels")
        },
        {"x": "images", "y": "labels"},
        ["train", "val", "test"],
        {},
    ),
    "joined": (
        {"trainX": 20, "trainY": 20, "devX": 8, "devY": 8},
        {"x": "X", "y": "Y"},
        ["train", "val"],
        {},
    ),
    "test beside all": (
        {"X": 20, "y": 20, "X_test": 8, "y_test": 8},
        {"x": "X"},
        ["train", "test"],
        {},
    ),
    "test without labels": (
        {"x_train": 20, "y_train": 20, "x_test": 8},
        {},
        ["all"],
        {"x_test": "inputs without targets: label them with `litlab predict`"},
    ),
    "numbered": ({"arr_0": 20, "arr_1": 20}, {"x": "arr_0", "y": "arr_1"}, ["all"], {}),
    "numbered parts": (
        {"arr_0": 20, "arr_1": 20, "arr_2": 8, "arr_3": 8},
        {"x": ["arr_0", "arr_2"], "y": ["arr_1", "arr_3"]},
        ["train", "test"],
        {},
    ),
    "sklearn": ({"data": 20, "target": 20}, {"x": "data", "y": "target"}, ["all"], {}),
    "by shape": ({"spectra": 20, "quality": 20}, {"x": "spectra", "y": "quality"}, ["all"], {}),
    "others": ({"x": 20, "y": 20, "ids": 20}, {}, ["all"], {"ids": "neither inputs nor targets"}),
}


def is_target(name: str) -> bool:
    return name in ("arr_1", "arr_3", "quality", "ids") or any(
        word in name.lower() for word in ("y", "label", "target")
    )


@pytest.mark.parametrize("case", NAMES)
def test_arrays_are_found_by_their_names(case: str, tmp_path: Path) -> None:
    sizes, decisions, parts, left_out = NAMES[case]
    arrays = {
        name: LABELS[:size] if is_target(name) else noise(size, 6, 5)
        for name, size in sizes.items()
    }
    raw = read(tmp_path, **arrays)
    found = decided(raw)
    assert found.pop("kind") == "image"
    assert found == decisions
    assert list(raw.parts) == parts
    assert raw.reading.left_out == left_out
    assert [len(y) for _, y in raw.parts.values()] == sorted(
        (n for name, n in sizes.items() if is_target(name) and name != "ids"), reverse=True
    )
    assert_same(raw, read(tmp_path, decided(raw), **arrays))


def test_arrays_that_may_both_be_meant_are_asked_about(tmp_path: Path) -> None:
    arrays = {"data": noise(20, 64), "images": noise(20, 8, 8), "target": LABELS[:20]}
    error = refused(tmp_path, **arrays)
    assert "images (20, 8, 8), data (20, 64)" in error.what
    assert error.fix == "set data.source.x=images, or another of them"
    assert read(tmp_path, {"x": "data"}, **arrays).kind == "tabular"


def test_inputs_and_targets_are_asked_about_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, a=noise(20, 6, 5), b=noise(20, 6, 5), c=LABELS[:20])
    assert str(error).count("error: ") == 2
    assert "data.source.x" in str(error)
    assert "data.source.y" in str(error)


def test_test_inputs_are_taken_even_when_only_train_is_named(tmp_path: Path) -> None:
    arrays = {"X_train": noise(20, 6, 5), "y_train": Y20, "X_test": noise(8, 6, 5), "y_test": Y8}
    raw = read(tmp_path, {"x": "X_train", "y": "y_train"}, **arrays)
    assert {part: len(y) for part, (_, y) in raw.parts.items()} == {"train": 20, "test": 8}


@pytest.mark.parametrize(
    ("name", "base", "part"),
    [
        ("x", "x", "all"),
        ("X_train", "X", "train"),
        ("Test-Images", "Images", "test"),
        ("train/x", "x", "train"),
        ("xTest", "x", "test"),
        ("latest", "latest", "all"),
        ("contest_labels", "contest_labels", "all"),
        ("training", "training", "all"),
    ],
)
def test_names_with_a_part(name: str, base: str, part: str) -> None:
    assert parsed(name) == (base, part)


@pytest.mark.parametrize("named", ["", "X.npy"])
def test_npy_files_beside_each_other(named: str, tmp_path: Path) -> None:
    x, y = floats(20, 9, 8), LABELS[:20]
    np.save(tmp_path / "X.npy", x)
    np.save(tmp_path / "y.npy", y)
    raw = Npz(path=str(tmp_path / named)).read()
    np.testing.assert_array_equal(values(raw)[:, 0], x)
    assert raw.parts["all"][1].tolist() == y.tolist()
    assert [path.name for path in raw.files] == ["X.npy", "y.npy"]


def test_npy_files_in_a_folder_a_part(tmp_path: Path) -> None:
    for part, number in (("train", 20), ("test", 8)):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "x.npy", noise(number, 6, 5))
        np.save(tmp_path / part / "y.npy", LABELS[:number])
    raw = Npz(path=str(tmp_path)).read()
    assert {part: len(y) for part, (_, y) in raw.parts.items()} == {"train": 20, "test": 8}


def test_npy_files_that_hold_objects_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0], [1.0, 2.0]], dtype=object))
    np.save(tmp_path / "y.npy", [0, 1])
    with pytest.raises(DataError, match="array 'x' holds Python objects") as caught:
        Npz(path=str(tmp_path)).read()
    assert "pad sequences of different lengths with NaN" in caught.value.fix


def test_a_folder_of_archives_names_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=[1])
    with pytest.raises(DataError, match=r"without \.npy files") as caught:
        Npz(path=str(tmp_path)).read()
    assert caught.value.fix == f"set data.path={tmp_path}/a.npz"


# Kinds and axes


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((60, 30), "f4", "tabular"),
        ((60, 28, 28), "u1", "image"),
        ((60, 28, 28), "f8", "image"),
        ((60, 12, 1000), "f4", "sequence"),
        ((60, 128, 9), "f4", "sequence"),
        ((60, 128, 9), "u1", "image"),
        ((60, 64, 48), "f4", "image"),
        ((60, 8, 8), "i8", "image"),
        ((60, 32, 32, 3), "f4", "image"),
    ],
)
def test_kinds_by_shape_and_type(shape: Any, dtype: str, kind: str) -> None:
    found = kind_of(shape, np.dtype(dtype))
    assert found is not None
    assert found[0] == kind


@pytest.mark.parametrize(
    ("shape", "kind", "axis"),
    [
        ((60, 32, 32, 3), "image", "last"),
        ((60, 1, 28, 28), "image", "first"),
        ((60, 12, 12, 13), "image", "last"),
        ((60, 13, 12, 12), "image", "first"),
        ((60, 13, 64, 48), "image", "first"),
        ((60, 64, 48, 8), "image", "last"),
        ((60, 28, 28, 28), "image", None),
        ((60, 3, 5, 3), "image", None),
        ((60, 20, 24, 22), "image", None),
        ((60, 9, 100), "sequence", "first"),
        ((60, 100, 9), "sequence", "last"),
        ((60, 9, 9), "sequence", None),
    ],
)
def test_the_axis_of_the_channels(shape: Any, kind: Any, axis: str | None) -> None:
    found = channel_axis(shape, kind)
    assert (found and found[0]) == axis


def test_bands_last_become_channels_first(tmp_path: Path) -> None:
    x = floats(20, 12, 12, 13)
    raw = read(tmp_path, x=x, y=Y20)
    assert decided(raw) == {"kind": "image", "channels": "last"}
    np.testing.assert_array_equal(values(raw), x.transpose(0, 3, 1, 2))
    assert_same(raw, read(tmp_path, decided(raw), x=x, y=Y20))


@pytest.mark.parametrize("channels", ["auto", "first", "last"])
def test_steps_and_channels_of_sequences(channels: Any, tmp_path: Path) -> None:
    x = floats(20, 100, 9)
    raw = read(tmp_path, {"channels": channels}, x=x, y=Y20)
    assert decided(raw).get("channels") == {"auto": "last"}.get(channels)
    expected = x if channels == "first" else x.transpose(0, 2, 1)
    np.testing.assert_array_equal(values(raw), expected)


def test_axes_that_cannot_be_told_apart_are_shown_both_ways(tmp_path: Path) -> None:
    error = refused(tmp_path, x=floats(20, 12, 14, 13), y=Y20)
    assert "channels cannot be guessed" in error.what
    assert error.fix == (
        "set data.source.channels=first for 12 channels of 14 x 13 pixels, "
        "or last for 13 of 12 x 14"
    )


@pytest.mark.parametrize("shape", [(20, 8, 9, 9, 3), (20, 28, 28, 28)])
def test_volumes_and_videos_are_refused_by_name(shape: Any, tmp_path: Path) -> None:
    assert "volumes" in refused(tmp_path, x=noise(*shape), y=Y20).what


def test_signals_in_rows_are_suggested_as_sequences(tmp_path: Path) -> None:
    waves = np.sin(np.arange(100) / 8 + RNG.uniform(0, 6, (20, 1)))
    raw = read(tmp_path, x=waves, y=Y20)
    assert raw.kind == "tabular"
    assert [(s.setting, s.value) for s in raw.reading.suggestions] == [
        ("data.source.kind", "sequence")
    ]
    assert not read(tmp_path, x=floats(20, 100), y=Y20).reading.suggestions


def test_flat_pixels_are_pointed_out(tmp_path: Path) -> None:
    raw = read(tmp_path, x=noise(20, 784), y=Y20)
    assert raw.kind == "tabular"
    assert raw.notes() == [
        "rows of 784 = 28 x 28 bytes may be images: save them as x.reshape(-1, 28, 28)"
    ]


# Types of pixels


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda: floats(20, 6, 5), "float32"),
        (lambda: floats(20, 6, 5).astype(np.float64), "float32"),
        (lambda: floats(20, 6, 5).astype(np.float16), "float32"),
        (lambda: RNG.integers(0, 4096, (20, 6, 5)).astype(np.uint16), "float32"),
        (lambda: RNG.integers(-1000, 3000, (20, 6, 5)).astype(np.int16), "float32"),
        (lambda: RNG.integers(0, 2, (20, 6, 5)).astype(bool), "float32"),
        (lambda: RNG.integers(0, 256, (20, 6, 5)), "uint8"),
        (lambda: RNG.integers(0, 256, (20, 6, 5)).astype(">u2"), "uint8"),
    ],
)
def test_pixels_of_any_type_keep_their_values(
    make: Callable[[], np.ndarray], dtype: str, tmp_path: Path
) -> None:
    x = make()
    raw = read(tmp_path, {"kind": "image"}, x=x, y=Y20)
    assert raw.dtype == dtype
    np.testing.assert_array_equal(values(raw)[:, 0].astype(dtype), x.astype(np.float64))
    assert any(f"images of {x.dtype} are kept" in note for note in raw.notes())


# Targets


@pytest.mark.parametrize(
    ("y", "classes", "note"),
    [
        (np.eye(3)[LABELS], ["0", "1", "2"], "one-hot"),
        (np.eye(3, dtype=bool)[LABELS], ["0", "1", "2"], "one-hot"),
        (LABELS.astype(np.float64), ["0", "1", "2"], "are whole"),
        (LABELS[:, None].astype(np.uint8), ["0", "1", "2"], ""),
        (LABELS + 1, ["1", "2", "3"], ""),
        (np.where(LABELS > 0, 1, -1), ["-1", "1"], ""),
        (LABELS > 0, ["False", "True"], ""),
        (np.array(["c", "b", "a"])[LABELS], ["a", "b", "c"], ""),
    ],
)
def test_labels_as_people_save_them(y: Any, classes: list[str], note: str, tmp_path: Path) -> None:
    raw = read(tmp_path, x=noise(60, 6, 5), y=y)
    assert raw.task == "classification"
    assert raw.classes == classes
    assert [note in text for text in raw.notes()] == [True] * bool(note)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.linspace(0, 1, 60), "regression"),
        (np.arange(60) * 7, "regression"),
        (floats(60, 2), "regression"),
        (np.arange(60) % 25, "classification"),
    ],
)
def test_the_task_follows_the_targets(y: Any, task: str, tmp_path: Path) -> None:
    raw = read(tmp_path, x=floats(60, 5), y=y)
    assert raw.task == task
    assert decided(raw).get("task") == ("regression" if task == "regression" else None)
    suggested = [s.value for s in raw.reading.suggestions]
    assert suggested == ([] if task == "regression" else ["regression"])


def test_targets_that_are_missing_are_counted(tmp_path: Path) -> None:
    y = LABELS.astype(float)
    y[[4, 9]] = np.nan
    assert "2 samples without a target, first 4, 9" in refused(tmp_path, x=floats(60, 5), y=y).what


def test_every_reason_is_given_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, x=floats(60, 9, 9), y=np.full(60, 1j), settings={"kind": "sequence"})
    assert str(error).count("error: ") == 2
    assert "channels cannot be guessed" in str(error)
    assert "labels of complex128" in str(error)


# Missing values


def test_gaps_in_sequences_are_filled_when_asked() -> None:
    nan = np.nan
    x = np.array([[[nan, 1, nan, nan, 4, nan], [nan] * 6, [0, 1, 2, 3, 4, 5]]])
    filled = [[1, 1, 2, 3, 4, 4], [0] * 6, [0, 1, 2, 3, 4, 5]]
    np.testing.assert_allclose(impute(x, "interpolate")[0], filled)
    np.testing.assert_allclose(impute(x, "zero"), np.nan_to_num(x))


def test_missing_values_are_refused_with_the_setting_that_fills_them(tmp_path: Path) -> None:
    x = floats(60, 3, 20)
    x[[5, 8], 1, 4] = np.nan
    error = refused(tmp_path, x=x, y=LABELS)
    assert error.what == "array 'x': missing values (NaN) in 2 samples, first 5, 8"
    assert error.fix == "set data.source.impute=interpolate, or zero"
    raw = read(tmp_path, {"impute": "interpolate"}, x=x, y=LABELS)
    expected = x[5, 1, [3, 5]].mean()
    np.testing.assert_allclose(values(raw)[5, 1, 4], expected, rtol=1e-5)
    assert raw.notes() == ["missing values filled in 2 samples (interpolate)"]


@pytest.mark.parametrize(
    ("shape", "how", "what"),
    [
        ((60, 9, 9), "interpolate", "no order in time"),
        ((60, 9), "zero", "for sequences and images"),
        ((60, 3, 20), "zero", "no value is missing"),
    ],
)
def test_filling_that_has_no_meaning(shape: Any, how: Any, what: str, tmp_path: Path) -> None:
    assert what in refused(tmp_path, {"impute": how}, x=floats(*shape), y=LABELS).what


# Prepared, and new data


def prepared(folder: Path, **source: Any) -> DataSpec:
    node = {"_target_": "litlab.data.sources.npz.Npz", "path": str(folder / "a.npz"), **source}
    return prepare(make_config(source=node, name="a"), folder / "a")


@pytest.mark.usefixtures("project")
def test_floats_are_prepared_with_statistics_of_train_in_their_own_unit(tmp_path: Path) -> None:
    x = RNG.normal([2000, 30000, -5], [200, 9000, 1], (60, 6, 5, 3))
    np.savez(tmp_path / "a.npz", x=x, y=LABELS)
    spec = prepared(tmp_path)
    assert (spec.dtype, spec.shape) == ("float32", (3, 6, 5))
    np.testing.assert_allclose(spec.mean, [2000, 30000, -5], rtol=0.05)
    np.testing.assert_allclose(spec.std, [200, 9000, 1], rtol=0.05)
    np.save(tmp_path / "new.npy", x[:4])
    _, stored = read_input(tmp_path / "new.npy", spec)
    np.testing.assert_array_equal(stored, x[:4].transpose(0, 3, 1, 2).astype(np.float32))
    np.save(tmp_path / "bytes.npy", noise(4, 6, 5, 3))
    with pytest.warns(UserWarning, match="channel 1 has mean .* training images"):
        read_input(tmp_path / "bytes.npy", spec)


@pytest.mark.usefixtures("project")
def test_new_sequences_are_read_as_those_of_train(tmp_path: Path) -> None:
    x = floats(60, 30, 3)
    x[7, 4, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=LABELS)
    spec = prepared(tmp_path, impute="zero")
    assert spec.shape == (3, 30)
    np.savez(tmp_path / "new.npz", X=x[5:9])
    _, stored = read_input(tmp_path / "new.npz", spec)
    np.testing.assert_array_equal(stored, np.nan_to_num(x[5:9]).transpose(0, 2, 1))
