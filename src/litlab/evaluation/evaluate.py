"""The only door to the test split."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from litlab.data.loading import Split, open_split
from litlab.data.spec import FILE_NAME, DataSpec
from litlab.evaluation.inference import Outputs, load_task, run, views_of
from litlab.evaluation.language_model import TokenOutputs, read
from litlab.evaluation.results import FILES, UNKNOWN, Results, write_results
from litlab.evaluation.several_labels import thresholds_of
from litlab.runs.checkpoint.metadata import Loaded
from litlab.runs.folder import BEST, LAST, RUN_FILE, RunRecord, RunReference, find
from litlab.runs.lock import writing_to
from litlab.runs.tracking.address import tracking_uri
from litlab.runs.tracking.history import read_rows
from litlab.runs.tracking.mlflow_logger import MLflowLogger
from litlab.runs.tracking.open_runs import close_records, close_runs
from litlab.tasks.metrics import EpochMeter
from litlab.tasks.task import Task
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from litlab.utils.files import read_json
from litlab.utils.output import command, number
from litlab.utils.paths import PIPELINE, prepared_folder, results_folder, short, store_root
from litlab.utils.redact import redact


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Results on the test split, and where they were written.

    `thresholds` are those of several labels a sample, by label; empty for other tasks.
    """

    metrics: dict[str, float]
    folder: Path
    found: RunReference
    record: RunRecord
    all_sent: bool
    thresholds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        metrics = ", ".join(f"test/{k} {number(v)}" for k, v in self.metrics.items())
        return f"Evaluation({metrics}, {short(self.folder)})"


def evaluate(
    reference: str,
    out: Path | None = None,
    trust: Sequence[str] = (),
    tta: int = 0,
    task: Task | None = None,
) -> Evaluation:
    """Measure a run's best checkpoint on the test split, write its report, add both to its run.

    Args:
        reference: Run or checkpoint, as `litlab.runs.folder.find` takes it.
        out: Folder for the results; see `paths.results_folder` if None.
        trust: The user's own packages that the checkpoint may name.
        tta: Augmented views to average each prediction over (test-time augmentation).
        task: A task that was made in Python, for the checkpoint's weights; built from the
            checkpoint if None.

    Raises:
        ConfigError: Views are asked for, and the run has no augmentation; `out` holds other files.
        CheckpointError: There is no such run, or its checkpoint cannot be used.
        DataError: The prepared data are not those the run was trained on.
        EnvironmentFault: The results cannot be written.
    """
    if out is not None:
        _refuse_other_files(out)
    close_records()
    found = find(reference)
    loaded, task = load_task(found.checkpoint, trust, task)
    spec = loaded.metadata.spec
    split = _test_split(spec, found.folder)
    config = loaded.metadata.config
    views, size = views_of(config, spec, tta), config.loader.eval_batch_size
    outputs: Outputs | TokenOutputs
    if spec.task == "language_model":
        metrics, outputs = read(task, spec, split, size)
    else:
        outputs = run(task, spec, split, size, views)
        metrics = measure(task, outputs, split.y)
    record = _record(found, loaded, task)
    if record.status in ("RUNNING", "FAILED", "KILLED"):
        warnings.warn(f"the run is {record.status}: evaluating its best epoch so far", stacklevel=2)
    folder = out or results_folder(found.folder)
    if found.checkpoint.name != BEST and out is None:  # its numbers are not the run's
        folder = folder.with_name(f"{folder.name}-{found.checkpoint.stem}")
    if tta and out is None:
        folder = folder.with_name(f"{folder.name}-tta{tta}")
    try:
        results = Results(found, folder, loaded, record, task, split, outputs, metrics)
        with writing_to(folder):
            files = write_results(results)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write there: {error.strerror}", str(folder), "choose another --out"
        ) from None
    prefix, files = (f"test_tta{tta}", []) if tta else ("test", files)
    sent = _send(found, loaded, record, {f"{prefix}/{k}": v for k, v in metrics.items()}, files)
    return Evaluation(metrics, folder, found, record, sent, thresholds_of(task, spec))


def _refuse_other_files(out: Path) -> None:
    """Replace an evaluation only: a folder may hold a `config.yaml` of another kind."""
    held = [name for name in (*FILES, RUN_FILE) if (out / name).exists()]
    if held and not _is_evaluation(out):
        what = (
            f"the folder holds a {held[0]} that is not from an evaluation and would be overwritten"
        )
        raise ConfigError(what, f"--out {out}", "choose an empty folder")


