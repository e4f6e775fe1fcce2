"""Trains what it is given, in one or several processes; the first writes what came out.

Started by Lightning (which starts this file again for each other process) or by torchrun:
`several_processes.py ANSWER.json TRAINING.json`, in a project's folder, where TRAINING maps names
to overrides.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torchmetrics import Metric


class Count(Metric):
    """How many samples were measured."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Count them."""
        self.total += len(targets)

    def compute(self) -> torch.Tensor:
        """Return their number."""
        return self.total


def run(trainings: dict[str, list[str]]) -> dict[str, Any]:
    """Train each; return the first process's metrics, folders and final weights."""
    from litlab.config.compose import load
    from litlab.training.run import train

    torch.set_num_threads(1)
    answers = {}
    for name, overrides in trainings.items():
        try:
            result = train(load(overrides))
        except SystemExit as ended:
            if ended.code:
                raise
            continue  # another process than the first
        weights = torch.load(result.folder / "last.ckpt", weights_only=True)["state_dict"]
        answers[name] = {
            "metrics": result.record.metrics,
            "folder": str(result.folder),
            "checkpoint": str(result.checkpoint),
            "weights": {key: value.tolist() for key, value in weights.items()},
        }
    return answers


if __name__ == "__main__":
    answer, trainings = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    if found := run(trainings):
        answer.write_text(json.dumps(found))
