"""Refuses a wrong configuration before anything heavy is imported or any data are read."""

import sys
from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from litlab.config import constraints, instantiate, quoting, signature, suggestions
from litlab.config.schema import GIVEN_BY_NAME, NUM_GIVEN, Component, Config
from litlab.utils.errors import ConfigError, LitlabError, nearest, refuse
from litlab.utils.paths import make_importable

# Pydantic's errors in plain words: which setting, what it is, what it may be.


NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    NoneType: "null",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
EXAMPLES = (1, 0, 0.1, 0.5, True)  # of numbers and switches
LONGEST = 80  # characters of a value shown


def explain(
    problem: Any, model: type[BaseModel], content: Any, where: str, origin: str
) -> ConfigError:
    """Return one of pydantic's errors as a ConfigError.

    Args:
        problem: An item of `ValidationError.errors()`.
        model: What was validated against.
        content: What was validated.
        where: Its own place in the configuration; empty for the whole.
        origin: Where the configuration was read from.
    """
    holder, path = _descend(model, problem["loc"])
    setting = ".".join([where, *path] if where else path)
    field = holder.model_fields.get(path[-1])
    if field is None:
        if not where:
            return unknown_settings([".".join(path)], model, content, origin)
        hint = (
            nearest(path[-1], holder.model_fields) if holder.model_fields else "it has no settings"
        )
        return ConfigError(f"no setting '{setting}'", origin, hint)
    for part in path[:-1]:
        content = content[part]
    if path[-1] not in content:
        return ConfigError(f"{setting} has no value", origin, f"set it: {setting}=VALUE")
    value = content[path[-1]]
    allowed = words(field.annotation, field.metadata, field.description)
    what = f"{setting}={_shown(value)}, but must be {allowed}"
    fix = _fix(setting, value, field)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and NAMES[str] in allowed and fix == f"change {setting}":
        fix = f"if it is a text, quote it: {quoting.quoted(f'{setting}={_shown(value)}')}"
    return ConfigError(what, origin, fix)


def unknown_settings(
    keys: Sequence[str], model: type[BaseModel], content: Any, origin: str
) -> ConfigError:
    """Return the error that names every unknown setting of a whole configuration."""
    known = _with_fields(model, content)  # a misspelt key is often missing under its own name
    what = suggestions.in_one(f"no setting '{key}'" for key in keys)
    meant = [suggestions.suggest(key, known) for key in keys]
    return ConfigError(what, origin, suggestions.join(meant))


