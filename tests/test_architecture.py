"""The import arrows of docs/architecture.md, and the size of functions, read off the source."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

SRC = Path(__file__).parents[1] / "src"
FILES = sorted((SRC / "litlab").rglob("*.py"))
# Packages by level; a package imports what stands in its own line of ALLOWED, all of it lower.
LEVELS = (
    ("utils",),
    ("config",),
    ("data", "distributed"),
    ("models", "report", "runs", "tasks"),
    ("evaluation",),
    ("training",),
    ("tuning",),
    ("cli",),
)
ALLOWED = {
    "utils": "",
    "config": "utils",
    "data": "config utils",
    "distributed": "config utils",
    "models": "config data",
    "report": "data utils",
    "runs": "config data distributed utils",
    "tasks": "config data distributed utils",
    "evaluation": "config data report runs tasks utils",
    "training": "config data distributed evaluation report runs tasks utils",
    "tuning": "config data distributed evaluation report runs tasks training utils",
    "cli": "config data distributed evaluation runs training tuning utils",
}
LIGHT = (
    "cli.main",
    "cli.options",
    "cli.commands.common",
    "cli.commands.training",
    "config.compose",
    "config.validate",
    "config.schema",
    "config.signature",
    "config.instantiate",
    "utils.paths",
    "utils.errors",
    "utils.output",
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


def within(package: str) -> list[str]:
    return [name for name in MODULES if name.startswith(f"{package}.")]


def package_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_every_package_has_a_level() -> None:
    folders = {path.name for path in (SRC / "litlab").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == {name for level in LEVELS for name in level}
    modules = {path.name for path in (SRC / "litlab").glob("*.py")}
    assert modules == {"__init__.py", "__main__.py"}


def test_what_may_be_imported_is_lower() -> None:
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    for name, allowed in ALLOWED.items():
        assert all(level[other] < level[name] for other in allowed.split()), name


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package: str) -> None:
    modules = within(f"litlab.{package}")
    assert modules
    for name in modules:
        others = {package_of(module) for module in own(name)} - {package, ""}
        assert others <= set(ALLOWED[package].split()), name


def test_sources_know_nothing_of_preparing() -> None:
    allowed = ("sources", "encode", "inputs.images", "prepare.source_files", "raw", "spec")
    prefixes = tuple(f"litlab.data.{name}" for name in allowed)
    for name in within("litlab.data.sources"):
        data = {module for module in own(name) if package_of(module) == "data"}
        assert all(module.startswith(prefixes) for module in data), name


def test_task_knows_neither_data_nor_models() -> None:
    found = own("litlab.tasks.task")
    assert not {module for module in found if package_of(module) in ("data", "models")}


def test_report_is_free_of_the_training_libraries() -> None:
    heavy = {"torch", "lightning", "mlflow", "torchmetrics"}
    for name in within("litlab.report"):
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
    assert [module_of(path) for path in FILES if opens_test(path)] == ["litlab.evaluation.evaluate"]


STAGES = {
    "prepare": "litlab.data.prepare.prepare",
    "train": "litlab.training.run",
    "evaluate": "litlab.evaluation.evaluate",
}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_runs_a_stage_again_when_a_file_that_it_imports_changes(stage: str) -> None:
    content = yaml.safe_load((SRC.parent / "dvc.yaml").read_text())
    folders = [SRC.parent / dep for dep in content["stages"][stage]["deps"]]
    reached, waiting = set(), [STAGES[stage]]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += own(name) & MODULES.keys()
    files = {MODULES[name] for name in reached if MODULES[name].parent.name != "litlab"}
    assert len(files) > 10
    assert {file for file in files if not any(file.is_relative_to(f) for f in folders)} == set()


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


# The public names, imported when they are used (PEP 562), and `litlab.runs(query)`.
PUBLIC = {
    SRC / "litlab" / name for name in ("__init__.py", "models/__init__.py", "runs/__init__.py")
}


def test_sub_packages_export_nothing() -> None:
    for path in FILES:
        if path.name == "__init__.py" and path not in PUBLIC:
            assert path.read_text().strip() == "", path


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines, its docstring left out."""
    assert node.end_lineno
    docstring = ast.get_docstring(node, clean=False) or ""
    return node.end_lineno - node.lineno + 1 - len(docstring.splitlines())


def test_functions_do_one_thing() -> None:
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
