import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from litlab.config import signature
from litlab.config.schema import NUM_GIVEN
from litlab.utils.errors import ConfigError

MODULE = """
import os.path
from somewhere import Imported
from functools import partial
try:
    import fast
except ImportError:
    class Fallback:
        def __init__(self, *, x: int = 1): ...
raise SystemExit("this module must not run")

Half = partial(int, base=2)
DEFAULT = 3

class Net:
    def __init__(self, spec, width: Count, *, rate: "Probability" = 0.5, deep: Unknown = DEFAULT,
                 odd: list["Nowhere"] = (), copy: bool = False): ...

class Child(Net): ...
class Foreign(Imported): ...
class Plain: ...
class Imported(Imported): ...

@decorated
class Decorated: ...

class Made:
    def __new__(cls, x): ...

class Slashed:
    def __init__(self, spec, /, *, x: int = 1): ...

class Private:
    def __init__(self, spec, *, _x: int = 1): ...

class Open:
    def __init__(self, spec, x: int = 1, *more, **rest): ...

def build(model, *, lr: Positive = 1e-3): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('neither must this')")
    (package / "nets.py").write_text(MODULE)
    (package / "stars.py").write_text("from users_package.nets import *")
    (package / "broken.py").write_text("def (:")
    monkeypatch.syspath_prepend(tmp_path)
    return "users_package.nets"


def names(target: str, num_given: int = 1) -> list[str] | None:
    model = signature.schema(target, num_given)
    return None if model is None else list(model.model_fields)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Foreign", None),
        ("Imported", None),
        ("Half", None),
        ("Decorated", None),
        ("Made", None),
        ("Private", None),
        ("Plain", []),
        ("Slashed", ["x"]),
        ("Fallback", ["x"]),
        ("Open", ["x"]),
        ("build", ["lr"]),
    ],
)
def test_reads_constructors_without_running_anything(
    module: str, name: str, expected: list[str] | None
) -> None:
    given = 0 if name == "Fallback" else 1
    assert names(f"{module}.{name}", given) == expected
    assert module not in sys.modules
    assert "users_package" not in sys.modules


def test_values_are_checked_and_typed(module: str) -> None:
    model = signature.schema(f"{module}.build", 1)
    assert model is not None
    assert model().model_dump() == {"lr": 1e-3}
    assert model.model_validate({"lr": "1e-2"}).model_dump() == {"lr": 0.01}
    for wrong in (0, -1, "a", float("inf"), float("nan")):
        with pytest.raises(ValidationError):
            model.model_validate({"lr": wrong})
    with pytest.raises(ValidationError):
        model.model_validate({"lrr": 1})


def test_var_keywords_take_anything(module: str) -> None:
    model = signature.schema(f"{module}.Open", 1)
    assert model is not None
    model.model_validate({"x": 2, "anything": 3})


def test_a_text_annotation_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_module.py").write_text('def f(spec, rate: "Probability" = X): ...')
    monkeypatch.syspath_prepend(tmp_path)
    model = signature.schema("late_module.f", 1)
    assert model is not None
    with pytest.raises(ValidationError):
        model.model_validate({"rate": 2})


def test_missing_names_and_modules(module: str) -> None:
    with pytest.raises(LookupError) as error:
        signature.schema(f"{module}.Nett", 1)
    assert "Net" in error.value.args
    for missing in (f"{module}s.Net", f"{module}.Net.deeper", "no_such_package.Net"):
        with pytest.raises(ModuleNotFoundError):
            signature.schema(missing, 1)
    assert names("users_package.stars.Net") is None
    with pytest.raises(SyntaxError):
        signature.schema("users_package.broken.Net", 1)


def test_a_module_without_source_is_left_to_its_constructor() -> None:
    assert signature.schema("itertools.count", 0) is None


def test_a_type_that_nothing_defines_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "slips.py").write_text(
        "from __future__ import annotations\n"
        "from litlab.config.hyperparameters import Probability\n"
        "class Net:\n"
        "    def __init__(self, spec, *, dropout: Probabilty = 0.1, size: 'int | Other' = 1): ...\n"
        "class Fine:\n"
        "    def __init__(self, spec: Net, *, dropout: Probability = 0.1, f: 'Fine' = None): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match="'dropout' of 'slips.Net' has the type 'Probabilty'"
    ) as e:
        signature.schema("slips.Net", 1)
    assert "Probability" in e.value.fix
    assert signature.schema("slips.Fine", 1) is not None


def test_litlabs_own_components_are_checked_throughout() -> None:
    """Each of their settings has a type that is read, and not one that stands for anything."""
    unchecked = []
    for path in sorted((Path(__file__).parents[2] / "conf").rglob("*.yaml")):
        for target in re.findall(r"_target_: *(litlab\.\S+)", path.read_text()):
            group = path.relative_to(path.parents[1]).parts[0]
            schema = signature.schema(target, NUM_GIVEN.get(group, 0))
            for name, field in (schema.model_fields if schema else {}).items():
                if field.annotation is Any:
                    unchecked.append(f"{target}.{name}")
    assert unchecked == []
