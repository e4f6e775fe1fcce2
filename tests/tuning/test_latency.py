"""The time of one forward pass, and what is left out of it."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from litlab.data.loading import of_values
from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import BEST
from litlab.tuning.workers import latency
from litlab.utils.errors import CheckpointError
from run_helpers import THIRD_PARTY, small_run

pytestmark = THIRD_PARTY


class Slow(torch.nn.Module):
    """Takes ten milliseconds, after a first pass that takes longer."""

    def __init__(self) -> None:
        super().__init__()
        self.passes, self.threads = list[torch.Size](), set[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Note how it is called."""
        assert torch.is_inference_mode_enabled()
        time.sleep(0.01 if self.passes else 0.3)
        self.threads.add(torch.get_num_threads())
        self.passes.append(x.shape)
        return x


def test_the_median_of_many_passes_on_one_thread(monkeypatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.1)
    module: Any = Slow()
    torch.set_num_threads(2)
    try:
        found = latency._time(module, torch.zeros(1, 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert 10 <= found < 20
    assert len(module.passes) == latency.WARM_UP + latency.PASSES
    assert module.threads == {1}


def test_a_slow_one_is_not_waited_for_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(latency, "LONGEST", 0.1)
    module: Any = Slow()
    assert latency._time(module, torch.zeros(1, 3)) >= 10
    assert len(module.passes) < latency.WARM_UP + 15


def test_of_texts_the_one_of_median_length() -> None:
    import numpy as np

    texts: Any = [np.arange(length) for length in (9, 2, 5, 7, 1)]
    assert latency._sample(of_values(texts)).shape == (1, 5)
    assert latency._sample(of_values(np.zeros((4, 3)))).shape == (1, 3)


def test_of_a_run(project: Path, monkeypatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    run = small_run(project).folder
    seen: list[Any] = []
    timed = latency._time
    monkeypatch.setattr(latency, "_time", lambda task, x: seen.append((task, x)) or timed(task, x))
    assert 0 < latency.milliseconds(run, []) < 100
    task, x = seen[0]
    assert x.shape == (1, 1, 12, 12)
    assert not task.training
    best = load(run / BEST).weights
    assert all(torch.equal(value, best[name]) for name, value in task.state_dict().items())
    (run / BEST).unlink()
    with pytest.raises(CheckpointError):
        latency.milliseconds(run, [])
