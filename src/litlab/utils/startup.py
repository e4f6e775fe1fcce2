"""A quick start: the garbage collector leaves imports alone.

Importing torch, Lightning and MLflow makes a million objects that stay for good. By default Python
searches them for garbage again and again while they are made: a fifth to a quarter of the CPU time
from Enter to the first training step (benchmarks/startup.py), and later each full collection in
the middle of training walks through all of them.
"""

import gc
import os

OBJECTS = 500_000  # new ones before a search, instead of Python's 700: a start needs few searches
_before: list[tuple[int, int, int]] = []


def begin() -> None:
    """Search for garbage rarely from here on, and report nothing: the command line starts up."""
    # MLflow reports its use to its makers unless told otherwise, here and in what it starts.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    _before.append(gc.get_threshold())
    gc.set_threshold(OBJECTS, 10, 10)


def done() -> None:
    """Search as usual again, but not among what there is by now. Without `begin`, do nothing.

    Twice in one process (one run a fold) it counts once: what the first run leaves is no import.
    """
    if _before:
        gc.freeze()
        gc.set_threshold(*_before[0])
        _before.clear()
