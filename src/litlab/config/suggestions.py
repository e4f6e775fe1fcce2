"""Which setting was meant: the answer to an override, or a key of a file, that does not exist."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litlab.config import auto_data, menu, quoting
from litlab.utils.errors import ConfigError, closest, nearest
from litlab.utils.redact import redact

Content = dict[str, Any]
Outline = Callable[[Sequence[str]], Content]  # what overrides compose to, unresolved

# Other words for a setting, without '_' and '-': the first of the paths that exists is meant.
_ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("learningrate", "initiallr", "baselr", "maxlr"), ("optimizer.lr",)),
    **dict.fromkeys(
        ("epochs", "epoch", "nepochs", "numepochs", "maxepoch", "numtrainepochs"),
        ("trainer.max_epochs",),
    ),
    **dict.fromkeys(("bs", "batch", "trainbatchsize"), ("loader.batch_size",)),
    **dict.fromkeys(("valbatchsize", "testbatchsize"), ("loader.eval_batch_size",)),
    **dict.fromkeys(("wd", "decay", "l2"), ("optimizer.weight_decay",)),
    **dict.fromkeys(("drop", "droprate", "dropoutrate", "pdrop"), ("model.dropout",)),
    **dict.fromkeys(
        ("target", "targetcolumn", "label", "labels", "labelcolumn", "y"),
        ("data.source.target", "data.source.label", "data.source.y"),
    ),
    **dict.fromkeys(("file", "filename", "datapath", "datadir", "csv"), ("data.path",)),
    **dict.fromkeys(
        ("clip", "gradclip", "clipgrad", "clipgradnorm", "maxgradnorm", "gradientclipping"),
        ("trainer.gradient_clip_val",),
    ),
    **dict.fromkeys(
        ("gradaccum", "gradientaccumulation", "gradientaccumulationsteps", "accumulationsteps"),
        ("trainer.accumulate_grad_batches",),
    ),
    **dict.fromkeys(("randomseed", "randomstate"), ("seed",)),
    **dict.fromkeys(
        ("valsplit", "valsize", "validationfraction", "validationsplit"), ("data.val_fraction",)
    ),
    **dict.fromkeys(("testsplit", "testsize"), ("data.test_fraction",)),
    **dict.fromkeys(("folds", "nfolds", "kfold", "nsplits"), ("data.num_folds",)),
    **dict.fromkeys(("experimentname", "project", "projectname"), ("tracking.experiment",)),
    **dict.fromkeys(("trackinguri", "mlflowuri"), ("tracking.uri",)),
    **dict.fromkeys(("earlystop", "earlystopping"), ("trainer.early_stopping",)),
    **dict.fromkeys(("hiddensize", "hiddendim", "hiddenlayers"), ("model.hidden",)),
    **dict.fromkeys(("layers", "numlayers", "nlayers"), ("model.depth",)),
    **dict.fromkeys(("heads", "nheads"), ("model.num_heads",)),
    **dict.fromkeys(("trials", "ntrials"), ("study.n_trials",)),
    **dict.fromkeys(("timeout", "timelimit"), ("study.time_limit",)),
    "runname": ("name",),
    "progressbar": ("trainer.progress",),
    "pretrained": ("init_from",),
}
_GROUPS = {
    "net": "model",
    "network": "model",
    "arch": "model",
    "architecture": "model",
    "dataset": "data",
    "opt": "optimizer",
    "optim": "optimizer",
    "criterion": "loss",
    "lossfn": "loss",
    "sched": "scheduler",
    "lrscheduler": "scheduler",
    "augmentation": "augment",
    "transforms": "augment",
    "logger": "tracking",
}
# What is often looked for and is no setting at all.
_NO_SETTING = {
    **dict.fromkeys(
        ("numworkers", "workers", "pinmemory"),
        "leave {} out: batches are cut from arrays in memory, without worker processes",
    ),
    "shuffle": "leave {} out: training batches are always shuffled, by seed",
    **dict.fromkeys(
        ("numclasses", "nclasses"), "leave {} out: the number of classes is read from the data"
    ),
    **dict.fromkeys(
        ("resume", "resumefrom", "ckptpath", "checkpoint"),
        "use --resume to continue a run, or init_from=RUN to start from its weights",
    ),
    "study": "leave {} out: only `litlab tune` takes a study",
}
# What the names of other libraries are called here.
_CHOICES = {
    ("model", "resnet"): ("model=cnn", "model.block=residual"),
    ("model", "convnet"): ("model=cnn",),
    ("model", "linear"): ("model=mlp", "model.hidden=[]"),
    ("model", "vit"): ("model=transformer",),
    ("model", "bert"): ("model=transformer",),
    ("model", "gpt"): ("model=transformer",),
    ("loss", "ce"): ("loss=cross_entropy",),
    ("loss", "bce"): ("loss=binary_cross_entropy",),
    ("loss", "l1"): ("loss=mae",),
    ("loss", "l2"): ("loss=mse",),
    ("scheduler", "reducelronplateau"): ("scheduler=plateau",),
    ("scheduler", "cosineannealinglr"): ("scheduler=cosine",),
    ("scheduler", "none"): ("scheduler=constant",),
}
MOST_CHOICES = 6  # named in one line
_TRUE = ("true", "yes", "on", "True")
_PRECISIONS = {
    **dict.fromkeys(("16", "fp16", "half", "float16"), "16-mixed"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16-mixed"),
    **dict.fromkeys(("32", "fp32", "float32", "full"), "32-true"),
    **dict.fromkeys(("64", "float64", "double"), "64-true"),
}


@dataclass(frozen=True)
class Suggestion:
    """What to write instead.

    Args:
        settings: Overrides, ready to type; the keys alone where no value was given.
        advice: A sentence, where there is nothing to type.
    """

    settings: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        """Return the fix of an error."""
        typed = " ".join(quoting.typed(s) if "=" in s else s for s in self.settings)
        return f"use {typed}" if typed else self.advice


def explain(
    overrides: Sequence[str], outline: Outline, options: Sequence[tuple[str, str]] = ()
) -> ConfigError | None:
    """Answer all the overrides at once that name a setting or a choice that does not exist.

    Args:
        overrides: As typed.
        outline: Composes those that do exist.
        options: What was written as an option of the command instead, such as `--lr 1e-3`, and the
            override that it amounts to.

    Returns:
        The error; None where every override names something.
    """
    groups = menu.groups()
    parts = [(o, *o.partition("=")[::2]) for o in overrides if re.match(r"[\w./]+=", o)]
    choices = {o: _unknown_choices(k, v, groups) for o, k, v in parts if k in groups}
    real = [o for o, unknown in choices.items() if not unknown and not o.endswith("=null")]
    content = outline(real)
    slips: list[tuple[str, str, Suggestion]] = []
    for override, key, value in parts:
        if key in groups and (key != "study" or choices[override]):
            slips += [
                (override, f"{key} has no choice '{name}'", _choice(key, name, groups[key]))
                for name in choices[override]
            ]
        elif not exists(key, content):
            meant = suggest(key, content, value)
            if meant.settings or quoting.explain([override]) is None:  # else: quote it first
                slips.append((override, f"no setting '{key}'", meant))
    for option, override in options:
        key, _, value = override.partition("=")
        known = exists(key, content) or key in groups
        meant = _with_value(key, value) if known else suggest(key, content, value)
        slips.append((option, f"no option '{option.split('=')[0].split()[0]}'", meant))
    if not slips:
        return None
    where = dict.fromkeys(str(redact(typed)) for typed, _, _ in slips)
    what = dict.fromkeys(what for _, what, _ in slips)
    return ConfigError(in_one(what), " ".join(where), join([s for _, _, s in slips]))


def in_one(sentences: Iterable[str]) -> str:
    """Return sentences as one, in which those that begin alike have one beginning."""
    ends: dict[str, list[str]] = {}
    for sentence in sentences:
        begin, quote, end = sentence.partition(" '")
        ends.setdefault(begin, []).append(quote + end)
    return "; ".join(begin + ",".join(listed) for begin, listed in ends.items())


def join(suggestions: Sequence[Suggestion]) -> str:
    """Return several suggestions as one fix: what can be typed in one piece, then the advice."""
    typed = [s for suggestion in suggestions for s in suggestion.settings]
    settings = {s.partition("=")[0]: s for s in typed}  # of two for one setting, the last
    advice = [s.advice for s in suggestions if not s.settings]
    first = [str(Suggestion(tuple(settings.values())))] if settings else []
    return "; ".join(dict.fromkeys([*first, *advice]))


def exists(key: str, content: Content) -> bool:
    """Return whether a dotted key is a setting of a composed configuration."""
    node: Any = content
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def suggest(key: str, content: Content, value: str | None = None) -> Suggestion:
    """Return which setting of a configuration was probably meant.

    Args:
        key: What was written, with dots.
        content: The configuration that lacks it.
        value: Its value as typed; None to suggest the key alone.
    """
    word = re.sub("[-_]", "", key.rpartition(".")[2]).lower()
    special = _special(word, value, content)
    if special:
        return special
    found = _named_alike(key, content)
    aliases = _ALIASES.get(word, ()) if not found else ()
    found = found or [p for p in aliases if p.startswith("study.") or exists(p, content)][:1]
    if not found and word in _NO_SETTING:
        return Suggestion(advice=_NO_SETTING[word].format(key))
    if not found and word in _GROUPS and "." not in key:
        group, known = _GROUPS[word], menu.groups().get(_GROUPS[word], [])
        if value is not None and value not in known:
            return _choice(group, value, known)
        found = [group]
    elsewhere = "" if found else _of_another_choice(key, aliases)
    found = found or ([] if elsewhere else _spelt_alike(key, content))
    if len(found) == 1:
        return _with_value(found[0], value)
    if found:
        return Suggestion(advice="one of: " + ", ".join(found))
    return Suggestion(advice=elsewhere or near_key(key, content))


def near_key(key: str, content: Content) -> str:
    """Return what is known where a key was looked for."""
    prefix: list[str] = []
    node: Any = content
    for part in key.split("."):
        if not isinstance(node, dict):
            return f"{'.'.join(prefix)} holds a value and no further settings"
        if part not in node:
            known = {k for k in node if k != "_target_"} | set(() if prefix else menu.groups())
            hint = nearest(part, known - {"study"})
            return f"{hint} (in {'.'.join(prefix)})" if prefix else hint
        prefix.append(part)
        node = node[part]
    return f"to add to it: +{key}.KEY=VALUE" if isinstance(node, dict) else "check the spelling"


def translate(setting: str, value: object) -> str | None:
    """Return the value that a setting takes instead of one that it refuses, None if unknown."""
    if isinstance(value, int) and abs(value) > sys.maxsize:  # too long to write out
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if setting == "trainer.precision":
        return _PRECISIONS.get(text)
    if setting == "trainer.early_stopping":
        patience = "10" if text in _TRUE else text
        return f"{{patience: {patience}}}" if patience.isdigit() else {"false": "null"}.get(text)
    if setting == "trainer.ema":
        return {**dict.fromkeys(_TRUE, "{decay: 0.999}"), "false": "null"}.get(text)
    if setting in ("model.hidden", "model.channels"):
        return f"[{text}]" if text.isdigit() else None
    return None


def _with_value(key: str, value: str | None) -> Suggestion:
    if value is None:
        return Suggestion((key,))
    if not value:
        return Suggestion((f"{key}={translate(key, 'true') or 'VALUE'}",))
    return Suggestion((f"{key}={translate(key, value) or redact(value)}",))


def _special(word: str, value: str | None, content: Content) -> Suggestion | None:
    """Answer words that stand for more than another name of a setting."""
    given = value or "1"
    if word in ("gpus", "gpu", "ngpus", "numgpus", "cuda"):
        if given in ("0", "false", "null"):
            return Suggestion(("trainer.accelerator=cpu",))
        number = given if given not in (*_TRUE, "all", "-1") else "1" if given in _TRUE else "auto"
        return Suggestion(("trainer.accelerator=gpu", f"trainer.devices={number}"))
    if word == "cpu" or (word == "device" and given in ("cpu", "gpu", "cuda", "mps")):
        return Suggestion((f"trainer.accelerator={'cpu' if word == 'cpu' else given}",))
    if word == "device" and re.fullmatch(r"cuda:\d+", given):
        number = given.partition(":")[2]
        return Suggestion(("trainer.accelerator=gpu", f"trainer.devices=[{number}]"))
    if word in ("fp16", "bf16", "amp", "mixedprecision"):
        return Suggestion((f"trainer.precision={'16' if word == 'fp16' else 'bf16'}-mixed",))
    if word == "patience" and not any(p.endswith(".patience") for p in paths(content)):
        number = given if given.isdigit() and value else "10"
        return Suggestion((f"trainer.early_stopping={{patience: {number}}}",))
    return None


def paths(content: Content, prefix: str = "") -> Iterator[str]:
    """Return the dotted paths of all settings, those that hold others included."""
    for key, value in content.items():
        path = f"{prefix}{key}"
        if str(key) != "_target_":
            yield path
        if isinstance(value, dict):
            yield from paths(value, f"{path}.")


def _named_alike(key: str, content: Content) -> list[str]:
    """Return the settings whose own name is that of the key, the nearest to its place."""
    head, _, last = key.rpartition(".")
    found = [p for p in paths(content) if p.rpartition(".")[2] == last and p != key]
    inside = [p for p in found if head and p.split(".")[0] == head.split(".")[0]]
    found = inside or found
    top = min((p.count(".") for p in found), default=0)
    return [p for p in found if p.count(".") == top]


def _spelt_alike(key: str, content: Content) -> list[str]:
    """Return the setting whose spelling is closest: in the same place, then anywhere."""
    head, _, last = key.rpartition(".")
    holder: Any = content
    for part in head.split(".") if head else ():
        holder = holder.get(part) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        known = {k for k in holder if k != "_target_"} | set(() if head else menu.groups())
        close = closest(last, known - {"study"})
        if close:
            return [f"{head}.{close}" if head else close]
    elif "." in key:  # a misspelt holder: optimiser.lr
        first, _, rest = key.partition(".")
        close = closest(first, content)
        fixed = f"{close}.{rest}"
        if close and close != first:
            return [fixed] if exists(fixed, content) else _spelt_alike(fixed, content)
        return []
    by_name = {p.rpartition(".")[2]: p for p in paths(content)}
    close = closest(last, by_name) if len(last) > 3 else None
    return [by_name[close]] if close else []


def _of_another_choice(key: str, aliases: Sequence[str]) -> str:
    """Return which choices of its group have a setting that the chosen one lacks."""
    last = key.rpartition(".")[2]
    for wanted in ({last}, {p.rpartition(".")[2] for p in aliases}):
        having = _choices_with(wanted, key.partition(".")[0] if "." in key else None)
        if key in having:
            having = {key: having[key]}
        if having:
            belongs = [f"{p} is a setting of {_first(c)}" for p, c in having.items()]
            return "; ".join(belongs)
    return ""


def _choices_with(names: set[str], group: str | None) -> dict[str, list[str]]:
    """Return the settings of these names, each with the choices of conf/ that have it."""
    having: dict[str, list[str]] = {}
    for name, choices in menu.groups().items():
        if name in ("study", "experiment") or group not in (None, name):
            continue
        own_files = []
        for choice in choices:
            content = menu.read(f"{name}/{choice}.yaml")
            if name == "data":
                content = content.get("data") or {}
            for path in paths({name: content}):
                if path.rpartition(".")[2] in names:
                    having.setdefault(path, []).append(f"{name}={choice}")
            if content.get("path") == "???":
                own_files.append(f"{name}={choice}")
        for path in having:  # first what reads files of the user's own
            having[path].sort(key=lambda choice: choice not in own_files)
        if having:
            break
    return having


def _first(choices: Sequence[str]) -> str:
    return ", ".join(choices[:MOST_CHOICES]) + (", ..." if len(choices) > MOST_CHOICES else "")


def _unknown_choices(group: str, value: str, groups: dict[str, list[str]]) -> list[str]:
    names = [] if "{" in value else re.findall(r"[^\[\],\s'\"]+", value)
    if group == "experiment":
        names = [n for n in names if n != "null"]
    return [name for name in names if name not in groups[group]]


def _choice(group: str, name: str, known: Sequence[str]) -> Suggestion:
    """Suggest a choice of a group; a path given for a data set, the source that reads it."""
    alias = _CHOICES.get((group, re.sub("[-_]", "", name).lower()))
    if alias:
        return Suggestion(alias)
    path = Path(name)
    if group == "data" and (path.suffix or "/" in name):
        more = ("data.target=COLUMN",) if path.suffix.lower() in auto_data.TABLES else ()
        return Suggestion(("data=auto", f"data.path={name}", *more))
    close = closest(name, known)
    return Suggestion((f"{group}={close}",)) if close else Suggestion(advice=nearest(name, known))
