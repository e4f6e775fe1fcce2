"""Preparing what does not fit in memory, in a process of its own whose memory is watched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
ALLOWED = 100  # MiB
CODE = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
import litlab.data.prepare.prepare as p
from litlab.data.raw import Raw
from litlab.config.schema import DataConfig


class Endless:
    dtype = np.dtype("float32")

    def __init__(self, number):
        self.shape = (number, 4, 4096)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return np.stack([np.full(self.shape[1:], r, np.float32) for r in rows])


class Source:
    def __init__(self, number):
        self.number = number

    def read(self):
        number = self.number
        return Raw(
            kind="sequence", task="classification",
            parts={"all": (Endless(number), np.arange(number) % 2)},
            classes=["even", "odd"], licence="mine", origin="here",
        )


config = DataConfig(name="large", source={"_target_": "x.y"}, val_fraction=0.2, test_fraction=0.2,
                    split_seed=0, stratify=True)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
p.build = lambda *_, **__: Source(200)
p.prepare(config, Path("small"))  # imports are not what is measured
before = peak()
p.build = lambda *_, **__: Source(16_000)  # of 64 KiB: 1,000 MiB
spec = p.prepare(config, Path("large"))
print(json.dumps({"grown": peak() - before, "mean": spec.mean, "sizes": spec.sizes}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_ten_times_the_memory_is_prepared_in_bounded_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    written = sum(path.stat().st_size for path in (tmp_path / "large").iterdir())
    assert written > 10 * ALLOWED * 2**20 * 0.99
    assert found["grown"] < ALLOWED
    assert "writing train" in done.stderr or found["sizes"]["train"] == 10_240
