from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Decision, Raw, Reading, number_classes
from litlab.data.sources.array_names import find_roles
from litlab.data.sources.npz_file import Arrays, NpyFolder, NpzFile
from litlab.data.spec import Array
from litlab.utils.errors import ConfigError, DataError, refuse

AT_ONCE = 2**22  # values looked at at a time
Kind = Literal["image", "sequence", "tabular"]
Impute = Literal["interpolate", "zero"]
Task = Literal["classification", "multi_label", "regression"]

# Which axis holds the channels, and what an array's samples are: by its shape and type.


COLOURS = (1, 3, 4)  # an axis of as many entries is taken for the channels of an image
SHORT, LONGER = 16, 2  # channels of a sequence, at most; steps, so many times the channels


def kind_of(shape: Sequence[int], dtype: "np.dtype[Any]") -> tuple[Kind, str] | None:
    """Return what samples of this shape `(N, ...)` are, and why; None if nothing fits."""
    if len(shape) == 2:
        return "tabular", f"{_times(shape)}: a row a sample"
    if len(shape) == 4:
        return "image", f"{_times(shape)}: two axes and channels a sample"
    if len(shape) != 3:
        return None
    small, large = sorted(shape[1:])
    if dtype.kind in "ub" and dtype.itemsize == 1:
        return "image", f"{_times(shape)} of {dtype}, as pixels are stored"
    if small <= SHORT and large >= LONGER * small:
        return "sequence", f"{_times(shape)} of {dtype}: of the two axes, one is much longer"
    return "image", f"{_times(shape)} of {dtype}: two axes of similar length"


def channel_axis(shape: Sequence[int], kind: Kind) -> tuple[Literal["first", "last"], str] | None:
    """Return where the channels of samples `(N, a, b)` or `(N, a, b, c)` are, and why."""
    first, last = shape[1], shape[-1]
    if kind == "image":
        if (first in COLOURS) != (last in COLOURS):
            axis: Literal["first", "last"] = "first" if first in COLOURS else "last"
            return (
                axis,
                f"{_times(shape)}: an axis of {first if axis == 'first' else last} holds colours",
            )
        square = shape[2] == shape[3], shape[1] == shape[2]
        if square[0] != square[1]:
            axis = "first" if square[0] else "last"
            return axis, f"{_times(shape)}: the other two axes are equally long"
        if LONGER * min(first, last) > max(first, last):
            return None
    if first == last:
        return None
    axis = "first" if first < last else "last"
    return axis, f"{_times(shape)}: the shorter axis"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


# Samples read by number, whose axes, type or missing values are changed when they are.


@dataclass
class Changed:
    """An array whose samples are changed as they are read.

    Attributes:
        array: As it is stored.
        change: Of some of its samples.
        shape: Of all of them, once changed.
        dtype: Theirs.
    """

    array: Array
    change: Callable[[Array], Array]
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> Array:
        """Return the samples of these row numbers."""
        return self.change(self.array[rows])