def _is_evaluation(folder: Path) -> bool:
    """Whether a folder's record is that of an evaluation, which names its checkpoint."""
    try:
        return "checkpoint" in read_json(folder / RUN_FILE)
    except (OSError, ValueError, TypeError):
        return False


def measure(task: Task, outputs: Outputs, targets: torch.Tensor) -> dict[str, float]:
    """Return loss and metrics over all samples at once."""
    meter = EpochMeter(task.test_metrics())
    task = task.cpu()
    loss = task.loss(outputs.raw, task.targets_for_loss(targets))
    meter.add(loss, *task.measured(outputs.raw, targets))
    return meter.compute()


def _test_split(spec: DataSpec, run: Path) -> Split:
    """Open the test split, if it is the one that was set aside when the network was trained."""
    own, name = prepared_folder(spec.name), "test.safetensors"
    for folder in (own, prepared_folder(PIPELINE)):
        if (folder / FILE_NAME).is_file() and _same_test_split(DataSpec.load(folder), spec, name):
            return open_split(folder, spec, "test")
    what = "the run's prepared data are missing"
    if (own / FILE_NAME).is_file():
        what = (
            "prepared again since the run: its test split differs, and may hold samples that "
            "the network was trained on"
        )
    raise DataError(what, str(own), _prepare_again(run))


def _same_test_split(present: DataSpec, spec: DataSpec, name: str) -> bool:
    """Whether two specs set aside the same samples, with the same contents."""
    one, other = ((s.split_hash, s.checksums.get(name)) for s in (present, spec))
    return one == other


def _prepare_again(run: Path) -> str:
    config = run / "config.yaml"
    if not config.is_file():  # a checkpoint away from its run
        return "prepare the data with the settings of the run, or train again"
    how = command("prepare", "--params", short(config))
    return f"prepare the data as they were with `{how}`, or train again"


def _record(found: RunReference, loaded: Loaded, task: Task) -> RunRecord:
    """The run's own record, if the checkpoint is of that run; else what the checkpoint tells."""
    record, metadata = found.record, loaded.metadata
    if record is not None and record.run_id == metadata.run_id:
        if found.checkpoint.name == BEST:
            return record
        rows = {row.get("epoch"): row for row in read_rows(found.folder / "history.csv")}
        row = rows.get(float(loaded.epoch), {})
        values = {k: v for k, v in row.items() if "/" in k and v is not None}
        return replace(record, best_epoch=loaded.epoch, metrics=values)
    return RunRecord(
        run_id=metadata.run_id,
        run_name=metadata.config.run_name,
        experiment=metadata.config.tracking.experiment,
        tracking_uri=redact(tracking_uri(None, store_root())),
        status=UNKNOWN,
        best_epoch=loaded.epoch,
        num_parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
        data={"name": metadata.spec.name},
    )


def _send(
    found: RunReference,
    loaded: Loaded,
    record: RunRecord,
    metrics: dict[str, float],
    files: list[Path],
) -> bool:
    """Add test metrics and files to the run; say whether the store took them."""
    if found.checkpoint.name == LAST:
        warnings.warn(
            f"{LAST} is not the run's best: its metrics are not sent to MLflow", stacklevel=3
        )
        return True
    tracking = loaded.metadata.config.tracking
    # A checkpoint by itself may come from a stranger, who does not choose where results are sent.
    uri = tracking_uri(tracking.uri if found.record else None, store_root())
    logger = MLflowLogger(uri, tracking.experiment, store_root() / "mlartifacts", record.run_id)
    try:
        known = bool(found.record) or logger.has_run()
    except EnvironmentFault as error:
        warnings.warn(f"the run could not be looked up: {error.what}", stacklevel=3)
        return False
    if not known:
        warnings.warn("this checkpoint's run is not in the tracking store", stacklevel=3)
        return True
    epoch = float(loaded.epoch)
    logger.log_metrics({**metrics, "epoch": epoch})
    if logger.pending:
        return False
    close_runs(logger.client, logger.uri)
    for path in files:
        logger.log_artifact(path, "report")
    return not logger.missing
