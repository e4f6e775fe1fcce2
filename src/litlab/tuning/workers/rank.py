"""The processes of a trial that trains in several, on one machine.

Lightning would start the others by repeating the command line, which here is the study's; and each
would import everything once more. They are forked instead, before anything has used a GPU or begun
a pool of threads, and find one another as they do under `torchrun`.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Self

from lightning.fabric.plugins.environments.lightning import find_free_network_port

from litlab.distributed.watchdog import GRACE, PARENT

ENDING = 2 * GRACE + 2  # seconds; the watchdog has ended all by then, its last words included
BRIEFLY = 1.0  # where the first has failed: what the others still do is of no use


class Ranks:
    """The processes of a trial: `with Ranks(2) as ranks` is entered by each, and left by each.

    Attributes:
        rank: This process's, from 0.

    Args:
        number: How many there are to be, this one included.
    """

    def __init__(self, number: int) -> None:
        self.rank, self._others = 0, set[int]()
        self._left = threading.Event()
        if number == 1:
            return
        # Not from the study's own surroundings: trials side by side must not meet.
        os.environ.pop("RANK", None)
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(find_free_network_port()),
            "WORLD_SIZE": str(number),
            "NODE_RANK": "0",
            "LOCAL_RANK": "0",
        }
        first = os.getpid()
        for rank in range(1, number):
            pid = os.fork()
            if not pid:
                os.environ |= {"LOCAL_RANK": str(rank), PARENT: str(first)}
                self.rank, self._others = rank, set()
                return
            self._others.add(pid)
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def _watch(self) -> None:
        """End this process where another one has died before they had found one another."""
        while not self._left.wait(0.3):
            if self._reap():
                if not self._left.wait(ENDING):
                    os._exit(5)
                return

    def _reap(self) -> bool:
        """Take note of those that have ended; return whether one of them ended badly."""
        bad = False
        for pid in list(self._others):
            with suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                bad |= status != 0
            self._others.discard(pid)
        return bad

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the others, so that what they held is free for the next trial."""
        self._left.set()
        deadline = time.monotonic() + (ENDING if kind is None else BRIEFLY)
        while self._others and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for pid in self._others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
