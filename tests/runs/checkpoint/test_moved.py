"""What was written before classes moved into packages can still be read."""

import shutil
from pathlib import Path

import pytest
import torch

from litlab.config import compose, instantiate
from litlab.config.instantiate import MOVED
from litlab.evaluation.inference import load_task
from litlab.utils.errors import ConfigError

# Written by litlab before its modules were packages: a SimpleNN on synthetic images.
CHECKPOINT = Path(__file__).parent / "before_the_packages.ckpt"


def test_a_checkpoint_from_before_is_read(project: Path) -> None:
    old = torch.load(CHECKPOINT, weights_only=True)["litlab"]["config"]
    assert old["task"]["_target_"] == "litlab.task.ClassificationTask"
    loaded, task = load_task(Path(shutil.copy(CHECKPOINT, project)))
    config = loaded.metadata.config
    assert config.task["_target_"] == "litlab.tasks.task.ClassificationTask"
    assert config.optimizer["_target_"] == "litlab.tasks.optim.optimizers.adamw"
    assert config.scheduler["_target_"] == "litlab.tasks.optim.schedules.one_cycle"
    assert task.model(torch.zeros(2, 1, 12, 12)).shape == (2, 3)


def test_a_configuration_from_before_is_read(project: Path) -> None:
    now = compose.load(["data=digits", "model=mlp"])
    text = compose.dump(now.model_dump(mode="json"))
    for before, after in MOVED.items():
        text = text.replace(f"_target_: {after}", f"_target_: {before}")
    assert "litlab.task.ClassificationTask" in text
    (project / "old.yaml").write_text(text)
    assert compose.load(params=project / "old.yaml") == now


@pytest.mark.parametrize(
    "target",
    [
        "litlab.metrics.build_metrics",
        "litlab.assemble.build_model",
        "litlab.task.torch.hub.load",
        "litlab.optim.muon.torch.load",
        "litlab.targets.build",
        "litlab.losses",
    ],
)
def test_the_old_paths_allow_nothing_more(target: str) -> None:
    with pytest.raises(ConfigError):
        instantiate.locate(target, "model", ())
