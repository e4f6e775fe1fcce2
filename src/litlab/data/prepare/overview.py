"""What prepared data were taken for, in the few lines to read before training on them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from litlab.config.quoting import quoted
from litlab.data.raw import Reading
from litlab.data.spec import SPLITS, Column, DataSpec
from litlab.utils.errors import DataError
from litlab.utils.output import one_line

MOST_CLASSES = 20  # are listed by name
MOST_COLUMNS = 8  # of each role
LONGEST_NAME = 40
MANY_UNKNOWN, NEARLY_ALL = 0.2, 0.95  # shares of the tokens
DARK = 32  # of 255
SPLIT_WORDS = "train|training|test|testing|val|valid|validation|dev|eval"
SPLIT_NAME = re.compile(rf"({SPLIT_WORDS})([\W_]?(set|data|images|split))?", re.I)
MASK_NAME = re.compile(r"masks?|annotations?|segmentations?|labels?", re.I)


def overview(spec: DataSpec, reading: Reading) -> list[str]:
    """Return what a person reads: the inputs, the target, and where each split comes from.

    However many columns and classes there are, these are a few lines.
    """
    lines = _columns(spec, reading) if spec.kind == "tabular" else [_inputs(spec)]
    if reading.left_out:
        reasons = [
            f"{_short(name) or '(no name)'} ({why})" for name, why in reading.left_out.items()
        ]
        lines.append(_listed("left out", reasons))
    lines += [_target(spec, reading)] if spec.task != "language_model" else []
    lines.append(_splits(spec, reading))
    if reading.unknown:
        shares = ", ".join(f"{split} {share:.1%}" for split, share in reading.unknown.items())
        lines.append(f"unknown tokens: {shares}")
    return [f"{spec.name} was read as:", *(f"  {line}" for line in lines)]


def _columns(spec: DataSpec, reading: Reading) -> list[str]:
    numbers = [c.name for c in spec.columns if c.kind == "numeric"] or list(spec.features)
    if spec.columns and all(c.kind == "categorical" for c in spec.columns):
        numbers = []
    lines = [_listed("numbers", map(_short, numbers))]
    categories = [_category(c) for c in spec.columns if c.kind == "categorical"]
    if categories:
        lines.append(_listed("categories", categories))
    return lines + [f"{role}: {_short(name)}" for role, name in reading.roles.items()]


def _category(column: Column) -> str:
    example = f", such as '{_short(column.categories[0])}'" if column.categories else ""
    return f"{_short(column.name)} ({len(column.categories)} values{example})"


def _inputs(spec: DataSpec) -> str:
    if spec.kind == "image":
        return f"images: {' x '.join(map(str, spec.shape))} (channels x height x width)"
    if spec.kind == "sequence":
        return f"sequences: {spec.shape[0]} x {spec.shape[1]} (channels x steps)"
    unit = _source(spec).get("tokenizer")
    tokens = f"texts: {spec.vocab_size:,} different tokens" if spec.vocab_size else "texts"
    return f"{tokens}{f' (tokenizer={unit})' if unit else ''}, at most {spec.shape[0]:,} at once"


def _target(spec: DataSpec, reading: Reading) -> str:
    if spec.task == "regression":
        pairs = zip(spec.targets, spec.target_mean, spec.target_std, strict=True)
        amounts = [f"{_short(n)} (mean {mean:.4g}, deviation {std:.4g})" for n, mean, std in pairs]
        return _listed("target, a number" if len(amounts) == 1 else "targets, numbers", amounts)
    if spec.task == "multi_label":
        return _labels(spec, reading)
    name = f"target {_short(reading.target)}: " if reading.target else "target: "
    number = len(spec.classes)
    if number > MOST_CLASSES:
        first, last = _short(spec.classes[0]), _short(spec.classes[-1])
        return f"{name}{number} classes, from '{first}' to '{last}'"
    counts = spec.class_counts or ("?",) * number
    shown = [f"{_short(label)} ({n})" for label, n in zip(spec.classes, counts, strict=True)]
    return f"{name}{number} classes (in train): {', '.join(shown)}"


def _labels(spec: DataSpec, reading: Reading) -> str:
    """The labels with their samples in train, and how many a sample has."""
    each = sum(spec.class_counts) / max(1, spec.sizes["train"])
    columns = reading.target == ", ".join(spec.classes)  # each label is a column of its own
    name = f"target {_short(reading.target)}" if reading.target and not columns else "target"
    number = f"{len(spec.classes)} label{'s' if len(spec.classes) > 1 else ''}"
    several = f"{name}: {number}, {each:.3g} a sample"
    if len(spec.classes) > MOST_CLASSES:
        first, last = _short(spec.classes[0]), _short(spec.classes[-1])
        return f"{several}, from '{first}' to '{last}'"
    pairs = zip(spec.classes, spec.class_counts, strict=True)
    shown = ", ".join(f"{_short(label)} ({n})" for label, n in pairs)
    return f"{several} (in train): {shown}"


def _splits(spec: DataSpec, reading: Reading) -> str:
    own = [split for split in SPLITS if split in reading.own]
    cut = [f"{split} {spec.sizes[split]:,}" for split in SPLITS if split not in own]
    origin = reading.parts.get("train") or reading.parts.get("all")
    of = f" from {origin}" if origin else ""
    found = [f"{', '.join(cut)}{of}{_how(spec) if len(cut) > 1 else ''}"] if cut else []
    for split in own:
        found.append(f"{split} {spec.sizes[split]:,} from {reading.parts.get(split, 'the source')}")
    return f"splits: {'; '.join(found)}"


def _how(spec: DataSpec) -> str:
    settings = spec.settings
    if settings.get("group"):
        return f", cut by the groups of '{settings['group']}'"
    if settings.get("time") or spec.task == "language_model":
        column = f" of '{settings['time']}'" if settings.get("time") else ""
        return f", cut by order{column}"
    if settings.get("num_folds"):
        fold = settings.get("fold")
        shown = fold + 1 if isinstance(fold, int) else fold  # people count from 1
        return f", fold {shown} of {settings['num_folds']} is val"
    return f", cut at random (data.split_seed={settings.get('split_seed')})"


def doubts(spec: DataSpec, reading: Reading) -> list[str]:
    """Return warnings of what was probably meant otherwise; none of it stops."""
    found = list(reading.doubts)
    if spec.task == "classification":
        found += _of_classes(spec.classes, _source(spec))
    many = {split: share for split, share in reading.unknown.items() if share > MANY_UNKNOWN}
    if many:
        shares = ", ".join(f"{split} {share:.0%}" for split, share in many.items())
        found.append(f"many tokens are unknown ({shares}): {_known_tokens(spec)}")
    if reading.brightest is not None and reading.brightest < DARK:
        found.append(
            f"the brightest pixel of train is {reading.brightest} of 255: pixels that go from 0 to "
            "1, or 12-bit images stored in 16 bits, lose detail; scale them to 0 to 255"
        )
    return found


def refuse_unknown(spec: DataSpec, reading: Reading) -> None:
    """Refuse texts of which the tokenizer knows next to nothing.

    Raises:
        DataError: Nearly all tokens of the train split are unknown.
    """
    share = reading.unknown.get("train", 0.0)
    if share >= NEARLY_ALL:
        what = f"{share:.1%} of the tokens of train are unknown: there is nothing to learn from"
        raise DataError(what, spec.name, _known_tokens(spec))


def _known_tokens(spec: DataSpec) -> str:
    default = "char" if spec.task == "language_model" else "word"
    if _source(spec).get("tokenizer", default) == "word":
        fix = "set data.source.tokenizer=char or bpe (for texts without spaces, or few texts)"
        return f"{fix}, or lower data.source.min_frequency"
    return "set data.source.tokenizer=bpe, or lower data.source.min_frequency"


def _of_classes(classes: Sequence[str], source: Mapping[str, object]) -> list[str]:
    numbers = [number for number in map(_number, classes) if number is not None]
    found = _alike(classes) + _joined(classes, source) + _no_classes(classes)
    if len(numbers) == len(classes):
        if any(not number.is_integer() for number in numbers):
            found.append(
                f"the classes are numbers such as {classes[0]} and {classes[-1]}: if they are "
                "amounts, set data.source.task=regression task=regression, or use data=table"
            )
        elif len(numbers) > 2 and min(numbers) == -1:
            found.append("class '-1' often means 'no label': remove those samples if it does")
    return found


def _alike(classes: Sequence[str]) -> list[str]:
    """Classes that are the same number, or the same but for case and a full stop."""
    same: dict[object, list[str]] = defaultdict(list)
    for label in classes:
        number = _number(label)
        same[label.strip().rstrip(".").casefold() if number is None else number].append(label)
    groups = [" and ".join(f"'{_short(n)}'" for n in names) for names in same.values() if names[1:]]
    if not groups:
        return []
    more = ", ..." if len(groups) > MOST_COLUMNS else ""
    shown = f"{', '.join(groups[:MOST_COLUMNS])}{more}"
    return [f"classes that look the same: {shown}; write each class in one way"]


def _joined(classes: Sequence[str], source: Mapping[str, object]) -> list[str]:
    """Classes made of other classes: several labels in one cell."""
    known = set(classes)
    for label in classes:
        for separator in "|;,+ ":
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and set(parts) <= known:
                what = f"class '{_short(label)}' combines other classes, and is a class of its own"
                fix = "for several labels a sample, give a column of 0 and 1 for each"
                if "label_separator" in source:
                    setting = quoted(f"data.source.label_separator={separator}")
                    fix = f"for several labels a text, set {setting}"
                return [f"{what}; {fix}"]
    return []


def _no_classes(classes: Sequence[str]) -> list[str]:
    found = []
    splits = [label for label in classes if SPLIT_NAME.fullmatch(label)]
    if splits:
        names = ", ".join(f"'{_short(name)}'" for name in splits[:MOST_COLUMNS])
        found.append(
            f"classes named like splits: {names}; if they are splits, name them train, val, test"
        )
    masks = [label for label in classes if MASK_NAME.fullmatch(label)]
    if masks:
        what = f"class '{_short(masks[0])}' is named like masks or annotations"
        found.append(f"{what}: segmentation is not supported; it is used as a class")
    return found


def _number(label: str) -> float | None:
    try:
        number = float(label)
    except ValueError:
        return None
    return number if number - number == 0 else None  # not NaN, not infinite


def _source(spec: DataSpec) -> Mapping[str, object]:
    source = spec.settings.get("source")
    return source if isinstance(source, dict) else {}


def _listed(role: str, names: Iterable[str]) -> str:
    listed = list(names)
    more = ", ..." if len(listed) > MOST_COLUMNS else ""
    return f"{role} ({len(listed)}): {', '.join(listed[:MOST_COLUMNS]) or 'none'}{more}"


def _short(name: str) -> str:
    """A name that fits into a line, and moves no cursor."""
    plain = one_line(name)
    return plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 3]}..."
