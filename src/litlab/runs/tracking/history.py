import csv
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from litlab.utils.files import write_atomically

Row = dict[str, float | None]


class History(Logger):
    """One row an epoch, kept in memory and in `history.csv`: what the curves are drawn from."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, Row] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "history"

    @property
    def version(self) -> str:
        """There is one a run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "History":
        """Lightning asks every logger for one."""
        return self

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The configuration is recorded elsewhere, whole."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge metrics into their epoch's row.

        The file is written with train/loss, which comes last; where nothing has that name, always.
        """
        if "epoch" not in metrics:  # a callback's own, such as LearningRateMonitor's, a step
            return
        epoch = int(metrics["epoch"])
        values = {k: float(v) for k, v in metrics.items() if k != "epoch"}
        self.rows.setdefault(epoch, {"epoch": epoch}).update(values)
        if "train/loss" in values or not any("train/loss" in row for row in self.rows.values()):
            write_rows(self.path, list(self.rows.values()))


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV with every column any of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue(), flush=False)  # an epoch may take less than a flush


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote; an absent file is an empty history."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {k: (float(v) if v else None) for k, v in row.items() if k}
            for row in csv.DictReader(file)
        ]
