"""The import arrows of docs/architecture.md, and the gates on sizes, read off the source."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "litlab").rglob("*.py"))
LIGHT = (
    "cli",
    "options",
    "commands.common",
    "commands.training",
    "config",
    "check",
    "schema",
    "signature",
    "targets",
    "paths",
    "errors",
    "output",
)


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def statements(body: list[ast.stmt], lazy: bool) -> Iterator[ast.stmt]:
    """What runs when the module is imported; with `lazy`, what any function of it imports too."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, lazy)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, field, []), lazy)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body, lazy)


def imports(name: str, lazy: bool = True) -> set[str]:
    """The modules that a module imports; litlab's own down to the file."""
    found = set()
    for node in statements(ast.parse(MODULES[name].read_text()).body, lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return found


def own(name: str) -> set[str]:
    return {module for module in imports(name) if module.split(".")[0] == "litlab"}


def in_room(room: str) -> list[str]:
    return [name for name in MODULES if name == room or name.startswith(f"{room}.")]


ARROWS = {
    "litlab.data.sources": {
        "litlab.data.encode.stream",
        "litlab.data.encode.table",
        "litlab.data.encode.text",
        "litlab.data.files",
        "litlab.data.images",
        "litlab.data.raw",
        "litlab.data.spec",
        "litlab.hyperparameters",
        "litlab.errors",
    },
    "litlab.data.encode": {"litlab.data.spec", "litlab.hyperparameters", "litlab.errors"},
    "litlab.data.augment": {"litlab.data.spec", "litlab.hyperparameters"},
    "litlab.loop": {"litlab.errors"},
    "litlab.models": {"litlab.data.spec", "litlab.hyperparameters"},
    "litlab.losses": {"litlab.data.spec", "litlab.hyperparameters"},
    "litlab.report": {"litlab.data.spec", "litlab.errors"},
    "litlab.optim": {
        "litlab.depth",
        "litlab.hyperparameters",
        "litlab.muon",
        "litlab.sgdw",
    },
    "litlab.depth": set(),
    "litlab.schedules": {"litlab.hyperparameters"},
    "litlab.data.spec": {"litlab.errors", "litlab.names"},
    "litlab.data.datamodule": {
        "litlab.data.arrays",
        "litlab.data.augment.base",
        "litlab.data.loader",
        "litlab.data.preprocess",
        "litlab.data.spec",
        "litlab.errors",
        "litlab.schema",
    },
}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    modules = in_room(room)
    assert modules
    for name in modules:
        assert own(name) <= ARROWS[room] | set(modules), name


def test_task_knows_neither_data_nor_models() -> None:
    assert not {m for m in own("litlab.task") if m.startswith(("litlab.data", "litlab.models"))}


def test_report_is_free_of_the_training_libraries() -> None:
    heavy = {"torch", "lightning", "mlflow", "torchmetrics"}
    for name in in_room("litlab.report"):
        assert not {m.split(".")[0] for m in imports(name)} & heavy, name


def opens_test(path: Path) -> bool:
    """Whether a file names the test split in what opens it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "open_split",
            "ArrayDataModule",
            "file_of",
        ):
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            constants = [c for v in values for c in ast.walk(v) if isinstance(c, ast.Constant)]
            if any(constant.value == "test" for constant in constants):
                return True
    return False


def test_only_evaluate_opens_the_test_split() -> None:
    assert [module_of(path) for path in FILES if opens_test(path)] == ["litlab.evaluate"]


def test_no_cycles() -> None:
    graph = {name: imports(name, lazy=False) & MODULES.keys() for name in MODULES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_sub_packages_export_nothing() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            assert path.read_text().strip() == "", path


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines, its docstring left out."""
    assert node.end_lineno
    docstring = ast.get_docstring(node, clean=False) or ""
    return node.end_lineno - node.lineno + 1 - len(docstring.splitlines())


def test_sizes() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {path.name: n for path, n in lines.items() if n > 300} == {}
    assert median(n for n in lines.values() if n) <= 130
    functions = {
        f"{path.name}:{node.name}": lines_of_code(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in functions.items() if n > 50} == {}


def test_the_door_is_light() -> None:
    names = ", ".join(f"litlab.{name}" for name in LIGHT)
    heavy = "{'torch', 'lightning', 'mlflow', 'hydra', 'omegaconf', 'sklearn', 'pandas'}"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        check=True,
    )
    assert done.stdout.strip() == "[]"
