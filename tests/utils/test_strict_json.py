"""Every JSON that litlab writes or prints can be read by a strict parser."""

import ast
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from litlab.runs.folder import RunRecord
from litlab.utils.files import dumps, write_json
from run_helpers import SMALL, THIRD_PARTY, only_run, ready_store

pytestmark = THIRD_PARTY
SRC = Path(__file__).resolve().parents[2] / "src" / "litlab"
UNDEFINED = """
import torch
from torchmetrics import Metric

class Undefined(Metric):
    def update(self, outputs, targets):
        pass

    def compute(self):
        return torch.tensor(float("{value}"))
"""


def strictly(text: str):
    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_finite_becomes_null_and_is_named(tmp_path, value) -> None:
    content = {"test": {"auroc": value, "f1": 0.5}, "ends": [(value, 1)], "step": 3, "none": None}
    expected = {"test": {"auroc": None, "f1": 0.5}, "ends": [[None, 1]], "step": 3, "none": None}
    assert strictly(dumps(content)) == expected
    with pytest.warns(UserWarning, match=r"x\.json: .* null: test\.auroc, ends$"):
        write_json(tmp_path / "x.json", content)
    assert strictly((tmp_path / "x.json").read_text()) == expected


def test_a_file_is_written_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_nothing_else_in_the_package_writes_json() -> None:
    for path in SRC.rglob("*.py"):
        if path.name == "files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("json.dump", "json.dumps"), f"{path}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom) and node.module == "json":
                names = {alias.name for alias in node.names}
                assert not names & {"dump", "dumps", "JSONEncoder"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.filterwarnings("default:.*NaN or infinite")
def test_a_metric_that_is_not_finite(project, litlab, value) -> None:
    ready_store(project)
    (project / f"undefined_{value}.py").write_text(UNDEFINED.format(value=value))
    node = f"_target_: undefined_{value}.Undefined\n"
    (project / "conf" / "metrics" / "odd.yaml").write_text(f"odd:\n  {node}")
    overrides = [*SMALL, "metrics=[accuracy,odd]", f"trust=[undefined_{value}]"]
    code, out, err = litlab("train", *overrides, "--json")
    assert code == 0, err
    assert strictly(out)["metrics"]["val/odd"] is None
    assert "warning: run.json: NaN or infinite, written as null: " in err
    assert "metrics.val/odd" in err
    run = only_run(project)
    assert strictly((run / "run.json").read_text())["metrics"]["val/odd"] is None
    assert math.isnan(RunRecord.load(run).metrics["val/odd"])

    code, out, err = litlab("evaluate", "--json", "--trust", f"undefined_{value}")
    assert code == 0, err
    assert strictly(out)["metrics"]["test/odd"] is None
    assert "warning: metrics.json: NaN or infinite, written as null: test.odd" in err
    for file in (run / "report").glob("*.json"):
        strictly(file.read_text())
    assert strictly((run / "report" / "metrics.json").read_text())["test"]["odd"] is None
    code, _, err = litlab("report")
    assert code == 0, err
    assert re.search(r"test odd +not finite", err)


@pytest.mark.filterwarnings("default:.*NaN or infinite")
def test_folds_with_a_metric_that_is_not_finite(project, litlab) -> None:
    ready_store(project)
    (project / "undefined_folds.py").write_text(UNDEFINED.format(value="nan"))
    node = "_target_: undefined_folds.Undefined\n"
    (project / "conf" / "metrics" / "odd.yaml").write_text(f"odd:\n  {node}")
    overrides = [
        *SMALL,
        "trainer.max_epochs=1",
        "metrics=[accuracy,odd]",
        "trust=[undefined_folds]",
    ]
    code, out, err = litlab("cv", *overrides, "data.num_folds=2", "--json")
    assert code == 0, err
    said = strictly(out)
    assert said["metrics"]["val/odd"] is None
    assert said["deviations"]["val/odd"] is None
    assert said["deviations"]["val/accuracy"] >= 0
