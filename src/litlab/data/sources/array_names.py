"""Which arrays of a file are inputs and targets, of which split: by names, or by shapes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from litlab.data.raw import Decision
from litlab.data.sources.npz_file import Arrays
from litlab.utils.errors import DataError, nearest, refuse

INPUTS = (
    *("x", "images", "image", "imgs", "img", "data", "features", "inputs", "input"),
    *("signals", "sequences", "samples"),
)
TARGETS = ("y", "labels", "label", "targets", "target", "classes", "outputs", "output")
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
PARTS |= {"dev": "val", "test": "test", "testing": "test"}
SPLITS = {1: ("all",), 2: ("train", "test"), 3: ("train", "val", "test")}
_WORDS = "|".join(sorted(PARTS, key=len, reverse=True))
_NUMBERED = re.compile(r"arr_\d+")
_SEPARATED = (
    re.compile(rf"(?P<base>.+)[_\-./ ](?P<part>{_WORDS})", re.IGNORECASE),
    re.compile(rf"(?P<part>{_WORDS})[_\-./ ](?P<base>.+)", re.IGNORECASE),
)
_KNOWN = "|".join(sorted((*INPUTS, *TARGETS), key=len, reverse=True))
_JOINED = (
    re.compile(rf"(?P<base>{_KNOWN})(?P<part>{_WORDS})", re.IGNORECASE),
    re.compile(rf"(?P<part>{_WORDS})(?P<base>{_KNOWN})", re.IGNORECASE),
)
Names = str | Sequence[str] | None


@dataclass
class Roles:
    """What the arrays are.

    Attributes:
        pairs: Names of inputs and targets, by part.
        base: The targets' name, without that of a part.
        decisions: What was settled that the user left open.
        left_out: The other arrays, with the reason.
    """

    pairs: dict[str, tuple[str, str]]
    base: str
    decisions: list[Decision] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_roles(arrays: Arrays, x: Names, y: Names, where: str) -> Roles:
    """Say which arrays are inputs and targets.

    Args:
        arrays: By name.
        x: Name of the inputs, without that of a part; names of train and test, or of train, val and
            test; None: known names are looked for, then shapes.
        y: The targets' name or names, in the same way.
        where: The file, for messages.

    Raises:
        DataError: There are none, or several that may be meant.
    """
    numbered = [name for name in arrays if _NUMBERED.fullmatch(name)]
    if x is None and y is None and numbered and len(numbered) == len(list(arrays)):
        return _by_order(arrays, numbered, where)
    problems: list[DataError] = []
    found: dict[str, dict[str, str]] = {}
    for setting, given, known in (("x", x, INPUTS), ("y", y, TARGETS)):
        try:
            found[setting] = _find(arrays, setting, given, known, where)
        except DataError as error:
            problems.append(error)
    if problems and x is None and y is None:
        by_shape = _by_shape(arrays)
        if by_shape:
            return by_shape
    refuse(problems)
    return _paired(arrays, found["x"], found["y"], x, y, where)


def _find(
    arrays: Arrays, setting: str, given: Names, known: Sequence[str], where: str
) -> dict[str, str]:
    """The array of each part, for inputs or targets."""
    option = f"data.source.{setting}"
    if given is not None and not isinstance(given, str):
        missing = [name for name in given if name not in arrays]
        if missing:
            raise DataError(f"holds no array '{missing[0]}'", where, nearest(missing[0], arrays))
        if len(given) not in SPLITS:
            what = f"{option} has {len(given)} names"
            raise DataError(what, option, "give train and test, or train, val and test")
        return dict(zip(SPLITS[len(given)], given, strict=True))
    groups: dict[str, dict[str, str]] = {}
    for name in arrays:
        base, part = parsed(name)
        groups.setdefault(base.casefold(), {}).setdefault(part, name)
    usable = {base: parts for base, parts in groups.items() if {"all", "train"} & parts.keys()}
    if given is not None:
        if given in arrays:  # it itself is meant, whatever its name says
            base, part = parsed(given)
            return _as_parts(
                {**groups[base.casefold()], "all" if part == "all" else "train": given}
            )
        if given.casefold() in usable:
            return _as_parts(usable[given.casefold()])
        bases = {parsed(name)[0] for name in arrays}
        fix = f"set {option}: {nearest(given, {*bases, *arrays})}"
        raise DataError(f"holds no array '{given}'", where, fix)
    candidates = [base for base in known if base in usable]
    if len(candidates) > 1:
        names = [name for base in candidates for name in usable[base].values()]
        shown = ", ".join(f"{name} {arrays.shape(name)}" for name in names)
        what = f"several arrays may be {setting}: {shown}"
        raise DataError(what, where, f"set {option}={candidates[0]}, or another of them")
    if not candidates:
        kind = "inputs" if setting == "x" else "targets"
        names = [f"{name} {arrays.shape(name)}" for name in arrays]
        held = f"it holds {', '.join(names[:10])}" if names else "it is empty"
        what = f"no array is named like {kind} ({', '.join(known[:4])}, ...): {held}"
        raise DataError(what, where, f"set {option} to one of its names")
    return _as_parts(usable[candidates[0]])


def parsed(name: str) -> tuple[str, str]:
    """Return an array's name without that of a part, and the part; "all" where it names none."""
    for pattern in (*_SEPARATED, *_JOINED):
        match = pattern.fullmatch(name)
        if match:
            return match["base"], PARTS[match["part"].lower()]
    return name, "all"


