"""What a study varies: settings by their dotted path, each with a range or choices."""

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

from litlab import config as configuration
from litlab.errors import ConfigError, nearest
from litlab.paths import project_root
from litlab.tuning.settings import PARTS

WHERE = "study.space"


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
        """Return a trial's values; one that goes on has the values it had."""
        values: dict[str, Any] = {}
        for p in self.parameters:
            if p.applies(values):
                values[p.path] = trial._suggest(p.path, p.distribution)
        return values

    def check(self, compose: Callable[[Mapping[str, Any]], object]) -> None:
        """Compose and check both ends of each range and every choice.

        Args:
            compose: Returns the configuration of some values; see `litlab.tuning.composer`.

        Raises:
            ConfigError: A path does not exist, or a value is not allowed there.
        """
        first = self._first()
        for p in self.parameters:
            for value in p.ends:
                given = {path: allowed[0] for path, allowed in p.when.items()}
                values = {k: v for k, v in {**first, **given}.items() if self._needed(k, p)}
                try:
                    compose({**values, p.path: value})
                except ConfigError as error:
                    where = f"{WHERE}.{p.path}"
                    tried = "" if error.what.startswith("no setting") else f"{_text(value)}: "
                    raise ConfigError(f"{tried}{error.what}", where, error.fix) from None

    def _needed(self, path: str, parameter: Parameter) -> bool:
        """Whether another parameter must be set for this one to exist: a group, a condition."""
        return path in parameter.when or ("." not in path and path != parameter.path)

    def _first(self) -> dict[str, Any]:
        return {p.path: p.ends[0] for p in self.parameters if not p.when}

    def current(self, base: Sequence[str]) -> dict[str, Any]:
        """Return the current configuration's values, where they lie within the space."""
        content, chosen = configuration.compose(base), configuration.choices(base)
        found: dict[str, Any] = {}
        for p in self.parameters:
            if not p.applies(found):
                continue
            value = chosen.get(p.path) if "." not in p.path else _look_up(content, p.path)
            if isinstance(p.distribution, CategoricalDistribution):
                value = next((c for c in p.distribution.choices if _text(c) == _text(value)), None)
            elif not _within(p.distribution, value):
                continue
            if value is not None:
                found[p.path] = value
        return found


def _within(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _distribution(path: str, entry: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in entry:
        if not entry["choices"]:
            raise ValueError("no choices")
        return CategoricalDistribution(tuple(map(_choice, entry["choices"])))
    low, high = (_number(entry[key]) for key in ("low", "high"))
    step, log = entry.get("step"), entry.get("log")
    if low >= high:
        raise ValueError(f"{low} is not below {high}")
    if isinstance(low, int) and isinstance(high, int):
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
    return "." not in path and (project_root() / "conf" / path).is_dir()


def overrides(base: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Return what composes a trial's configuration: the values win over the command line's."""
    own = [o for o in base if o.lstrip("+").partition("=")[0] not in values]
    groups = [path for path in values if "." not in path]  # before what they bring with them
    order = [*groups, *(path for path in values if path not in groups)]
    return [*own, *(f"{path}={_text(values[path])}" for path in order)]


def typed(value: Any) -> Any:
    """Return a value as Hydra reads it: lists were text to Optuna."""
    if not isinstance(value, str):
        return value
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"x={value}").value()
