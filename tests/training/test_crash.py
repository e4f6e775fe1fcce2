"""Runs that are killed in earnest, few of them; benchmarks/crash.py kills more."""

import json
import sys
from pathlib import Path

import pytest

import forked

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash.py"


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--json", "--seed", "3"]
    ended = forked.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["kills"] == 4
    assert said["runs"] == said["survived"] == said["identical"] == said["metrics_exact"] > 1
