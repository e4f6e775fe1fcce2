"""One run, one folder: its configuration, history, checkpoints and what it says of itself."""

import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault, nearest
from litlab.utils.files import read_json, write_json
from litlab.utils.paths import not_a_file, project_root, runs_folder

RUN_FILE = "run.json"
PROCESS = "run.process"  # tag of an MLflow run: the process that records it, or did so last
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


def _now() -> str:
    """To the millisecond: two quick runs begin within one second, and one of them is the last."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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
        metrics: Those of the best epoch, by full name; one that is NaN or infinite is null there.
        num_parameters: Trainable parameters.
        data: Name and checksums of the data.
        git: Commit, dirty, branch; empty without git.
        dvc_experiment: Name of the DVC experiment, if it is one.
        environment: Versions and hardware.
        command: What repeats the run.
        resumed: How often it was interrupted and went on.
        process: The process that records it, or did so last: the tag `run.process` in MLflow.
    """

    run_id: str
    run_name: str
    experiment: str
    tracking_uri: str
    status: str = "RUNNING"
    started: str = field(default_factory=_now)
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
    resumed: int = 0
    process: str = ""

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
            content = asdict(cls(**read_json(folder / RUN_FILE)))  # no field more, none less
            if isinstance(content["metrics"], dict):  # JSON has no NaN
                values = content["metrics"].items()
                content["metrics"] = {k: math.nan if v is None else v for k, v in values}
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{RUN_FILE}: {first['loc'][0]}: {first['msg']}"
        except (OSError, ValueError, TypeError) as error:
            reason = str(error)
        fix = "name a folder under runs/"
        raise CheckpointError(f"not the folder of a run ({reason})", str(folder), fix)


def make_folder(out: Path | None, run_name: str) -> Path:
    """Make the folder of a new run: the one given, or a new one under runs/.

    Raises:
        ConfigError: The folder given is not empty. An earlier run is not overwritten; DVC clears
            the way itself before it runs a stage again.
        EnvironmentFault: It cannot be written to.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = out or runs_folder() / f"{stamp}-{run_name}"
    try:
        if out is None:
            folder = _make_new(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                is_run = (folder / RUN_FILE).is_file()
                held = "a run" if is_run else "other files"
                fix = "choose an empty one, or remove it"
                fix += ", or resume it: --resume" if is_run else ""
                raise ConfigError(f"the folder already holds {held}", f"--out {folder}", fix)
        probe = folder / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write there: {error.strerror}", str(folder), "choose another --out"
        ) from None
    return folder.resolve()


def _make_new(folder: Path) -> Path:
    """Make a folder, with a number after its name where another run was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, candidate = 2, folder
    while True:
        try:
            candidate.mkdir()
        except FileExistsError:
            candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
        else:
            return candidate


@dataclass(frozen=True)
class RunReference:
    """Where a run, or a single checkpoint, lies."""

    folder: Path
    checkpoint: Path

    @property
    def record(self) -> RunRecord | None:
        """The run's own record; a checkpoint moved away from its run has none."""
        return RunRecord.load(self.folder) if (self.folder / RUN_FILE).is_file() else None


def find(reference: str) -> RunReference:
    """Find a run: its folder, a checkpoint file, "last", its name, or the start of its MLflow id.

    The name is its folder's, or the configured one where a single run has it: a trial's is
    "<study>-0003". An id is known by its first four characters or more. A study's trials are not
    "last", unless there is nothing else.

    Raises:
        CheckpointError: There is no such run, several, or it has no checkpoint.
    """
    path = Path(reference)
    if path.is_file():
        return RunReference(path.resolve().parent, path.resolve())
    if path.is_dir():
        return _with_checkpoint(path.resolve())
    if not_a_file(path):
        what = f"is {not_a_file(path)}, not a checkpoint"
        raise CheckpointError(what, reference, "name a run or a .ckpt file")
    runs = _all_runs()
    if reference == "last" and runs:
        own = {f: r for f, r in runs.items() if f.parent == runs_folder()}
        runs = own or runs
        ended = [f for f in runs if runs[f].status != "RUNNING" and (f / BEST).is_file()]
        return _with_checkpoint(max(ended or runs, key=lambda f: (runs[f].started, f)))
    matching = [f for f in runs if f.name == reference]
    matching = matching or [f for f, record in runs.items() if _is_called(record, reference)]
    if len(matching) > 1:
        names = ", ".join(sorted(str(f.relative_to(runs_folder())) for f in matching)[:5])
        raise CheckpointError(f"several runs match: {names}", reference, "name one of them")
    if not matching:
        known = {f.name if f.parent == runs_folder() else r.run_name for f, r in runs.items()}
        hint = nearest(reference, known | {"last"}) if known else "train one first"
        raise CheckpointError("no such run or checkpoint", reference, hint)
    return _with_checkpoint(matching[0])


def _all_runs() -> dict[Path, RunRecord]:
    """Every run under runs/ that can be read; a damaged one is no reason not to find another."""
    runs = {}
    folder = runs_folder()
    for file in sorted([*folder.glob(f"*/{RUN_FILE}"), *folder.glob(f"*/*/{RUN_FILE}")]):
        with suppress(CheckpointError):
            runs[file.parent] = RunRecord.load(file.parent)
    return runs


def _is_called(record: RunRecord, reference: str) -> bool:
    starts = len(reference) >= 4 and record.run_id.startswith(reference)
    return starts or record.run_name == reference


def _with_checkpoint(folder: Path) -> RunReference:
    checkpoint = folder / BEST
    if not_a_file(checkpoint):
        what = f"is {not_a_file(checkpoint)}, not a checkpoint"
        raise CheckpointError(what, str(checkpoint), "name another run, or train it again")
    if not checkpoint.is_file():
        fix = "wait for its first epoch if it is running, else train it again"
        raise CheckpointError(f"this run has no {BEST}", str(folder), fix)
    return RunReference(folder, checkpoint)


def latest_results() -> Path:
    """Return the folder of the newest evaluation, the pipeline's or a run's; it may be unfinished.

    Raises:
        CheckpointError: There is none.
    """
    root = project_root()
    places = ("reports", "runs/*/report", "runs/*/*/report")
    files = ("metrics.json", RUN_FILE)
    found = [file for p in places for name in files for file in root.glob(f"{p}/{name}")]
    if not found:
        fix = "run `litlab evaluate` (or `dvc repro`) first"
        raise CheckpointError("nothing has been evaluated yet", str(root), fix)
    return max(found, key=lambda path: path.stat().st_mtime).parent


def is_latest(folder: Path) -> bool:
    """Whether `latest_results` finds a folder: it does not look outside the project."""
    try:
        return latest_results().resolve() == folder.resolve()
    except CheckpointError:
        return False


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an evaluation's `metrics.json` and `run.json`.

    Raises:
        CheckpointError: The run has not been evaluated, or not to the end.
    """
    needed, again = ("metrics.json", RUN_FILE, "report.html"), "run `litlab evaluate RUN` again"
    missing = [name for name in needed if not (folder / name).is_file()]
    if len(missing) == len(needed):
        fix = "run `litlab evaluate RUN` (or `dvc repro`) first"
        raise CheckpointError("no results there", str(folder), fix)
    if missing:
        what = f"the evaluation did not finish: {missing[0]} is missing"
        raise CheckpointError(what, str(folder), again)
    try:
        read = [read_json(folder / name) for name in needed[:2]]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", str(folder), again) from None
    return read[0], read[1]
