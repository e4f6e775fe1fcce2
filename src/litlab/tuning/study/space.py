"""What a study varies: settings by their dotted path, each with a range or choices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from litlab.config import compose as configuration
from litlab.tuning.study.settings import PARTS
from litlab.utils import paths
from litlab.utils.errors import ConfigError, nearest

WHERE = "study.space"
# What is measured on, and how, is the same for all trials; seeds are the finalists' matter.
FIXED = ("data", "seed", "monitor", "name", "tracking", "trust", "plot", "metrics")
SAME_TASK = ("task", "task._target_")  # its other settings may be those of a module of one's own
DIGITS = 12  # to which multiples of a step are rounded: 0.1 + 2 * 0.1 is 0.3


@dataclass(frozen=True)
class Parameter:
    """A setting that is varied.

    Attributes:
        path: Dotted, such as `optimizer.lr`; or a group of conf/, such as `model`.
        distribution: Optuna's.
        when: Only where other parameters have one of these values.
    """

    path: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]]

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Return whether it is varied, given the values of earlier parameters."""
        return all(values.get(path) in allowed for path, allowed in self.when.items())

    @property
    def ends(self) -> list[Any]:
        """Values that stand for all: both ends of a range, every choice."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        assert isinstance(d, FloatDistribution | IntDistribution)
        return [d.low, d.high]


class Space:
    """The parameters of a study, in order; a condition looks at earlier ones.

    Args:
        content: Path to `[choices]`, `{choices: [...], when: ...}` or `{low:, high:, log:, step:,
            when:}`. Two whole numbers make a range of whole numbers. Learning rates are varied on a
            log scale unless `log: false` says otherwise.

    Raises:
        ConfigError: It is empty, or an entry is none of these.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        if not content:
            raise ConfigError("nothing to vary", WHERE, "e.g. optimizer.lr: {low: 1e-4, high: 0.1}")
        self.parameters: list[Parameter] = []
        for path, entry in content.items():
            self.parameters.append(self._parameter(path, entry))

    def _parameter(self, path: str, entry: Any) -> Parameter:
        where = f"{WHERE}.{path}"
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            entry = {"choices": list(entry)}
        if not isinstance(entry, Mapping):
            raise ConfigError("neither choices nor a range", where, "[a, b] or {low: 1, high: 9}")
        if path.split(".")[0] in FIXED or path in SAME_TASK:
            what = "cannot be varied: trials would not be of the same task"
            raise ConfigError(what, where, "give it on the command line, one study each")
        for key in entry:
            if key not in PARTS:
                raise ConfigError(f"no setting '{key}'", where, nearest(str(key), PARTS))
        when = self._when(entry.get("when") or {}, where)
        try:
            return Parameter(path, _distribution(path, entry), when)
        except (ValueError, TypeError, KeyError) as error:
            fix = "low below high, a step that fits, a log scale above 0"
            raise ConfigError(f"not a range: {error}", where, fix) from None

    def _when(self, content: Mapping[str, Any], where: str) -> dict[str, tuple[Any, ...]]:
        earlier = [p.path for p in self.parameters]
        conditions = {}
        for path, allowed in content.items():
            if path not in earlier:
                fix = f"{nearest(path, earlier)} (an earlier entry of the space)"
                raise ConfigError(f"depends on '{path}', which is not varied", where, fix)
            many = isinstance(allowed, Sequence) and not isinstance(allowed, str)
            conditions[path] = tuple(allowed) if many else (allowed,)
        return conditions

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return a trial's values; a resumed trial keeps its values."""
        values: dict[str, Any] = {}
        for p in self.parameters:
            if p.applies(values):
                values[p.path] = trial._suggest(p.path, p.distribution)
        return values

    def check(self, compose: Callable[[Mapping[str, Any]], object]) -> None:
        """Compose and check both ends of each range and every choice.

        Args:
            compose: Returns the configuration of some values; see `litlab.tuning.study.composer`.

        Raises:
            ConfigError: A path does not exist, or a value is not allowed there.
        """
        for p in self.parameters:
            for value in p.ends:
                try:
                    compose(self._with(p, value))
                except ConfigError as error:
                    where = f"{WHERE}.{p.path}"
                    tried = "" if error.what.startswith("no setting") else f"{_text(value)}: "
                    raise ConfigError(f"{tried}{error.what}", where, error.fix) from None
        for group in self.parameters:
            if "." not in group.path:
                for choice in group.ends:
                    self._check_beside(group, choice, compose)

    def _check_beside(
        self, group: Parameter, choice: Any, compose: Callable[[Mapping[str, Any]], object]
    ) -> None:
        """Try a choice of a group beside all that is varied with it."""
        values = self._with(group, choice)
        for p in self.parameters:
            if p.path not in values and p.applies(values):
                values[p.path] = p.ends[0]
                try:
                    compose(values)
                except ConfigError as error:
                    where, what = f"{WHERE}.{p.path}", f"{group.path}={choice}: {error.what}"
                    fix = f"state for which choices it is varied, e.g. when: {{{group.path}: ...}}"
                    raise ConfigError(what, where, fix) from None

    def _with(self, parameter: Parameter, value: Any) -> dict[str, Any]:
        """Return a value and what must be set for it to exist: its conditions, theirs, groups."""
        given, waiting = {parameter.path: value}, [parameter]
        while waiting:
            for path, allowed in waiting.pop().when.items():
                if path not in given:
                    given[path] = allowed[0]
                    waiting += [p for p in self.parameters if p.path == path]
        for p in self.parameters:
            if "." not in p.path and not p.when:
                given.setdefault(p.path, p.ends[0])
        return {p.path: given[p.path] for p in self.parameters if p.path in given}

    def current(self, base: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the current configuration's values, and those that its space leaves out.

        In place of what is left out there is the nearest that is not.
        """
        content = configuration.compose(base)
        groups = any("." not in p.path for p in self.parameters)
        chosen = configuration.choices(base) if groups else {}  # composes once more
        found: dict[str, Any] = {}
        outside: dict[str, Any] = {}
        for p in self.parameters:
            if p.applies(found):
                value = chosen.get(p.path) if "." not in p.path else _look_up(content, p.path)
                found[p.path] = _nearest(p.distribution, value)
                if not _same(found[p.path], value):
                    outside[p.path] = value
        return found, outside


def _nearest(distribution: BaseDistribution, value: Any) -> Any:
    """Return the value of a distribution that is nearest to another; its first one to no number."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return next((choice for choice in choices if _same(choice, value)), choices[0])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return distribution.low
    value = min(max(value, distribution.low), distribution.high)
    if distribution.step is not None:
        steps = round((value - distribution.low) / distribution.step)
        value = round(distribution.low + steps * distribution.step, DIGITS)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one to the configuration, whatever they were written as."""
    one, other = (typed(v) for v in (one, other))
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (one, other)]
    if all(numbers):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return _text(one) == _text(other)


def _distribution(path: str, entry: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in entry:
        if not entry["choices"]:
            raise ValueError("no choices")
        return CategoricalDistribution(tuple(map(_choice, entry["choices"])))
    low, high = (_number(entry[key]) for key in ("low", "high"))
    step, log = entry.get("step"), entry.get("log")
    step = None if step is None else _number(step)
    if low >= high:
        raise ValueError(f"{low} is not below {high}")
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
        return IntDistribution(low, high, log=bool(log), step=int(step or 1))
    is_rate = path.rsplit(".", 1)[-1] == "lr"
    log = log if log is not None else is_rate and low > 0 and step is None
    return FloatDistribution(float(low), float(high), log=bool(log), step=step)


def _number(value: Any) -> int | float:
    if isinstance(value, str):  # YAML reads 1e-4 as a text
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return value


def _choice(value: Any) -> Any:
    """Return a choice as Optuna takes it: lists and the like as what one would type."""
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: Any) -> str:
    """Return a value as an override has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return repr(value) if isinstance(value, float) else str(value)


def _look_up(content: Any, path: str) -> Any:
    for part in path.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content


def is_group(path: str) -> bool:
    """Return whether a path names a group of conf/."""
    return "." not in path and paths.is_group(path)


def overrides(base: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Return what composes a trial's configuration: the values win over the command line's."""
    own = [o for o in base if o.lstrip("+").partition("=")[0] not in values]
    groups = [path for path in values if "." not in path]  # before what they bring with them
    order = [*groups, *(path for path in values if path not in groups)]
    return [*own, *(f"{path}={_text(values[path])}" for path in order)]


def typed(value: Any) -> Any:
    """Return a value as Hydra reads it: lists were text to Optuna; text that it cannot read, as is.

    What it would expand, a sweep or a reference, is returned as it is too.
    """
    if not isinstance(value, str) or "${" in value:
        return value
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"x={value}")
    except HydraException:
        return value
    return value if parsed.is_sweep_override() else parsed.value()