def chunks(array: Array) -> Iterator[tuple[int, Array]]:
    """Give an array's samples in pieces, each with the place of its first."""
    step = max(1, AT_ONCE // max(1, prod(array.shape[1:])))
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


def impute(x: Array, how: Impute) -> Array:
    """Return samples `(n, C, ...)`, float32, without NaN.

    Args:
        x: The samples.
        how: zero; or interpolate: between the nearest known values along the last axis, before the
            first and after the last the nearest one, zero where a channel has none.
    """
    filled = x.astype(np.float32)
    missing = np.isnan(filled)
    if how == "zero":
        filled[missing] = 0
        return filled
    rows, gaps = filled.reshape(-1, x.shape[-1]), missing.reshape(-1, x.shape[-1])
    for row in np.flatnonzero(gaps.any(1)):
        known = np.flatnonzero(~gaps[row])
        values = rows[row, known] if len(known) else np.zeros(1)
        at = np.flatnonzero(gaps[row])
        rows[row, at] = np.interp(at, known if len(known) else [0], values)
    return rows.reshape(x.shape)


def several_labels(y: Mapping[str, Array]) -> bool:
    """Whether targets are 0 or 1 each, `(N, K)`, and not one 1 a row, which would be one class."""
    flags = all(a.ndim == 2 and a.shape[1] > 1 and a.dtype.kind in "iufb" for a in y.values())
    if not flags or not all(np.isin(a, (0, 1)).all() for a in y.values()):
        return False
    return any((a.sum(1) != 1).any() for a in y.values())


class Npz:
    """Arrays of an `.npz` file or of a folder's `.npy` files: `x` and `y`, or `x_train`, ...

    Arrays that numpy.savez wrote are memory-mapped; compressed ones are unpacked into memory.

    Args:
        path: The file, or the folder of `.npy` files, or one of these; relative to the project's
            root.
        kind: image: `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`; sequence: `(N, L)`, `(N, C, L)`
            or `(N, L, C)`; tabular: `(N, F)`; auto: by shape and type.
        task: classification: `y` are integers, whole floats, booleans or strings `(N,)`, or one-hot
            `(N, K)`; multi_label: 0 and 1 `(N, K)`; regression: numbers `(N,)` or `(N, T)`; auto:
            by what is in `y`.
        x: Name of the inputs. With a part's name before or behind it (`train_x`, `x_train`), it is
            that part. Or the names of train and test, or of train, val and test. null: those that
            are named like inputs.
        y: Name of the targets, in the same way.
        channels: Which axis they are; auto: the one of 1, 3 or 4 entries, else the shorter one.
        impute: What a NaN becomes, in sequences and images. interpolate: between its neighbours in
            time; zero; null: they are refused.
        licence: Of the data, for the records.
        origin: Where they come from, for the records; null: the path.
    """

    def __init__(
        self,
        *,
        path: str,
        kind: Literal["auto", "image", "sequence", "tabular"] = "auto",
        task: Literal["auto", "classification", "multi_label", "regression"] = "auto",
        x: str | tuple[str, ...] | None = None,
        y: str | tuple[str, ...] | None = None,
        channels: Literal["auto", "first", "last"] = "auto",
        impute: Literal["interpolate", "zero"] | None = None,
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.path, self.x, self.y = path, x, y
        self.kind, self.task, self.channels, self.impute = kind, task, channels, impute
        self.licence, self.origin = licence, origin or path

    def read(self) -> Raw:
        """Return the data.

        Raises:
            DataError: The file or an array in it is damaged, missing, or of another kind.
            ConfigError: A setting has no meaning for these arrays.
            EnvironmentFault: There is no such file.
        """
        arrays, files, wanted = self._open()
        roles = find_roles(arrays, wanted, self.y, self.path)
        x = {part: arrays[name] for part, (name, _) in roles.pairs.items()}
        y = {part: arrays[name] for part, (_, name) in roles.pairs.items()}
        names = {part: name for part, (name, _) in roles.pairs.items()}
        inputs = _Inputs(self, names, x)
        targets = _Targets(self, {part: name for part, (_, name) in roles.pairs.items()}, y)
        problems: list[DataError | ConfigError] = []
        for read in (inputs.read, targets.read):
            try:
                read()
            except (DataError, ConfigError) as error:
                problems.append(error)
        refuse(problems)
        width = max(array.shape[1] for array in targets.y.values()) if not targets.classes else 0
        numbered = [f"{roles.base}{i}" for i in range(width)]
        amounts = [roles.base] if width == 1 else numbered
        return Raw(
            kind=inputs.kind,
            task=targets.task,
            parts={part: (inputs.x[part], targets.y[part]) for part in roles.pairs},
            classes=numbered if targets.task == "multi_label" else targets.classes,
            targets=amounts if targets.task == "regression" else [],
            licence=self.licence,
            origin=self.origin,
            files=files,
            reading=Reading(
                decisions=(*roles.decisions, *inputs.decisions, *targets.decisions),
                suggestions=(*inputs.suggestions, *targets.suggestions),
                target=roles.base,
                left_out=roles.left_out,
                parts={part: f"array '{name}'" for part, (name, _) in roles.pairs.items()},
            ),
            notes=lambda: [*inputs.notes, *targets.notes],
        )

    def _open(self) -> tuple[Arrays, list[Path], str | tuple[str, ...] | None]:
        """The arrays, the files they are in, and the name of the inputs."""
        path = user_path(self.path)
        x = self.x
        if path.suffix == ".npy" and path.is_file():
            x, path = x or path.stem, path.parent
        if not path.is_dir():
            return NpzFile(path), [path], x
        folder = NpyFolder(path)
        if not folder.files:
            archives = sorted(file.name for file in path.glob("*.npz"))
            fix = f"set data.path={self.path.rstrip('/')}/{archives[0]}" if archives else ""
            what = "is a folder without .npy files"
            raise DataError(what, self.path, fix or "name an .npz file, or a folder of .npy files")
        return folder, list(folder.files.values()), x


class _Inputs:
    """Brings inputs into litlab's order of axes, as views where they are mapped."""

    def __init__(self, source: Npz, names: Mapping[str, str], arrays: Mapping[str, Array]) -> None:
        self.source, self.names, self.arrays = source, names, arrays
        self.decisions: list[Decision] = []
        self.suggestions: list[Decision] = []
        self.notes: list[str] = []
        self.x: dict[str, Any] = {}
        self.kind: Kind = "image"

    def read(self) -> None:
        """Decide on kind and axes, and look for what is missing."""
        first = next(iter(self.arrays))
        name, array = self.names[first], self.arrays[first]
        for part, other in self.arrays.items():
            if other.dtype.kind not in "iufb":
                fix = "give numbers: y is what may be texts"
                raise self._misfit(self.names[part], f"inputs of {other.dtype}", fix)
            if other.ndim != array.ndim:
                what = f"shape {other.shape}, and '{name}' has {array.shape}"
                raise self._misfit(self.names[part], what, "give all parts the same axes")
        self.kind = self._kind(name, array)
        last = self._is_last(name, array)
        missing = {part: _missing(x) for part, x in self.arrays.items()}
        self._check_missing(missing)
        small = self.kind == "image" and all(map(_fits_bytes, self.arrays.values()))
        for part, x in self.arrays.items():
            self.x[part] = self._changed(x, last, bool(missing[part]), small)
        kept = {str(x.dtype) for x in self.arrays.values()} - {"uint8"}
        if self.kind == "image" and kept:
            how = "bytes, whose values are all they hold" if small else "float32, in their own unit"
            self.notes.append(f"images of {', '.join(sorted(kept))} are kept as {how}")

    def _kind(self, name: str, array: Array) -> Kind:
        shape, given = array.shape, self.source.kind
        fits = {"image": (3, 4), "sequence": (2, 3), "tabular": (2,)}
        if given != "auto":
            if array.ndim not in fits[given]:
                raise self._misfit(name, f"shape {shape}", _shapes(given, array.ndim))
            return given
        found = kind_of(shape, array.dtype)
        if found is None:
            what = f"shape {shape}"
            if array.ndim > 4:
                what += ": volumes and videos are not supported"
                fix = "give one slice or frame a sample: x[:, x.shape[1] // 2], or all as images"
                raise self._misfit(name, what, fix)
            raise self._misfit(name, what, "give (N, F), (N, C, L), (N, H, W) or (N, C, H, W)")
        kind, why = found
        self._decide("kind", kind, why)
        side = int(np.sqrt(shape[1]) + 0.5) if array.ndim == 2 else 0
        if side >= 8 and side * side == shape[1] and array.dtype.kind in "ub":
            self.notes.append(
                f"rows of {shape[1]} = {side} x {side} bytes may be images: save them as "
                f"{name}.reshape(-1, {side}, {side})"
            )
        elif array.ndim == 2 and _is_smooth(array):
            why = "neighbouring columns have like values, as samples of a signal have"
            self.suggestions.append(Decision(setting="data.source.kind", value="sequence", why=why))
        return kind

    def _is_last(self, name: str, array: Array) -> bool:
        """Whether the channels are the last axis."""
        given = self.source.channels
        if array.ndim != (4 if self.kind == "image" else 3):
            if given != "auto":
                raise ConfigError(
                    f"array '{name}': shape {array.shape} of {self.kind} data has no axis of "
                    "channels",
                    f"data.source.channels={given}",
                    "set data.source.channels=auto",
                )
            return False
        if given != "auto":
            return given == "last"
        found = channel_axis(array.shape, self.kind)
        if found is None:
            raise self._misfit(name, *_both_readings(array.shape, self.kind))
        self._decide("channels", *found)
        return found[0] == "last"

    def _check_missing(self, missing: Mapping[str, Sequence[int]]) -> None:
        how = self.source.impute
        number = sum(map(len, missing.values()))
        if how == "interpolate" and self.kind == "image":
            what = "images have no order in time to interpolate in"
            raise ConfigError(what, "data.source.impute", "set data.source.impute=zero")
        if self.kind == "tabular" and how:
            what = "data.source.impute is for sequences and images"
            fix = "save the table as a CSV or Parquet file for data=table, which fills by column"
            raise ConfigError(what, "data.source.impute", fix)
        if how and not number:
            what = "data.source.impute has no effect: no value is missing"
            raise ConfigError(what, "data.source.impute", "leave it out")
        if not number or how:
            self.notes += [f"missing values filled in {number} samples ({how})"] if number else []
            return
        part = next(part for part, rows in missing.items() if len(rows))
        fixes = {
            "sequence": "set data.source.impute=interpolate, or zero",
            "image": "set data.source.impute=zero, or leave these images out",
            "tabular": "fill them, or save a CSV or Parquet file for data=table, which does",
        }
        shown = ", ".join(map(str, missing[part][:5]))
        what = f"missing values (NaN) in {number} samples, first {shown}"
        raise self._misfit(self.names[part], what, fixes[self.kind])

    def _changed(self, x: Array, last: bool, fill: bool, small: bool) -> Any:
        axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        whole = x.ndim == (3 if self.kind == "image" else 2) and self.kind != "tabular"

        def turned(some: Array) -> Array:
            return some.transpose(axes) if last else some[:, None] if whole else some

        how = self.source.impute
        if fill and how:
            # Bound here: mypy and a later reader see that it is not None.
            filling: Impute = how
            shape = turned(x[:0]).shape[1:]
            return Changed(
                x, lambda some: impute(turned(some), filling), (len(x), *shape), np.dtype("f4")
            )
        if small and x.dtype != np.uint8:
            shape, dtype = turned(x[:0]).shape[1:], np.dtype(np.uint8)
            return Changed(x, lambda s: turned(s).astype(np.uint8), (len(x), *shape), dtype)
        return turned(x)

    def _decide(self, setting: str, value: str, why: str) -> None:
        self.decisions.append(Decision(setting=f"data.source.{setting}", value=value, why=why))

    def _misfit(self, name: str, what: str, fix: str) -> DataError:
        return DataError(f"array '{name}': {what}", self.source.path, fix)


def _shapes(kind: Kind, ndim: int) -> str:
    if kind == "image" and ndim > 4:
        return "volumes and videos are not supported: give one slice or frame a sample"
    shapes = {
        "image": "images are (N, H, W), (N, H, W, C) or (N, C, H, W); or set data.source.kind",
        "sequence": "sequence data are (N, L), (N, C, L) or (N, L, C)",
        "tabular": "tabular data are (N, F)",
    }
    return shapes[kind]


def _both_readings(shape: Sequence[int], kind: Kind) -> tuple[str, str]:
    """What is asked where either axis may hold the channels."""
    _, first, *middle, last = shape
    rest = [_times((*middle, last)), _times((first, *middle))]
    unit = "pixels" if kind == "image" else "steps"
    what = f"shape {tuple(shape)}, whose channels cannot be guessed"
    if kind == "image" and min(first, *middle, last) > COLOURS[-1]:
        what += " (volumes are not supported)"
    fix = (
        f"set data.source.channels=first for {first} channels of {rest[0]} {unit}, "
        f"or last for {last} of {rest[1]}"
    )
    return what, fix


def _missing(x: Array) -> list[int]:
    """The rows that hold NaN."""
    if x.dtype.kind != "f":
        return []
    found: list[int] = []
    for start, part in chunks(x):
        rows = np.isnan(part).reshape(len(part), -1).any(1)
        found += (start + np.flatnonzero(rows)).tolist()
    return found


def _fits_bytes(x: Array) -> bool:
    """Whether these are whole numbers from 0 to 255, of more than two values."""
    if x.dtype == np.uint8:
        return True
    if x.dtype.kind not in "iu" or not x.size:
        return False
    low, high = 0, 0
    for _, part in chunks(x):
        low, high = min(low, int(part.min())), max(high, int(part.max()))
        if low < 0 or high > 255:
            return False
    return high > 1


def _is_smooth(x: Array) -> bool:
    """Whether neighbouring columns of a table differ much less than columns far from each other."""
    some = np.asarray(x[:256], np.float64)
    if some.shape[1] < 32 or not np.isfinite(some).all():
        return False
    order = np.random.default_rng(0).permutation(some.shape[1])
    near = np.abs(np.diff(some, axis=1)).mean()
    far = np.abs(np.diff(some[:, order], axis=1)).mean()
    return bool(0 < near < 0.5 * far)


FEW = 20  # classes; of more whole numbers, a regression is suggested


class _Targets:
    """Class numbers or amounts, from what people save as such."""

    def __init__(self, source: Npz, names: Mapping[str, str], arrays: Mapping[str, Array]) -> None:
        self.source, self.names, self.arrays = source, names, arrays
        self.decisions: list[Decision] = []
        self.suggestions: list[Decision] = []
        self.notes: list[str] = []
        self.task: Task = "classification"
        self.classes: list[str] = []
        self.y: dict[str, Array] = {}

    def read(self) -> None:
        """Decide on the task, and number the classes."""
        arrays = {part: _column(y) for part, y in self.arrays.items()}
        for part, y in arrays.items():
            if not y.size:
                raise self._misfit(
                    part, f"no targets: shape {y.shape}", "save at least one a class"
                )
        self.task = self._task(arrays)
        if self.task == "regression":
            self.y = {part: self._amounts(part, y) for part, y in arrays.items()}
            return
        if self.task == "multi_label":
            self.y = {part: self._flags(part, y) for part, y in arrays.items()}
            return
        labels = {part: self._labels(part, y) for part, y in arrays.items()}
        kinds = {y.dtype.kind in "US" for y in labels.values()}
        if len(kinds) > 1:
            shown = ", ".join(f"{self.names[part]} {y.dtype}" for part, y in arrays.items())
            what, fix = f"labels of unlike types: {shown}", "save all as integers, or all as texts"
            raise DataError(what, self.source.path, fix)
        self.classes, self.y = number_classes(labels)
        self.notes = list(dict.fromkeys(self.notes))
        whole = all(y.dtype.kind in "iu" for y in labels.values())
        if whole and len(self.classes) > FEW and self.source.task == "auto":
            why = f"{len(self.classes)} different whole numbers may be amounts"
            task = Decision(setting="data.source.task", value="regression", why=why)
            self.suggestions.append(task)

    def _task(self, arrays: Mapping[str, Array]) -> Task:
        if self.source.task != "auto":
            return self.source.task
        if several_labels(arrays):
            why = "the targets are 0 and 1, any number of ones a sample"
            task = Decision(setting="data.source.task", value="multi_label", why=why)
            self.decisions.append(task)
            return "multi_label"
        for part, y in arrays.items():
            why = ""
            if y.dtype.kind == "f" and not _is_whole(y):
                why = "the targets are fractions"
            elif y.ndim == 1 and y.dtype.kind in "iu" and len(np.unique(y)) > max(FEW, len(y) / 2):
                why = "more than half of the targets differ from all others"
            if why:
                why = f"{why}, such as {np.ravel(y)[0]:g} in '{self.names[part]}'"
                task = Decision(setting="data.source.task", value="regression", why=why)
                self.decisions.append(task)
                return "regression"
        return "classification"

    def _amounts(self, part: str, y: Array) -> Array:
        if y.dtype.kind not in "iuf" or y.ndim not in (1, 2):
            raise self._misfit(part, f"targets of {y.dtype} and shape {y.shape}", "give numbers")
        self._require_known(part, y)
        return y.reshape(len(y), -1).astype(np.float32)

    def _flags(self, part: str, y: Array) -> Array:
        if y.ndim != 2 or y.dtype.kind not in "iufb" or not np.isin(y, (0, 1)).all():
            what = f"labels of {y.dtype} and shape {y.shape}"
            raise self._misfit(part, what, "several labels are 0 or 1 each, (N, K)")
        return y.astype(np.uint8)

    def _labels(self, part: str, y: Array) -> Array:
        """Integers, booleans or strings `(N,)`."""
        if y.ndim == 2 and _is_one_hot(y):
            self.notes.append("labels are one-hot: the column of the 1 is the class")
            numbers: Array = y.argmax(1)
            return numbers
        if y.ndim != 1:
            raise self._misfit(part, f"labels of shape {y.shape}", "several labels are 0 or 1 each")
        if y.dtype.kind == "f":
            self._require_known(part, y)
            if not _is_whole(y):
                fix = "give whole numbers, or set data.source.task=regression task=regression"
                raise self._misfit(part, f"labels of {y.dtype} that are not whole", fix)
            self.notes.append(f"labels of {y.dtype} are whole numbers: read as integers")
            return y.astype(np.int64)
        if y.dtype.kind not in "iubUS":
            raise self._misfit(part, f"labels of {y.dtype}", "give integers or strings")
        labels: Array = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
        return labels

    def _require_known(self, part: str, y: Array) -> None:
        rows = np.flatnonzero(~np.isfinite(y.reshape(len(y), -1)).all(1))
        if len(rows):
            shown = ", ".join(map(str, rows[:5]))
            what = f"{len(rows)} samples without a target, first {shown}"
            raise self._misfit(part, what, "leave these samples out: keep = ~np.isnan(y)")

    def _misfit(self, part: str, what: str, fix: str) -> DataError:
        return DataError(f"array '{self.names[part]}': {what}", self.source.path, fix)


def _column(y: Array) -> Array:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y  # as Keras keeps CIFAR-10's


def _is_whole(y: Array) -> bool:
    known = y[np.isfinite(y)]
    return bool((known == np.trunc(known)).all())


def _is_one_hot(y: Array) -> bool:
    if y.dtype.kind not in "iufb" or not y.size:
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())
