"""One run, one folder: its configuration, history, checkpoints and what it says of itself."""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from litlab.errors import CheckpointError, EnvironmentFault, nearest
from litlab.paths import runs_folder

RUN_FILE = "run.json"
BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass
class RunRecord:
    """What `run.json` holds, so that a run restored from DVC's cache still names its origin.

    Attributes:
        run_id: MLflow's.
        run_name: For people.
        experiment: MLflow's experiment.
        tracking_uri: Where the run is recorded, without credentials.
        status: RUNNING, FINISHED, FAILED or KILLED.
        started: UTC, ISO 8601.
        seconds: Duration of the fit.
        best_epoch: The epoch that `best.ckpt` is of, counted from 0.
        epochs: How many epochs were trained.
        metrics: Those of the best epoch, by full name.
        num_parameters: Trainable parameters.
        data: Name and checksums of the data.
        git: Commit, dirty, branch; empty without git.
        dvc_experiment: Name of the DVC experiment, if it is one.
        environment: Versions and hardware.
        command: What repeats the run.
    """

    run_id: str
    run_name: str
    experiment: str
    tracking_uri: str
    status: str = "RUNNING"
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    best_epoch: int | None = None
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    num_parameters: int = 0
    data: dict[str, str] = field(default_factory=dict)
    git: dict[str, str] = field(default_factory=dict)
    dvc_experiment: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write `run.json`."""
        write_json(folder / RUN_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read `run.json`.

        Raises:
            CheckpointError: The folder is not a run's.
        """
        try:
            content: dict[str, Any] = json.loads((folder / RUN_FILE).read_text())
            return cls(**content)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"not the folder of a run ({error})", str(folder), "name a folder under runs/"
            ) from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def make_folder(out: Path | None, run_name: str) -> Path:
    """Make the folder of a new run: the one given, emptied of an earlier run, or a new one.

    Raises:
        EnvironmentFault: It cannot be written to, or holds something else than a run.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    # A second process of the same run (Lightning's ddp starts them) finds the first one's folder.
    given = os.environ.get("LITLAB_RUN_FOLDER")
    folder = Path(given) if given else out or _unused(runs_folder() / f"{stamp}-{run_name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not given:
            _empty(folder)
            probe = folder / ".probe"
            probe.write_bytes(b"")
            probe.unlink()
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write there: {error.strerror}", str(folder), "choose another --out"
        ) from None
    return folder.resolve()


def _unused(folder: Path) -> Path:
    number, candidate = 2, folder
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


OWN_FILES = re.compile(r"run\.json|config\.yaml|history\.csv|(best|last)\.ckpt|report|tensorboard")


def _empty(folder: Path) -> None:
    content = list(folder.iterdir())
    if any(not OWN_FILES.fullmatch(path.name) for path in content):
        raise EnvironmentFault(
            "the folder holds other things than a run", str(folder), "choose an empty --out"
        )
    for path in content:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class Found:
    """Where a run, or a single checkpoint, lies."""

    folder: Path
    checkpoint: Path

    @property
    def record(self) -> RunRecord | None:
        """The run's own record; a checkpoint moved away from its run has none."""
        return RunRecord.load(self.folder) if (self.folder / RUN_FILE).is_file() else None


def find(reference: str) -> Found:
    """Find a run: its folder, a checkpoint file, "last", its name, or the start of its MLflow id.

    Raises:
        CheckpointError: There is no such run, several, or it has no checkpoint.
    """
    path = Path(reference)
    if path.is_file():
        return Found(path.resolve().parent, path.resolve())
    if path.is_dir():
        return _with_checkpoint(path.resolve())
    folders = [file.parent for file in runs_folder().glob(f"*/{RUN_FILE}")]
    if reference == "last" and folders:
        return _with_checkpoint(max(folders, key=lambda f: RunRecord.load(f).started))
    matching = [f for f in folders if f.name == reference or _is_called(f, reference)]
    if len(matching) > 1:
        names = ", ".join(sorted(f.name for f in matching)[:5])
        raise CheckpointError(f"several runs match: {names}", reference, "name one of them")
    if not matching:
        hint = nearest(reference, [f.name for f in folders]) if folders else "train one first"
        raise CheckpointError("no such run or checkpoint", reference, hint)
    return _with_checkpoint(matching[0])


def _is_called(folder: Path, reference: str) -> bool:
    return len(reference) >= 4 and RunRecord.load(folder).run_id.startswith(reference)


def _with_checkpoint(folder: Path) -> Found:
    checkpoint = folder / BEST
    if not checkpoint.is_file():
        raise CheckpointError(f"this run left no {BEST}", str(folder), "train it again")
    return Found(folder, checkpoint)


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an evaluation's `metrics.json` and `run.json`.

    Raises:
        CheckpointError: The run has not been evaluated.
    """
    try:
        read = [json.loads((folder / name).read_text()) for name in ("metrics.json", RUN_FILE)]
    except (OSError, ValueError):
        raise CheckpointError(
            "no results there", str(folder), "run `litlab evaluate RUN` (or `dvc repro`) first"
        ) from None
    return read[0], read[1]
