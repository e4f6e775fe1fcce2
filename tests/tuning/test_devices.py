"""Which GPUs and threads the workers of a study get."""

import subprocess
import sys
from typing import Any

import pytest

from litlab.tuning.workers.devices import Slot, slots
from litlab.utils import gpus
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small

pytestmark = THIRD_PARTY


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs."""
    monkeypatch.setattr(gpus, "_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "0")  # put back after the test


def shared(workers: int, **settings: Any) -> list[tuple[str, ...]]:
    """The GPUs of each worker."""
    trainer = small().trainer.model_copy(update={"accelerator": "gpu", **settings})
    return [slot.gpus for slot in slots(trainer, workers, 8)]


VISIBLE = [
    (None, ["0", "1", "2", "3"]),
    ("", []),
    ("-1", []),
    ("2,0", ["2", "0"]),
    ("1, 7, 2", ["1"]),  # CUDA ends at the first that is none
    ("1,1", []),
    ("GPU-5ab,GPU-77c", ["GPU-5ab", "GPU-77c"]),
    ("MIG-1,MIG-2", ["MIG-1", "MIG-2"]),
]


@pytest.mark.parametrize(("chosen", "names"), VISIBLE)
def test_the_visible_gpus(monkeypatch, chosen, names) -> None:
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus.visible() == names


def test_each_worker_has_gpus_of_its_own(monkeypatch) -> None:
    assert shared(2) == [("0",), ("1",)]
    assert shared(4, devices="auto", accelerator="auto") == [("0",), ("1",), ("2",), ("3",)]
    assert shared(2, devices=2) == [("0", "1"), ("2", "3")]
    assert shared(2, devices=[3, 1]) == [("3",), ("1",)]
    assert shared(1, devices=[3, 1]) == [("3", "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert shared(2) == [("GPU-a",), ("GPU-b",)]


def test_without_gpus_the_workers_share_the_cpu(monkeypatch) -> None:
    assert shared(3, accelerator="cpu") == [(), (), ()]
    assert shared(3, accelerator="mps") == [(), (), ()]
    monkeypatch.setattr(gpus, "_count", lambda: 0)
    assert shared(3, accelerator="auto") == [(), (), ()]
    trainer = small().trainer
    assert [slot.threads for slot in slots(trainer, 3, 8)] == [2, 2, 2]
    assert [slot.threads for slot in slots(trainer, 3, 2)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("workers", "settings", "what", "fix"),
    [
        (5, {}, "5 GPUs are needed .5 workers, 1 each., there are 4", "study.workers=4"),
        (
            3,
            {"devices": 2},
            "6 GPUs are needed .3 workers, 2 each., there are 4",
            "study.workers=2",
        ),
        (3, {"devices": [0, 2]}, "3 GPUs are needed .* there are 2", "study.workers=2"),
        (1, {"devices": 5}, "5 GPUs are needed .* there are 4", "trainer.devices=4"),
        (1, {"num_nodes": 2}, "a trial trains on one machine, not on 2", "trainer.num_nodes=1"),
    ],
)
def test_more_than_there_is(workers, settings, what, fix) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        shared(workers, **settings)
    assert error.value.fix == fix
    assert error.value.exit_code == 2


def test_a_trial_sees_its_own_gpus_alone(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    config = small()
    assert Slot(2).take(config) is config
    assert Slot(2, ("4",)).take(config) is config  # accelerator=cpu
    on_gpu = config.trainer.model_copy(update={"accelerator": "gpu", "devices": "auto"})
    config = config.model_copy(update={"trainer": on_gpu})
    assert Slot(2, ("5", "7")).take(config).trainer.devices == 2
    assert gpus.os.environ["CUDA_VISIBLE_DEVICES"] == "5,7"


ASK = """
import sys
from litlab.config.compose import load
from litlab.tuning.workers.devices import slots
config = load(["data=synthetic", "trainer=cpu", "trainer.accelerator=auto"])
slots(config.trainer, 1, 2)
import torch
assert not torch.cuda.is_initialized()
assert "libcuda.so" not in open("/proc/self/maps").read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_driver_is_left_to_the_trials(project) -> None:
    subprocess.run([sys.executable, "-c", ASK], check=True)


@pytest.mark.parametrize(("status", "number"), [(0, 3), (999, 2)])
def test_without_nvml_another_process_asks_the_driver(monkeypatch, status, number) -> None:
    monkeypatch.undo()

    class Library:
        nvmlInit_v2 = staticmethod(lambda: status)
        nvmlShutdown = staticmethod(lambda: 0)

        @staticmethod
        def nvmlDeviceGetCount_v2(pointer: Any) -> int:
            pointer._obj.value = 3
            return 0

    monkeypatch.setattr(gpus, "_library", lambda _: Library)
    monkeypatch.setattr(gpus.subprocess, "check_output", lambda *_, **__: b"2\n")
    assert gpus._count() == number


def test_what_the_other_process_says() -> None:
    said = subprocess.check_output([sys.executable, "-I", gpus.__file__])
    assert int(said) == gpus._count_by_driver()
