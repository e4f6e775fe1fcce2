"""The machine and versions a run was made with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("litlab", "torch", "lightning", "torchmetrics", "numpy")


def describe() -> dict[str, str]:
    """Return versions and hardware, as recorded with every run."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "unknown"
    found["cpu"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
