"""How long a trained network takes for one sample: an objective beside how good it is."""

import statistics
import time
from pathlib import Path

import torch

from litlab.data.loading import Preprocess, Split, open_split
from litlab.data.prepare.open import open_or_prepare
from litlab.evaluation.inference import device, rebuild
from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import BEST
from litlab.tasks.task import Task

WARM_UP = 10  # passes that are not timed: memory is allocated, kernels are chosen
PASSES, SECONDS = 50, 0.5  # timed: at least so many, and for so long; but no longer than LONGEST
LONGEST = 10.0


def milliseconds(run: Path, trust: list[str]) -> float:
    """Return the median time of one forward pass of one validation sample, in milliseconds.

    Of the best weights, in full precision, without preprocessing: on one thread of the CPU, or on
    the GPU if the run was on one. Of texts it is the one of median length.

    Args:
        run: The run's folder.
        trust: Packages of the user's own that the checkpoint may name.

    Raises:
        LitlabError: The checkpoint or the data cannot be read.
    """
    path = run / BEST
    loaded = load(path, trust)
    config, spec = loaded.metadata.config, loaded.metadata.spec
    place = torch.device("cpu") if config.trainer.accelerator == "cpu" else device()
    folder, _ = open_or_prepare(config.data, trust)
    x = _sample(open_split(folder, spec, "val")).to(place)
    x = Preprocess(spec).to(place)(x)
    return _time(rebuild(loaded, path).eval().to(place), x)


def _sample(split: Split) -> torch.Tensor:
    """Return one sample, `(1, *shape)`; the same for every run of the data."""
    lengths = split.lengths
    place = 0 if lengths is None else int(lengths.argsort(stable=True)[len(lengths) // 2])
    return split.take(torch.tensor([place]))[0]


@torch.inference_mode()
def _time(task: Task, x: torch.Tensor) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(WARM_UP):
            _pass(task, x)
        taken: list[float] = []
        while _goes_on(len(taken), sum(taken)):
            taken.append(_pass(task, x))
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(taken)


def _goes_on(passes: int, seconds: float) -> bool:
    return seconds < LONGEST and (passes < PASSES or seconds < SECONDS)


def _pass(task: Task, x: torch.Tensor) -> float:
    began = time.perf_counter()
    task(x)
    if x.device.type != "cpu":  # its kernels are only queued by then
        torch.accelerator.synchronize()
    return time.perf_counter() - began