def _with_fields(model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the fields that it lacks, and without those that do not exist."""
    known = dict.fromkeys(model.model_fields) | {
        key: value for key, value in content.items() if key in model.model_fields
    }
    for key, value in known.items():
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, dict):
            known[key] = _with_fields(inner, value)
    return known


def _descend(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[type[BaseModel], list[str]]:
    """Follow a location to its setting: the model that holds it, and the path to it.

    What follows is the place within the value, and pydantic's own names for a union's arms.
    """
    path: list[str] = []
    for part in map(str, location):
        path.append(part)
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        arms = [annotation, *get_args(annotation)]
        inner = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        if not inner or len(path) == len(location):
            break
        model = inner[0]
    return model, path


def words(kind: Any, limits: Iterable[Any] = (), description: str | None = None) -> str:
    """Say what values an annotation and its limits allow; a description has the first word."""
    origin, arguments = get_origin(kind), get_args(kind)
    if description:
        return description
    if origin is Annotated:
        info = FieldInfo.from_annotation(kind)
        return words(info.annotation, info.metadata, info.description)
    if origin in (Union, UnionType):
        return ", or ".join(words(argument) for argument in arguments)
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin in (list, tuple):
        items = [words(argument) for argument in arguments if argument is not ...]
        fixed = origin is tuple and ... not in arguments
        return f"a list{f' of {len(items)}' if fixed else ''}, each {items[0]}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a mapping of {', '.join(kind.model_fields)}"
    name = NAMES.get(origin or kind, "another value")
    bounds = [
        f"{word} {getattr(limit, key)}"
        for limit in limits
        for key, word in BOUNDS.items()
        if hasattr(limit, key)
    ]
    return f"{name} ({', '.join(bounds)})" if bounds else name


def _choices(kind: Any) -> list[str]:
    """The words that an annotation lists, also within a union."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [choice for argument in get_args(kind) for choice in _choices(argument)]


def _fix(setting: str, value: object, field: FieldInfo) -> str:
    meant = suggestions.translate(setting, value)
    if meant is None and isinstance(value, str | int | float) and value != "":
        meant = f"[{value}]" if _fits(field, [value]) else None  # a list of one
    if meant is not None:
        return str(suggestions.Suggestion((f"{setting}={meant}",)))
    hint = nearest(value, _choices(field.annotation)) if isinstance(value, str) else ""
    if hint.startswith("did"):
        return hint
    near: list[object] = []
    if isinstance(value, int | float) and abs(value) < sys.maxsize:
        near = [round(value), abs(value)]
    example = next((one for one in (*near, *EXAMPLES) if _fits(field, one)), None)
    return f"change {setting}" if example is None else f"use e.g. {setting}={_shown(example)}"


def _fits(field: FieldInfo, value: object) -> bool:
    """Whether a field takes a value."""
    try:
        kind: Any = Annotated[field.annotation, "a field", *field.metadata]
        TypeAdapter(kind).validate_python(value, strict=isinstance(value, int | float))
    except (ValidationError, PydanticUserError):
        return False
    return True


def _shown(value: object) -> str:
    """A value as YAML would have it, cut short."""
    known = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return known[value]
    if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write it out
        return "a huge number"
    text = str(value) if isinstance(value, str | int | float) and value != "" else repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


M = TypeVar("M", bound=BaseModel)


def check_config(content: dict[str, Any], origin: str, *, device: bool = True) -> Config:
    """Return a raw configuration as a checked one, with its values in their declared types.

    Args:
        content: Plain nested values.
        origin: Where it was read from, for messages.
        device: Whether the devices it asks for must be here (a checkpoint may come from elsewhere).

    Raises:
        ConfigError: All that is wrong: first with types and ranges, then with components, then with
            settings that exclude each other.
    """
    config = _validated(Config, content, "", origin)
    components: dict[str, Component] = {}
    wrong: list[LitlabError] = []
    for where, node in constraints.components(config):
        try:
            components[where] = _checked(where, node, config.trust)
        except ConfigError as error:
            wrong.append(error)
    refuse(wrong)
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": components.pop("data.source")}),
            "augment": _group("augment", components),
            "metrics": _group("metrics", components),
            **{key: node for key, node in components.items() if "." not in key},
        }
    )
    refuse(constraints.reasons(config, device=device))
    return config


def _group(name: str, components: dict[str, Component]) -> dict[str, Component]:
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in components.items() if k.startswith(prefix)}


def _checked(where: str, node: Component, trust: list[str]) -> Component:
    """Check one component's target and hyperparameters, as far as its source tells."""
    if "_target_" not in node:
        raise ConfigError(
            "_target_ is missing", where, f"add {where}._target_: package.module.Name"
        )
    target = instantiate.check(node["_target_"], f"{where}._target_", trust)
    num_given = NUM_GIVEN.get(where, NUM_GIVEN.get(where.partition(".")[0], 0))
    given = {key: value for key, value in node.items() if key != "_target_"}
    if target.startswith(instantiate.LIBRARIES):
        return {
            **node,
            "_target_": target,
        }  # a library's: reading it would import torch; it is checked when it is built
    make_importable()
    try:
        by_name = GIVEN_BY_NAME.get(where.partition(".")[0], ())
        model = signature.schema(target, num_given, by_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module '{error.name}' for _target_ '{target}'",
            f"{where}._target_",
            "check the spelling",
        ) from None
    except LookupError as error:
        module, _, name = target.rpartition(".")
        hint = nearest(name, error.args)
        raise ConfigError(f"'{module}' has no '{name}'", f"{where}._target_", hint) from None
    except SyntaxError as error:
        what = f"'{target}' cannot be read: {error.msg}, line {error.lineno}"
        raise ConfigError(what, f"{where}._target_", "correct the file") from None
    if model is None:
        return {**node, "_target_": target}
    if where == "task" and given.get("l1") == 0.0 and "l1" not in model.model_fields:
        del given["l1"]  # of litlab's own tasks, at a default that means nothing
    checked = _validated(model, given, where, target)
    return {"_target_": target, **checked.model_dump(exclude_unset=True)}


def _validated(model: type[M], content: object, where: str, origin: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = error.errors()
    # A misspelt key is also a missing one; the misspelling says more.
    unknown = [p for p in problems if p["type"] == "extra_forbidden"]
    if not where and unknown:
        keys = [".".join(map(str, p["loc"])) for p in unknown]
        raise unknown_settings(keys, model, content, origin)
    wrong = [explain(p, model, content, where, origin) for p in unknown or problems]
    refuse({str(reason): reason for reason in wrong}.values())  # a union has an error an arm
    raise AssertionError("pydantic refuses nothing without a reason")
