"""Reads a component's hyperparameters from its source, without importing it.

A refused configuration must cost a blink; importing torch alone costs seconds. So the checker
parses the file that an import path names and builds a pydantic model from the constructor's
annotations (see `litlab.config.hyperparameters`). What it cannot know it leaves to the constructor.
"""

import ast
import builtins
import importlib.util
import warnings
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.errors import PydanticUserError

from litlab.config import hyperparameters
from litlab.utils.errors import ConfigError, nearest

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_NAMES: dict[str, Any] = {
    "__builtins__": {},
    **{t.__name__: t for t in (int, float, bool, str, list, tuple, dict)},
    **{name: value for name, value in vars(hyperparameters).items() if not name.startswith("_")},
    "Any": Any,
    "Literal": Literal,
    "Annotated": Annotated,
}


def schema(
    target: str, num_given: int | Collection[str], by_name: Collection[str] = ()
) -> type[BaseModel] | None:
    """Return a pydantic model of a target's hyperparameters, or None where they cannot be read.

    Args:
        target: Import path, `package.module.Name`.
        num_given: How many leading positional parameters litlab itself passes; of a task, their
            names.
        by_name: Parameters that litlab passes by keyword where the configuration does not.

    Raises:
        LookupError: The module exists but has no such name in it; the argument lists those it has.
        ModuleNotFoundError: There is no such module.
        SyntaxError: The module's source is not Python.
        ConfigError: A parameter's type is not defined.
    """
    source = _source(target.rpartition(".")[0])
    if source is None:
        return None
    given = num_given if isinstance(num_given, int) else tuple(num_given)
    changed = source.stat()
    return _schema(target, source, (changed.st_mtime_ns, changed.st_size), given, tuple(by_name))


@lru_cache(maxsize=512)  # a study, a session or a test composes the same parts again and again
def _schema(
    target: str,
    source: Path,
    _version: tuple[int, int],
    num_given: int | tuple[str, ...],
    by_name: tuple[str, ...],
) -> type[BaseModel] | None:
    name = target.rpartition(".")[2]
    module = ast.parse(source.read_bytes())
    constructor = _constructor(name, list(_top_level(module.body)))
    if constructor is None:
        return None
    _refuse_unknown_types(target, constructor, _defined(module))
    return _model(name, constructor, num_given, by_name)


def _defined(module: ast.Module) -> set[str]:
    """Names that a module binds anywhere; "*" among them where it imports all of another."""
    names = set(dir(builtins)) | set(_NAMES)
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | FunctionNode):
            names.add(node.name)
        elif isinstance(node, ast.Name) and _stored(node):
            names.add(node.id)
        elif type(node).__name__ in ("TypeVar", "ParamSpec", "TypeVarTuple"):  # class A[T]
            names.add(getattr(node, "name", ""))
    return names


def _refuse_unknown_types(target: str, arguments: ast.arguments, defined: set[str]) -> None:
    """Refuse an annotation whose type nothing defines: its parameter would not be checked.

    Raises:
        ConfigError: One is misspelt.
    """
    if "*" in defined:
        return
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        for name in _types_named(argument.annotation):
            if name not in defined:
                what = f"'{argument.arg}' of '{target}' has the type '{name}', which is not defined"
                raise ConfigError(what, target, nearest(name, defined - set(dir(builtins))))


def _types_named(annotation: ast.expr | None) -> Iterator[str]:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return
    for node in ast.walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Name):
            yield node.id


def _source(module_name: str) -> Path | None:
    """Find a module's file without importing its parents, as importlib's find_spec would."""
    name, *rest = module_name.split(".")
    found = importlib.util.find_spec(name)
    for part in rest:
        places = found.submodule_search_locations if found else None
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, places) if places is not None else None
    if found is None:
        raise ModuleNotFoundError(name, name=name)
    return Path(found.origin) if found.origin and found.origin.endswith(".py") else None


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements, those under `if` and `try` included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            handlers = [s for h in getattr(node, "handlers", []) for s in h.body]
            yield from _top_level([*node.body, *handlers, *node.orelse])


def _constructor(name: str, body: list[ast.stmt]) -> ast.arguments | None:
    """Return the parameters of what a name is bound to, or None if that lies in another file."""
    defined = {n.name: n for n in body if isinstance(n, ast.ClassDef | FunctionNode)}
    node = defined.get(name)
    if node is None:
        if name in _bound(body) or "*" in _bound(body):
            return None
        raise LookupError(*[n for n in defined if not n.startswith("_")])
    if not isinstance(node, ast.ClassDef):
        return node.args
    members = {m.name: m for m in node.body if isinstance(m, FunctionNode)}
    if "__init__" in members:
        return _without_self(members["__init__"].args)
    for base in node.bases:  # an inherited constructor, when it is in the same file
        if isinstance(base, ast.Name) and base.id in defined:
            above = [n for n in body if n.lineno < node.lineno]
            return _constructor(base.id, above)
    if node.bases or node.keywords or node.decorator_list or "__new__" in members:
        return None
    return ast.arguments([], [], None, [], [], None, [])  # a plain class: it takes nothing


def _without_self(arguments: ast.arguments) -> ast.arguments:
    (arguments.posonlyargs or arguments.args).pop(0)
    return arguments


def _bound(body: list[ast.stmt]) -> set[str]:
    """Names that a module imports or assigns, rather than defines."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _stored(n)}
    return names


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _model(
    name: str,
    arguments: ast.arguments,
    num_given: int | Collection[str],
    by_name: Collection[str],
) -> type[BaseModel] | None:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, defaults, strict=True))
    keyword = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if isinstance(num_given, int):
        pairs = [*pairs[num_given:], *keyword]
    else:
        pairs = [*pairs, *keyword]
        names = {arg.arg for arg, _ in pairs}
        ours = set(num_given) if "parts" in names else {"model", "spec"}
        pairs = [pair for pair in pairs if pair[0].arg not in ours]
    fields = {arg.arg: (_type(arg.annotation), _default(default)) for arg, default in pairs}
    for given in by_name:
        if given in fields:
            fields[given] = (fields[given][0], None)  # not required; a default is not validated
    if any(field.startswith("_") for field in fields):
        return None  # pydantic would drop it in silence
    config = ConfigDict(
        extra="allow" if arguments.kwarg else "forbid",
        protected_namespaces=(),
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
    )
    try:
        with warnings.catch_warnings():  # a parameter called `copy` or `json` is no mistake
            warnings.simplefilter("ignore")
            model: type[BaseModel] = create_model(name, __config__=config, **fields)  # type: ignore[call-overload]
            model.model_rebuild()
    except (PydanticUserError, NameError):  # a name or an annotation that pydantic cannot take
        return None
    return model


def _type(annotation: ast.expr | None) -> Any:
    if annotation is None:
        return Any
    try:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(_NAMES))
    except Exception:  # a type that the author imports or defines: the constructor has to judge
        return Any


def _default(node: ast.expr | None) -> Any:
    if node is None:
        return ...
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None
