"""`litlab inspect`: a file or folder of the user's -> a preset in conf/data with every decision."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litlab.config import auto_data
from litlab.config.compose import load
from litlab.config.instantiate import build
from litlab.config.schema import Config
from litlab.data.prepare import decisions
from litlab.data.prepare.prepare import read
from litlab.data.prepare.split import own_test_split
from litlab.data.raw import Decision, Raw
from litlab.utils.errors import ConfigError
from litlab.utils.files import dumps, write_atomically
from litlab.utils.output import command, one_line
from litlab.utils.paths import project_root, short

WIDTH = 100


@dataclass(frozen=True)
class Inspection:
    """What a path was found to hold, and how it will be read.

    Attributes:
        name: Of the preset, `data=<name>`.
        path: The preset's file.
        preset: The preset of litlab's own that it builds on.
        why: Why that one.
        decisions: What was decided, as settings with the evidence.
        suggestions: Settings that the user might want.
    """

    name: str
    path: Path
    preset: str
    why: str
    decisions: tuple[Decision, ...]
    suggestions: tuple[Decision, ...]


def inspect(
    path: str,
    target: str | None = None,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    replace: bool = False,
    strict: bool = False,
) -> Inspection:
    """Look at a file or folder, and write conf/data/<name>.yaml, which reads it the same way.

    Every decision is a setting in that file, with a comment that says why; change what is wrong.

    Args:
        path: The file or folder.
        target: The column to predict; None where there is none, or it has a usual name.
        name: Of the preset and of the prepared data; None: the file's name.
        overrides: Further settings that are known, such as "data.source.decimal=,".
        replace: Whether a preset of that name may be replaced.
        strict: Refuse where anything has to be decided, and write nothing.

    Raises:
        ConfigError: Nothing is there that litlab reads, or the preset exists.
        DataError: The files cannot be read, or are not fit to train on.
    """
    found = auto_data.look(project_root() / Path(path).expanduser(), target)
    name = name or auto_data.name_of(Path(path))
    file = project_root() / "conf" / "data" / f"{name}.yaml"
    if file.exists() and not replace:
        fix = "choose another --name, or replace it with --overwrite"
        raise ConfigError("there is a preset of that name", short(file), fix)
    settings = {"data.path": path, "data.name": name} | found.settings
    words = [auto_data.override(key, value) for key, value in settings.items()]
    config = load([f"data={found.preset}", *words, *overrides])
    raw = _read(config)
    settled = (*raw.reading.decisions, *own_test_split(raw, config.data))
    if strict:
        decisions.refuse(raw.reading.model_copy(update={"decisions": settled}), path)
    made = Inspection(name, file, found.preset, found.why, settled, raw.reading.suggestions)
    given = _given([*words, *overrides], config)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, _yaml(made, path, target, given))
    return made


def _read(config: Config) -> Raw:
    source = build(config.data.source, where="data.source", trust=config.trust)
    with tempfile.TemporaryDirectory(prefix="litlab-inspect-") as scratch:
        return read(source, Path(scratch))


def _given(words: Sequence[str], config: Config) -> dict[str, object]:
    """The values of what was set, by dotted name below `data`."""
    content = config.data.model_dump(mode="json")
    given = {}
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        node: object = content
        for part in key.split(".")[1:]:
            node = node.get(part) if isinstance(node, dict) else None
        given[key] = node
    return given


def _yaml(made: Inspection, path: str, target: str | None, given: dict[str, object]) -> str:
    """The preset: what was given, then what was decided, each with its reason."""
    typed = command("inspect", path, *(("--target", target) if target else ()))
    lines = [
        "# @package _global_",
        f"# Written by {one_line(f'`{typed}`: {made.why}')}.",
        "# Change what is wrong. Settings that are not here are those of the preset below.",
        "defaults:",
        f"  - {made.preset}",
        "  - _self_",
        "",
        "data:",
    ]
    top = {key: (value, "") for key, value in given.items()}
    top |= {decision.setting: (decision.value, decision.why) for decision in made.decisions}
    outer = {k: v for k, v in top.items() if not k.startswith("data.source.")}
    inner = {k: v for k, v in top.items() if k.startswith("data.source.")}
    lines += [line for key, (value, why) in outer.items() for line in _line(key, value, why, 2)]
    lines += ["  source:"] if inner else []
    lines += [line for key, (value, why) in inner.items() for line in _line(key, value, why, 4)]
    if made.suggestions:
        hints = [f"# {h.setting}: {_scalar(h.value)} ({h.why})" for h in made.suggestions]
        lines += ["", "# To consider:", *hints]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object, why: str, indent: int) -> list[str]:
    entry = f"{' ' * indent}{key.rpartition('.')[2]}: {_scalar(value)}"
    if not why:
        return [entry]
    if len(entry) + len(why) + 3 <= WIDTH:
        return [f"{entry} # {why}"]
    return [f"{' ' * indent}# {why}", entry]


def _scalar(value: object) -> str:
    """A value in YAML: plain where that is read as the same text."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII):
        import yaml

        return value if yaml.safe_load(value) == value else dumps(value)
    text = dumps(value, ensure_ascii=False)
    return text if text.isprintable() else dumps(value)  # YAML has line ends that JSON has not
