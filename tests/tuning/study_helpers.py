"""Small studies for the tests, each run by a command in a process of its own."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import optuna
import yaml

import forked
from run_helpers import SMALL, ready_store

STUDY = {
    "space": {
        "optimizer.lr": {"low": 0.001, "high": 0.1},
        "model.width": {"low": 4, "high": 12},
    },
    "n_trials": 4,
    "pruner": "none",
    "finalists": 0,
}
# In a process of its own: a study forks, and pytest has threads.
PROGRAM = """
import sys
sys.path[:0] = {path}
{patch}
from litlab.cli.main import main
main()
"""


def study(project: Path, *overrides: str, patch: str = "", **settings: Any) -> list[str]:
    """Write a study and return the command that runs it."""
    ready_store(project)
    folder = project / "conf" / "study"
    content = {**STUDY, **settings}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    program = PROGRAM.format(path=[str(Path(__file__).parents[1])], patch=patch)
    return [sys.executable, "-c", program, "tune", "study=tiny", *SMALL, *overrides, "--json"]


def run(command: list[str], project: Path, code: int = 0) -> tuple[dict[str, Any], str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, done.stderr


def trials_of(project: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{project / '.litlab' / 'studies' / 'tiny.db'}"
    return optuna.load_study(study_name="tiny", storage=storage).trials


def states(project: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(project)]
