"""The bar is drawn by the clock, and for the last batch of an epoch in any case."""

import json
import re
from types import SimpleNamespace

from lightning.pytorch.callbacks import RichProgressBar

from litlab.runs.tracking.history import read_rows
from litlab.training.callbacks import progress
from run_helpers import SMALL, THIRD_PARTY, only_run, ready_store

pytestmark = THIRD_PARTY


def test_the_bar_is_drawn_a_few_times_a_second(monkeypatch) -> None:
    drawn, now = list[int](), [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(progress.Bar, "total_train_batches", 100)
    monkeypatch.setattr(
        RichProgressBar, "on_train_batch_end", lambda self, *args: drawn.append(args[-1])
    )
    bar = progress.Bar()
    for batch_idx in range(100):
        bar.on_train_batch_end(None, None, {}, None, batch_idx)
        now[0] += progress.SECONDS / 10
    assert drawn[0] == 0
    assert drawn[-1] == 99
    assert 9 <= len(drawn) <= 12


def test_the_bar_counts_epochs_from_1(monkeypatch) -> None:
    monkeypatch.setattr(progress.Bar, "trainer", SimpleNamespace(max_epochs=10))
    monkeypatch.setattr(progress.Bar, "validation_description", "Validation")
    shown = [progress.Bar()._get_train_description(epoch) for epoch in (0, 9)]
    assert shown == ["Epoch 1/10", "Epoch 10/10"]


def test_a_run_s_lines_count_epochs_from_1_and_its_files_from_0(project, litlab) -> None:
    ready_store(project)
    words = [o for o in SMALL if "progress" not in o]
    code, out, err = litlab("train", *words, "trainer.max_epochs=3", "--json")
    assert code == 0, err
    assert re.findall(r"^epoch +(\d)/3 ", err, flags=re.M) == ["1", "2", "3"]
    said = json.loads(out)
    best, epochs = re.search(r"^best epoch (\d+) of (\d+): ", err, flags=re.M).groups()
    assert (int(best), int(epochs)) == (said["best_epoch"] + 1, 3)
    rows = read_rows(only_run(project) / "history.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    losses = [row["val/loss"] for row in rows]
    assert losses.index(min(losses)) == said["best_epoch"]
