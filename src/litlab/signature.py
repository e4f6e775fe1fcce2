"""Reads a component's hyperparameters from its source, without importing it.

A refused configuration must cost a blink; importing torch alone costs seconds. So the checker
parses the file that an import path names and builds a pydantic model from the constructor's
annotations (see `litlab.hyperparameters`). What it cannot know it leaves to the constructor.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from litlab import hyperparameters

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_NAMES: dict[str, Any] = {
    "__builtins__": {},
    **{t.__name__: t for t in (int, float, bool, str, list, tuple, dict)},
    **{name: value for name, value in vars(hyperparameters).items() if not name.startswith("_")},
    "Any": Any,
    "Literal": Literal,
    "Annotated": Annotated,
}


def schema(target: str, num_given: int) -> type[BaseModel] | None:
    """Return a pydantic model of a target's hyperparameters, or None where they cannot be read.

    Args:
        target: Import path, `package.module.Name`.
        num_given: How many leading positional parameters litlab itself passes.

    Raises:
        LookupError: The module exists but has no such name in it; the argument lists those it has.
        ModuleNotFoundError: There is no such module.
    """
    module_name, _, name = target.rpartition(".")
    source = _source(module_name)
    if source is None:
        return None
    body = ast.parse(source.read_text()).body
    constructor = _constructor(name, body)
    if constructor is None:
        return None
    return _model(name, constructor, num_given)


def _source(module_name: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        raise
    except (ImportError, ValueError):
        return None
    if found is None:
        raise ModuleNotFoundError(module_name, name=module_name)
    return Path(found.origin) if found.origin and found.origin.endswith(".py") else None


def _constructor(name: str, body: list[ast.stmt]) -> FunctionNode | None:
    defined = {n.name: n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    if name not in defined:
        if any(isinstance(n, ast.Import | ast.ImportFrom) for n in body) and _assigned(name, body):
            return None
        raise LookupError(*[n for n in defined if not n.startswith("_")])
    node = defined[name]
    if isinstance(node, ast.FunctionDef):
        return node
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            member.args.args = member.args.args[1:]  # self
            return member
    for base in node.bases:  # an inherited constructor, when it is in the same file
        if isinstance(base, ast.Name) and base.id in defined:
            return _constructor(base.id, body)
    return None


def _assigned(name: str, body: list[ast.stmt]) -> bool:
    """Whether a name is imported or assigned at the top of the file, rather than defined there."""
    for node in body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return True
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return True
    return False


def _model(name: str, function: FunctionNode, num_given: int) -> type[BaseModel]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, defaults, strict=True))[num_given:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    fields = {arg.arg: (_type(arg.annotation), _default(default)) for arg, default in pairs}
    config = ConfigDict(
        extra="allow" if arguments.kwarg else "forbid",
        protected_namespaces=(),
        arbitrary_types_allowed=True,
    )
    model: type[BaseModel] = create_model(name, __config__=config, **fields)  # type: ignore[call-overload]
    return model


def _type(annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(_NAMES))
    except Exception:  # a type of the author's own: the constructor has to judge
        return Any


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return ...
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
