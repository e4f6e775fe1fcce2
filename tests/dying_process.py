"""`litlab train` of which one process ends badly: `dying_process.py RANK HOW train ...`.

At the fifth step the process RANK raises an error, is killed, or is killed while all the others are
busy with something that no error of the network interrupts. It then leaves a file `died`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

rank, how = int(sys.argv[1]), sys.argv[2]
own = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def die() -> None:
    """End this process as asked."""
    Path("died").touch()
    if how == "raise":
        from litlab.utils.errors import EnvironmentFault

        raise EnvironmentFault("the disk is full", "scratch", "make room")
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Train."""
    from litlab.cli import main as cli
    from litlab.tasks import task

    step = task.Task.training_step

    def training_step(self: task.Task, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step >= 4 and own == rank:
            time.sleep(0.5 if how == "busy" else 0)
            die()
        if self.trainer.global_step >= 4 and how == "busy":
            time.sleep(600)
        return step(self, batch, batch_idx)

    task.Task.training_step = training_step
    command = sys.argv[3:]
    # Lightning starts the other processes with this process's arguments: they stay as they are.
    cli.app(command, prog_name="litlab", standalone_mode=False)


if __name__ == "__main__":
    from litlab.utils.errors import LitlabError

    try:
        main()
    except LitlabError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
