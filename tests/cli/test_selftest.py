"""The verb that tries everything on this machine."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litlab.cli import selftest
from run_helpers import THIRD_PARTY

pytestmark = THIRD_PARTY
Plan = list[tuple[str, Callable[[], str], bool]]


@pytest.mark.slow
def test_everything_needed_works_here(litlab: Any, project: Path) -> None:
    code, out, err = litlab("selftest", "--json")
    checks = json.loads(out)["checks"]
    needed = [check for check in checks if not err.count(f"--   {check['name']}")]
    assert [check for check in needed if not check["ok"]] == []
    assert code == 0
    assert sum(check["detail"].startswith("val/accuracy") for check in checks) == 4
    assert [path.name for path in project.iterdir()] == ["conf"]  # the project is not touched


def fail() -> str:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(("optional", "code"), [(False, 5), (True, 0)])
def test_what_fails_is_named(
    litlab: Any, project: Path, monkeypatch: pytest.MonkeyPatch, optional: bool, code: int
) -> None:
    plan: Plan = [("this", lambda: "fine", False), ("that", fail, optional)]
    monkeypatch.setattr(selftest, "_plan", lambda root: plan)
    answer, out, err = litlab("selftest", "--json")
    assert answer == code
    said = {"name": "that", "ok": False, "detail": "RuntimeError: no such thing"}
    assert json.loads(out)["checks"][1] == said
    assert f"{'--' if optional else 'FAIL'}" in err
    assert err.splitlines()[-1].startswith("1 failed" if code else "all required checks passed")


def test_a_network_that_learned_nothing_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Result:
        class record:  # noqa: N801
            metrics = {"val/accuracy": 0.4}
            seconds = 1.0

    monkeypatch.setattr("litlab.training.run.train", lambda *_: Result)
    with pytest.raises(selftest._NotSo, match="learned nothing: val/accuracy 0.40"):
        selftest._train(project, "mlp", "tabular")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_checks_and_removes_the_folder(
    litlab: Any, project: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    folders = []

    def plan(root: Path) -> Plan:
        folders.append(root)
        return [("this", lambda: str(os.kill(os.getpid(), number)), False), ("that", fail, False)]

    monkeypatch.setattr(selftest, "_plan", plan)
    answer, out, err = litlab("selftest")
    assert (answer, out) == (code, "")
    assert "that" not in err
    assert not folders[0].exists()


def test_a_training_that_was_stopped_is_no_failed_check(
    litlab: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litlab.utils.errors import Interrupted

    def stopped() -> str:
        raise Interrupted("stopped by SIGHUP", "training", "run it again", 129)

    plan: Plan = [("this", stopped, False), ("that", fail, False)]
    monkeypatch.setattr(selftest, "_plan", lambda root: plan)
    code, _, err = litlab("selftest")
    assert code == 129
    assert err == "error: stopped by SIGHUP | training | run it again\n"
