"""Refuses a wrong configuration before anything heavy is imported or any data are read."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from litlab.config import constraints, instantiate, messages, signature
from litlab.config.schema import GIVEN_BY_NAME, NUM_GIVEN, Component, Config
from litlab.utils.errors import ConfigError, LitlabError, nearest, refuse
from litlab.utils.paths import make_importable

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
        raise messages.unknown_settings(keys, model, content, origin)
    wrong = [messages.explain(p, model, content, where, origin) for p in unknown or problems]
    refuse({str(reason): reason for reason in wrong}.values())  # a union has an error an arm
    raise AssertionError("pydantic refuses nothing without a reason")
