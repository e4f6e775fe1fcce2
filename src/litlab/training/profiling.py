"""Where the time of a run goes: reports in its folder."""

from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler

from litlab.training.callbacks.torch_profile import TorchProfile

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
