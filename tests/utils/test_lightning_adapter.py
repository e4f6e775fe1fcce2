"""A Lightning whose private names have changed still trains, with one warning."""

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from litlab.runs.checkpoint.metadata import load
from litlab.training.loop import FitLoop
from litlab.utils import lightning_adapter
from run_helpers import THIRD_PARTY, small, small_run, trainer_of

pytestmark = THIRD_PARTY
SRC = Path(__file__).parents[2] / "src"
IMPORTS = (
    "_FitLoop",
    "_TrainingEpochLoop",
    "_block_parallel_sync_behavior",
    "_SignalConnector",
    "_SubprocessScriptLauncher",
    "_set_num_threads_if_needed",
)
GROUPS = ("LOOP", "SIGNALS", "RESTORING")


def names(group: str) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(lightning_adapter, group)
    return found


def test_nothing_is_missing_here(project: Path) -> None:
    trainer, _ = trainer_of(small("trainer=ddp_cpu", "trainer.progress=none"), project)
    assert lightning_adapter.missing(trainer) == []
    assert isinstance(trainer.fit_loop, FitLoop)


@pytest.mark.parametrize("path", [path for group in GROUPS for path in names(group)])
def test_without_an_attribute_it_trains_all_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for group in GROUPS:
        changed = tuple(f"{p}_renamed" if p == path else p for p in names(group))
        monkeypatch.setattr(lightning_adapter, group, changed)
    with pytest.warns(UserWarning, match=f"has no {path}_renamed") as warned:
        trainer, _ = trainer_of(small(), project)
    assert len([w for w in warned if "_renamed" in str(w.message)]) == 1
    assert isinstance(trainer.fit_loop, FitLoop) == (path not in lightning_loop())


def lightning_loop() -> tuple[str, ...]:
    return tuple(p for g in ("LOOP",) for p in ORIGINAL[g])


ORIGINAL = {group: names(group) for group in GROUPS}


@pytest.mark.parametrize("name", IMPORTS)
def test_without_an_import_it_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lightning_adapter, "ABSENT", [name])
    with pytest.warns(UserWarning, match=f"has no {name}"):
        trainer, _ = trainer_of(small(), project)
    assert isinstance(trainer.fit_loop, FitLoop) == (name not in lightning_adapter.LOOP_IMPORTS)


def test_lightnings_own_loop_ends_with_the_same_weights(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = small_run(project, "trainer.max_epochs=4", "optimizer.lr=0.3")
    monkeypatch.setattr(lightning_adapter, "ABSENT", ["_FitLoop", "_SignalConnector"])
    with pytest.warns(UserWarning, match="Lightning's own loop trains"):
        stock = small_run(project, "trainer.max_epochs=4", "optimizer.lr=0.3")
    assert stock.record.status == "FINISHED"
    assert stock.record.best_epoch == ours.record.best_epoch
    assert stock.record.epochs == 4
    assert stock.record.metrics == ours.record.metrics
    for name in ("best.ckpt", "last.ckpt"):
        one, other = load(ours.folder / name), load(stock.folder / name)
        assert one.epoch == other.epoch
        assert all(torch.equal(w, other.weights[n]) for n, w in one.weights.items())


WITHOUT = """
import importlib, sys, warnings
import lightning.pytorch as pl
places = [(importlib.import_module(place), name) for place, name in {places}]
whole = [getattr(module, name) for module, name in places]
for module, name in places:
    delattr(module, name)
import litlab.utils.lightning_adapter
for (module, name), value in zip(places, whole):  # Lightning uses them itself
    setattr(module, name, value)
warnings.simplefilter("ignore")
from litlab.cli.main import main
sys.argv = ["litlab", "train", *{overrides}]
main()
"""
PLACES = [
    ("lightning.pytorch.loops.fit_loop", "_FitLoop"),
    ("lightning.pytorch.loops.training_epoch_loop", "_TrainingEpochLoop"),
    ("lightning.pytorch.loops.utilities", "_block_parallel_sync_behavior"),
    ("lightning.pytorch.trainer.connectors.signal_connector", "_SignalConnector"),
    ("lightning.pytorch.strategies.launchers.subprocess_script", "_SubprocessScriptLauncher"),
    ("lightning.fabric.utilities.distributed", "_set_num_threads_if_needed"),
]


def test_without_any_of_the_imports_it_trains_all_the_same(project: Path) -> None:
    from run_helpers import SMALL

    assert [name for _, name in PLACES] == list(IMPORTS)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(places=PLACES, overrides=list(SMALL))],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(project.glob("runs/*/best.ckpt"))) == 1


def private_names(tree: ast.AST) -> set[str]:
    """Names that are private to Lightning, as far as they can be told from our own."""
    known = {part for group in ORIGINAL.values() for path in group for part in path.split(".")}
    known = {name for name in known if name.startswith("_")}
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & known
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
            found |= {alias.name for alias in node.names if alias.name.startswith("_")}
    return found


def test_private_names_are_used_in_one_module() -> None:
    users: dict[str, Any] = {}
    with warnings.catch_warnings():
        for path in sorted((SRC / "litlab").rglob("*.py")):
            if found := private_names(ast.parse(path.read_text())):
                users[path.name] = found
    assert list(users) == ["lightning_adapter.py"]
