"""Claim: no signal is lost, at whatever moment of a command's start it comes.

    python benchmarks/interrupts.py [--quick] [--json] [--verb train] [--moments 60]
                                    [--processes 12]

Two ways, with SIGINT, SIGTERM and SIGHUP in turn. At moments that are evenly spread over the
processor time from the first line of litlab until a run's record begins, the process forks, and the
copy gets the signal there: also within imports, destructors and garbage collections. And whole
processes get one from outside, from their first millisecond until after their first checkpoint.
Each has to end with the signal's exit code, one line and no traceback; a run that had begun has to
be KILLED, in its folder and in MLflow.
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
# Forks at each tick of a clock of processor time, until a run has signals of its own.
FORKING = """
import json, os, signal, sys, time
each, seconds, answers = float(sys.argv[1]), float(sys.argv[2]), open(sys.argv[3], "a")
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
count = 0

def inside(frame):
    names = []
    while frame is not None:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    if "<frozen importlib._bootstrap>" in names:
        return "import"
    return "configuration" if any("hydra" in name for name in names) else "other"

def tick(_, frame):
    global count
    taken = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if type(taken).__name__ == "Signals":
        signal.setitimer(signal.ITIMER_PROF, 0)
        return
    number, began, err = numbers[count % 3], time.monotonic(), os.memfd_create("err")
    count += 1
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.dup2(err, 2)
        os.kill(os.getpid(), number)
        return
    ended = 0
    while not ended and time.monotonic() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    said = os.pread(err, 100_000, 0).decode()
    os.close(err)
    answer = {"signal": number.name, "phase": inside(frame), "err": said, "lost": not ended}
    answer["code"] = os.waitstatus_to_exitcode(status)
    answer["seconds"] = round(time.monotonic() - began, 2)
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()

signal.signal(signal.SIGPROF, tick)
signal.setitimer(signal.ITIMER_PROF, each, each)
sys.argv[1:] = sys.argv[4:]
from litlab.cli.entry import main
main()
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def start(project: Path, verb: str, *python: str) -> subprocess.Popen[str]:
    command = [word.replace("RUN", "runs/whole") for word in COMMANDS[verb]]
    return subprocess.Popen(
        [sys.executable, *(python or [str(ROOT / "src" / "litlab")]), *command],
        cwd=project,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def fork_at_moments(project: Path, verb: str, moments: int) -> list[dict[str, Any]]:
    """Start a command once, with a copy of it at each moment that gets a signal."""
    each = 5.0 / moments  # a start takes at least as many seconds of processor time
    answers = project / "answers.jsonl"
    process = start(project, verb, "-c", FORKING, str(each), str(SECONDS), str(answers))
    while process.poll() is None and not is_training(project, verb):
        time.sleep(0.1)
    process.kill()
    process.communicate()
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    clean(project)
    for one in found:
        err = one.pop("err").strip()
        one["lost"] |= one["code"] != CODES[signal.Signals[one["signal"]]]
        one["traceback"] = "Traceback" in err or "ignored in" in err
        one["last_line"] = err.splitlines()[-1] if err else ""
    return found


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
    plain = code in (1, -number) and "litlab" not in err
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


def counts(found: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("lost", "traceback", "not_killed")
    phases = sorted(Counter(f"{one['phase']}: {one['code']}" for one in found).items())
    slowest = max((one["seconds"] for one in found), default=0)
    total = {name: sum(one.get(name, False) for one in found) for name in names}
    return {"tries": len(found), **total, "slowest": slowest, "phases": dict(phases)}


def send_to_processes(project: Path, verb: str, tries: int) -> list[dict[str, Any]]:
    """Start a command as often, and send each a signal a little later."""
    if not tries:
        return []
    whole = seconds_to_start(project, verb)
    found = []
    for place in random.Random(0).sample(range(tries), tries):  # other programs slow some of them
        delay = 1.05 * whole * (place + 0.5) / tries
        found.append(attempt(project, verb, NUMBERS[place % len(NUMBERS)], delay))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten moments, no process")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verb", choices=list(COMMANDS), default="train")
    parser.add_argument("--moments", type=int, default=60)
    parser.add_argument("--processes", type=int, default=12)
    given = parser.parse_args()
    moments, processes = (10, 0) if given.quick else (given.moments, given.processes)
    for number in NUMBERS:  # where this one was started to ignore them, so would be the others
        signal.signal(number, signal.SIG_DFL)
    project = make_project(given.verb)
    try:
        forked = fork_at_moments(project, given.verb, moments)
        for one in forked:
            print(json.dumps(one), file=sys.stderr)
        found = send_to_processes(project, given.verb, processes)
    finally:
        shutil.rmtree(project)
    summary = {"verb": given.verb, "moments": counts(forked), "processes": counts(found)}
    print(json.dumps(summary) if given.json else json.dumps(summary, indent=2))
    return int(any(one["lost"] or one["traceback"] for one in (*forked, *found)))


if __name__ == "__main__":
    sys.exit(main())