def _as_parts(found: dict[str, str]) -> dict[str, str]:
    """X beside X_test is that of train."""
    if "all" not in found:
        return found
    rest = {part: name for part, name in found.items() if part in ("val", "test")}
    return {"train": found["all"], **rest} if rest else {"all": found["all"]}


def _paired(
    arrays: Arrays, x: dict[str, str], y: dict[str, str], given_x: Names, given_y: Names, where: str
) -> Roles:
    one = {"all": "train", "train": "all"}
    first = next(iter(x))
    if first not in y and one.get(first) in y and len(x) == len(y) == 1:
        y = {first: y[one[first]]}
    elif "all" in y and "train" in x:
        y = {"train": y["all"]}
    elif "all" in x and "train" in y:
        x = {"train": x["all"]}
    pairs: dict[str, tuple[str, str]]
    pairs = {p: (x[p], y[p]) for p in ("all", "train", "val", "test") if p in x and p in y}
    if not {"all", "train"} & pairs.keys():
        what = f"inputs {', '.join(x.values())} and targets {', '.join(y.values())} are no pair"
        raise DataError(what, where, "name them alike: x_train and y_train")
    if set(pairs) == {"train"}:
        pairs = {"all": pairs["train"]}
    base = parsed(next(iter(pairs.values()))[1])[0]
    decisions = []
    for setting, given, place in (("x", given_x, 0), ("y", given_y, 1)):
        name = parsed(next(iter(pairs.values()))[place])[0]
        if given is None and name != setting:
            what = "inputs" if setting == "x" else "targets"
            named = ", ".join(pair[place] for pair in pairs.values())
            decisions.append(_decision(setting, name, f"named like {what}: {named}"))
    roles = Roles(pairs, base, decisions, _others(arrays, pairs.values()))
    for name in x.values():
        if name in roles.left_out:
            roles.left_out[name] = "inputs without targets: label them with `litlab predict`"
    return roles


def _others(arrays: Arrays, used: Iterable[tuple[str, str]]) -> dict[str, str]:
    names = {name for pair in used for name in pair}
    return {name: "neither inputs nor targets" for name in arrays if name not in names}


def _by_shape(arrays: Arrays) -> Roles | None:
    """One array of samples and one with a number for each of them, whatever their names."""
    shapes = {name: arrays.shape(name) for name in arrays}
    inputs = [name for name, shape in shapes.items() if _is_input(shape)]
    if len(inputs) != 1:
        return None
    number = shapes[inputs[0]][0]
    targets = [n for n, shape in shapes.items() if n != inputs[0] and shape[:1] == (number,)]
    if len(targets) != 1:
        return None
    pair = inputs[0], targets[0]
    why = "the only array {}, of shape {}"
    decisions = [
        _decision("x", pair[0], why.format("with more than one axis", shapes[pair[0]])),
        _decision("y", pair[1], why.format("as long as that", shapes[pair[1]])),
    ]
    return Roles({"all": pair}, pair[1], decisions, _others(arrays, [pair]))


def _by_order(arrays: Arrays, names: list[str], where: str) -> Roles:
    """What numpy.savez named itself: the inputs have more axes than the targets."""
    names = sorted(names, key=lambda name: int(name.removeprefix("arr_")))
    shapes = {name: arrays.shape(name) for name in names}
    inputs = [name for name in names if _is_input(shapes[name])]
    targets = [name for name in names if name not in inputs]
    if len(inputs) == 2 and not targets and shapes[inputs[0]][0] == shapes[inputs[1]][0]:
        inputs, targets = inputs[:1], inputs[1:]  # targets of several columns
    lengths = [[shapes[name][:1] for name in some] for some in (inputs, targets)]
    if len(inputs) not in SPLITS or lengths[0] != lengths[1]:
        shown = ", ".join(f"{name} {shapes[name]}" for name in names)
        what = f"its arrays have no names of their own, and are no pairs: {shown}"
        raise DataError(what, where, "save them by name: numpy.savez(path, x=images, y=labels)")
    pairs = dict(zip(SPLITS[len(inputs)], zip(inputs, targets, strict=True), strict=True))
    of = ", ".join(pairs) if len(pairs) > 1 else "all samples"
    decisions = [
        _decision(
            setting,
            list[JsonValue](some) if len(some) > 1 else some[0],
            f"by shape and order: {what} of {of}",
        )
        for setting, some, what in (("x", inputs, "inputs"), ("y", targets, "targets"))
    ]
    return Roles(pairs, "y", decisions)


def _is_input(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and (len(shape) > 2 or shape[1] > 1)


def _decision(setting: str, value: JsonValue, why: str) -> Decision:
    return Decision(setting=f"data.source.{setting}", value=value, why=why)


def find_inputs(names: Sequence[str]) -> str | None:
    """Return which of a file's arrays holds new samples to predict; None where it is not clear."""
    if len(names) == 1:
        return names[0]
    named = [name for name in names if name.casefold() in INPUTS]
    exact = [name for name in named if name in ("x", "X")]
    return exact[0] if exact else named[0] if len(named) == 1 else None
