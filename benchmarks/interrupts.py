"""Claim: no signal is lost, at whatever moment of a command's start it comes.

    python benchmarks/interrupts.py [--quick] [--json] [--verb train] [--tries 60]

A command is started again and again; each time SIGINT, SIGTERM or SIGHUP is sent a little later,
from the first millisecond until after the first checkpoint. Counted is what the process then does:
it has to end, with the signal's exit code and without a traceback, and a run whose record was begun
has to be recorded as KILLED, in its folder and in MLflow.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["data=synthetic", "data.source.num_samples=150", "model=simple_nn", "model.width=8"]
SMALL += ["trainer.progress=none", "trainer.accelerator=cpu", "loader.batch_size=16"]
LONG = ["trainer.max_epochs=100000", "trainer.early_stopping=null"]
COMMANDS = {
    "train": ["train", *SMALL, *LONG],
    "cv": ["cv", *SMALL, *LONG, "data.num_folds=3"],
    "prepare": ["prepare", "data=synthetic", "data.source.num_samples=3000000"],
    "evaluate": ["evaluate", "RUN"],
    "tune": ["tune", *SMALL, *LONG, "study=quick", "study.n_trials=4"],
}
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SECONDS = 60.0  # after which a process that has not ended has lost the signal


def start(project: Path, verb: str) -> subprocess.Popen[str]:
    command = [word.replace("RUN", "runs/whole") for word in COMMANDS[verb]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "src" / "litlab"), *command],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_project(verb: str) -> Path:
    """A project with a store, prepared data and a finished run, so that starts are alike."""
    project = Path(tempfile.mkdtemp(prefix="litlab-interrupts-"))
    shutil.copytree(ROOT / "conf", project / "conf")
    COMMANDS["whole"] = ["train", *SMALL, "trainer.max_epochs=1", "--out", "runs/whole"]
    whole = start(project, "whole")
    if whole.wait() != 0:
        raise SystemExit(whole.communicate()[1])
    return project


def is_training(project: Path, verb: str) -> bool:
    """Whether the start is over: a checkpoint is there, or for other commands its result."""
    if verb in ("prepare", "evaluate"):
        return False
    return any("whole" not in path.parts for path in project.rglob("last.ckpt"))


def seconds_to_start(project: Path, verb: str) -> float:
    """How long the start takes, or the whole of a command that ends by itself."""
    process, began = start(project, verb), time.monotonic()
    while process.poll() is None and not is_training(project, verb):
        time.sleep(0.02)
    seconds = time.monotonic() - began
    process.kill()
    process.communicate()
    clean(project)
    return seconds


def clean(project: Path) -> None:
    for path in (project / "runs").iterdir():
        if path.name != "whole":
            shutil.rmtree(path)


def attempt(project: Path, verb: str, number: signal.Signals, delay: float) -> dict[str, Any]:
    """Send one signal; return what became of the process and of the runs it had begun."""
    known = set(statuses(project))
    process, began = start(project, verb), time.monotonic()
    time.sleep(max(0.0, delay - (time.monotonic() - began)))
    ended_before = process.poll() is not None
    began_run = any(p.parent.name != "whole" for p in project.glob("runs/**/run.json"))
    phase = "training" if is_training(project, verb) else "recording" if began_run else "start"
    process.send_signal(number)
    sent = time.monotonic()
    try:
        err = process.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        err = process.communicate()[1]
    records = [json.loads(p.read_text())["status"] for p in project.glob("runs/**/run.json")
               if p.parent.name != "whole"]  # fmt: skip
    stored = [status for run, status in statuses(project).items() if run not in known]
    clean(project)
    code = process.returncode
    # Python itself starts for some 30 ms, in which a signal does what it does to any program.
    plain = code == -number and not err.strip().startswith("error")
    good = code == CODES[number] or plain or (ended_before and code == 0)
    return {
        "signal": number.name,
        "delay": round(delay, 3),
        "phase": "ended before" if ended_before else phase,
        "code": code,
        "seconds": round(time.monotonic() - sent, 2),
        "records": records,
        "stored": stored,
        "lost": not good,
        "traceback": "Traceback" in err and not plain,
        "not_killed": any(status != "KILLED" for status in (*records, *stored)),
        "last_line": err.strip().splitlines()[-1] if err.strip() else "",
    }


def statuses(project: Path) -> dict[str, str]:
    with sqlite3.connect(project / "mlflow.db") as store:
        return dict(store.execute("select run_uuid, status from runs"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six tries")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verb", choices=["train", "cv", "prepare", "evaluate", "tune"],
                        default="train")  # fmt: skip
    parser.add_argument("--tries", type=int, default=60)
    given = parser.parse_args()
    tries = 6 if given.quick else given.tries
    for number in NUMBERS:  # where this one was started to ignore them, so would be the others
        signal.signal(number, signal.SIG_DFL)
    project = make_project(given.verb)
    try:
        whole = seconds_to_start(project, given.verb)
        print(f"{given.verb}: the start takes {whole:.1f} s", file=sys.stderr)
        found = []
        places = random.Random(0).sample(range(tries), tries)  # other programs slow some of them
        for place in places:
            number = NUMBERS[place % len(NUMBERS)]
            found.append(attempt(project, given.verb, number, 1.05 * whole * (place + 0.5) / tries))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(project)
    summary = {
        name: sum(one[name] for one in found) for name in ("lost", "traceback", "not_killed")
    }
    phases = Counter(f"{one['phase']}: {one['code']}" for one in found)
    summary |= {"verb": given.verb, "tries": tries, "slowest": max(o["seconds"] for o in found)}
    print(json.dumps({**summary, "phases": phases}) if given.json else f"{summary}\n{dict(phases)}")
    sys.exit(summary["lost"] > 0)


if __name__ == "__main__":
    main()
