"""A study of one trial, without Optuna: `trial_driver.py ORDERS.json`, in a project's folder.

Begins the trial as the study's process does, answers it, begins it again when it dies, and prints
what it said. ORDERS: `overrides`; `prune_at`, an epoch; `die_at`, an epoch at which this process is
killed; `measure`; `trials`, how many at the same time; `epochs`, a file that gets each value.
"""

import json
import os
import signal
import sys
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

ATTEMPTS = 3


def run(orders: dict[str, Any]) -> list[dict[str, Any]]:
    """Train the trials; return what each said, `deaths` included."""
    from litlab.config.compose import load
    from litlab.tuning.workers.devices import Slot
    from litlab.tuning.workers.worker import start

    torch.set_num_threads(1)
    config = load(orders["overrides"])
    names = [f"trial-{i}" for i in range(orders.get("trials", 1))]

    def begin(name: str) -> Any:
        folder = Path("runs/study") / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        log, measure = folder.with_suffix(".log"), orders.get("measure", False)
        return start(config, folder, Slot(1), log, measure=measure)

    workers = {name: begin(name) for name in names}
    Path("pids.new").write_text(json.dumps([w.pid for w in workers.values()]))
    Path("pids.new").replace("pids")  # whole at once: the test may be reading
    deaths, said = dict.fromkeys(names, 0), dict[str, Any]()
    while workers:
        for line in wait([w.line for w in workers.values()]):
            name = next(n for n, w in workers.items() if w.line is line)
            try:
                message = workers[name].line.recv()
            except (EOFError, ConnectionResetError):
                os.waitpid(workers[name].pid, 0)
                if workers[name].said or deaths[name] + 1 == ATTEMPTS:
                    said[name] = {**workers.pop(name).said, "deaths": deaths[name]}
                else:
                    deaths[name] += 1
                    workers[name] = begin(name)
                continue
            if "epoch" not in message:
                workers[name].said = message
                continue
            with Path("epochs").open("a") as file:
                print(name, message["epoch"], message["value"], file=file)
            if message["epoch"] == orders.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            workers[name].line.send(message["epoch"] == orders.get("prune_at"))
    return [said[name] for name in names]


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
