"""Where the time of a run goes: reports in its folder."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler
from torch.profiler import ProfilerActivity, profile, schedule

from litlab.utils.output import say

WAIT, WARM_UP, RECORDED = 1, 1, 3  # batches
ROWS = 40


class TorchProfile(Callback):
    """PyTorch's profiler on three batches: a table of operators, and a trace to look at.

    Lightning's `PyTorchProfiler` is not used: it makes every step of the run go Lightning's long
    way, and breaks off where there are fewer than five.

    Args:
        table: Where the table goes; the trace goes beside it, as JSON for chrome://tracing and
            https://ui.perfetto.dev.
    """

    quiet = True  # logs nothing: see litlab.training.loop

    def __init__(self, table: Path) -> None:
        self.table = table
        self._profiler: profile | None = None
        self._on_cuda = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, in the first of several processes."""
        if not trainer.is_global_zero:
            return
        self._on_cuda = trainer.strategy.root_device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._on_cuda
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARM_UP, active=RECORDED, repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Continue with the next batch; end after the last one that is recorded."""
        if self._profiler is None:
            return
        self._profiler.step()
        if self._profiler.step_num == WAIT + WARM_UP + RECORDED:
            self._end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a training that was shorter."""
        self._end()
        if trainer.is_global_zero and not self.table.is_file():
            say(f"warning: no profile: it needs {WAIT + WARM_UP + 1} batches of training or more")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End, so that the profiler does not outlive the run."""
        self._end()

    def _end(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.stop()

    def _write(self, profiler: profile) -> None:
        kind = "cuda" if self._on_cuda else "cpu"
        averages = profiler.key_averages()
        table = averages.table(sort_by=f"self_{kind}_time_total", row_limit=ROWS)
        what = f"{RECORDED} batches, torch {torch.__version__}, by self {kind} time"
        self.table.write_text(f"{what}\n{table}\n")
        profiler.export_chrome_trace(str(self.table.with_name(f"{self.table.stem}-trace.json")))


NAME = "profile"
# Of Lightning's hooks, and of Python's functions.
OF_LIGHTNING = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}


def make_profiler(kind: str | None, folder: Path) -> Profiler | None:
    """Return the Lightning profiler called "simple" or "advanced", which reports to a folder."""
    if kind not in OF_LIGHTNING:
        return None
    profiler: Profiler = OF_LIGHTNING[kind](dirpath=folder, filename=NAME)
    return profiler


def profile_callbacks(kind: str | None, folder: Path) -> list[Callback]:
    """Return PyTorch's profiler, if "pytorch" is asked for."""
    return [TorchProfile(folder / f"{NAME}.txt")] if kind == "pytorch" else []


def reports(folder: Path) -> list[Path]:
    """Return what a profiler has written."""
    return sorted(p for p in folder.glob(f"*{NAME}*") if p.suffix in (".txt", ".json"))
