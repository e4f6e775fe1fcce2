"""Studies as a user begins them, `litlab tune` in a project of its own, and what they leave."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import yaml

ROOT = Path(__file__).resolve().parents[1]
# Nets this small only lose by sharing a step between cores, and much where others use the machine.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
ALWAYS = ["trainer.accelerator=cpu", "study.finalists=0"]


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        began, ended: Seconds after Enter.
        trained: Seconds of its fit.
        value: The monitored value of its best epoch; None if it was pruned.
    """

    number: int
    params: dict[str, Any]
    value: float | None
    began: float
    ended: float
    trained: float


@dataclass(frozen=True)
class Study:
    """A study that has ended.

    Attributes:
        seconds: From Enter to the prompt.
        trials: In the order of their numbers.
    """

    seconds: float
    trials: list[Trial]

    @property
    def span(self) -> float:
        """Seconds from the first trial's start to the last one's end."""
        return max(t.ended for t in self.trials) - min(t.began for t in self.trials)


@contextmanager
def project() -> Iterator[Path]:
    """Make a project folder with the conf/ of this checkout, and work in it."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)


def prepare(overrides: list[str]) -> None:
    """Prepare the data, so that no study has to."""
    from litlab.config.compose import load
    from litlab.data.prepare.open import open_or_prepare

    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        open_or_prepare(load(overrides).data, [])


def run_study(name: str, space: dict[str, Any], overrides: list[str]) -> Study:
    """Run a study of that space from Enter to its end; its trials must all have ended well."""
    Path("conf/study", f"{name}.yaml").write_text(yaml.safe_dump({"space": space}))
    enter = datetime.now()
    words = ["tune", f"study={name}", *ALWAYS, *overrides, "--json"]
    command = [sys.executable, "-m", "litlab", *words]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True)
    seconds = _after(enter, datetime.now())
    if done.returncode != 0:
        raise SystemExit(f"litlab {' '.join(words)}\n{done.stderr}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["trials"]["failed"]:
        raise SystemExit(f"study {name}: {said['trials']}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.load_study(study_name=name, storage=said["storage"]).trials
    trials = [
        Trial(
            number=t.number,
            params=t.params,
            value=t.value if t.state == optuna.trial.TrialState.COMPLETE else None,
            began=_after(enter, t.datetime_start),
            ended=_after(enter, t.datetime_complete),
            trained=t.user_attrs["seconds"],
        )
        for t in found
    ]
    study = Study(seconds, trials)
    print(f"{name}: {len(trials)} trials in {seconds:.1f} s", file=sys.stderr, flush=True)
    return study


def _after(enter: datetime, moment: datetime) -> float:
    return (moment - enter).total_seconds()


def spread(values: list[float], form: str) -> str:
    """Return the median, the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
