import random

import numpy as np
import torch

from litlab.runs.checkpoint import io
from litlab.utils import seeding


def draw() -> list:
    normal = np.random.standard_normal()  # noqa: NPY002 - has a cached second value
    return [random.random(), random.gauss(0, 1), normal, torch.rand(3).tolist()]


def test_states_go_out_and_in_through_a_file(tmp_path) -> None:
    draw()  # an odd number of normal numbers: the generators hold the next one back
    io.write({"rng": seeding.state()}, tmp_path / "rng.ckpt")
    expected = [draw() for _ in range(3)]
    seeding.restore(io.read(tmp_path / "rng.ckpt")["rng"])
    assert [draw() for _ in range(3)] == expected
