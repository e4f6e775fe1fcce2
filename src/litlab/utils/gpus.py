"""NVIDIA's GPUs, found without torch, which takes seconds to load, and without the driver.

A process that has started the driver (`cuInit`) can no longer fork one that uses a GPU, as a study
does for each trial. The management library (NVML) counts them without it.
"""

import ctypes
import os
import subprocess
import sys
from typing import Any

NVML = ("libnvidia-ml.so.1", "nvml.dll")
DRIVER = ("libcuda.so.1", "nvcuda.dll")


def visible() -> list[str]:
    """Return the GPUs that torch finds, each as `CUDA_VISIBLE_DEVICES` would name it."""
    number, chosen = _count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not number:
        return [str(i) for i in range(number)]
    found: list[str] = []
    for name in (name.strip() for name in chosen.split(",")):
        known = name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < number)
        if not known:  # CUDA goes no further either
            break
        if name in found:  # nor does it take one twice
            return []
        found.append(name)
    return found


def _count() -> int:
    """Return how many there are, visible or not."""
    nvml = _library(NVML)
    if nvml is not None and nvml.nvmlInit_v2() == 0:
        count = ctypes.c_int(0)
        status = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        nvml.nvmlShutdown()
        if status == 0:
            return count.value
    if _library(DRIVER) is None:
        return 0
    # A container may have the driver without NVML: then a process of its own asks that.
    every = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    return int(subprocess.check_output([sys.executable, "-I", __file__], env=every))


def _count_by_driver() -> int:
    driver, count = _library(DRIVER), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _library(names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


if __name__ == "__main__":
    print(_count_by_driver())
