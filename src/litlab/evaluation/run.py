"""The public `Run`: a run's record, metrics, evaluation and predictions."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.config.compose import read, trusted_packages
from litlab.config.constraints import GIVEN
from litlab.config.instantiate import locate
from litlab.runs.folder import BEST, RUN_FILE, RunRecord, find
from litlab.runs.tracking.address import tracking_uri
from litlab.runs.tracking.history import read_rows
from litlab.tasks.own_module import is_array_source, is_known_task
from litlab.tasks.task import Task
from litlab.utils.errors import CheckpointError, ConfigError, LitlabError, nearest, require
from litlab.utils.output import number
from litlab.utils.paths import short, store_root

if TYPE_CHECKING:
    import pandas as pd

    from litlab.evaluation.evaluate import Evaluation


LOADED = 'give a folder, a name, the id of a run, or "last"'
QUERY = 'write e.g. "metrics.`best/val/accuracy` > 0.9"; see docs/python.md'


def require_trust(trust: object) -> None:
    """Refuse `trust="my_package"`, which would be one package for each letter.

    Raises:
        ConfigError: It is no list.
    """
    require(trust, (list, tuple), "trust", 'give a list: trust=["my_package"]')


@dataclass(frozen=True, repr=False)
class Run:
    """A run: trained just now by `litlab.train`, or an earlier one (`Run.load`, `litlab.runs`).

    Attributes:
        folder: The run's folder.
        checkpoint: The weights of the best epoch.
        record: What `run.json` says: status, seconds, environment, git commit, ...
        all_sent: Whether the tracking store has all of it.
        trust: The user's own packages that the checkpoint names.
        task: The litlab task that was given to `litlab.train`, where one was. `evaluate` and
            `predict` put the best epoch's weights into it.
    """

    folder: Path
    checkpoint: Path
    record: RunRecord
    all_sent: bool = True
    trust: tuple[str, ...] = ()
    task: Task | None = None

    @classmethod
    def load(
        cls,
        reference: str | Path = "last",
        trust: Sequence[str] = (),
        task: Task | None = None,
    ) -> "Run":
        """Return an earlier run.

        Args:
            reference: Its folder, its name, the start of its MLflow id (four characters or more), a
                checkpoint file in its folder, or "last".
            trust: Packages of your own that its checkpoint may name, besides those that the
                project's configuration trusts.
            task: The litlab task that the run trained, where it was given to `litlab.train`.

        Raises:
            CheckpointError: There is no such run, there are several, or it has no checkpoint.
        """
        require(reference, (str, Path), "litlab.Run.load(reference)", LOADED)
        require_trust(trust)
        found = find(str(reference))
        record = found.record
        if record is None:
            what, fix = f"there is no {RUN_FILE} beside it", "name a run's folder"
            raise CheckpointError(what, str(found.checkpoint), fix)
        packages = tuple(trusted_packages(trust))
        return cls(found.folder, found.checkpoint, record, trust=packages, task=task)

    @cached_property
    def can_evaluate(self) -> bool:
        """Whether task, model and data are litlab's or derived from them, as `evaluate` needs.

        False if a class of the user's own cannot be imported, or is in a package not trusted.
        """
        try:
            content = read(self.folder / "config.yaml")
            task, model = content["task"]["_target_"], content["model"]["_target_"]
            data = content["data"]["source"]["_target_"]
            if is_array_source(data, self.trust) and task == GIVEN:
                return self.task is not None
            locate(model, "model", self.trust)
            return is_array_source(data, self.trust) and is_known_task(task, self.trust)
        except (LitlabError, KeyError, TypeError):
            return False

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self.record.run_id

    @property
    def name(self) -> str:
        """The run's name, `<data>-<model>` unless it has a given name."""
        return self.record.run_name

    @property
    def metrics(self) -> dict[str, float]:
        """Training and validation metrics of the best epoch, by names such as "val/accuracy"."""
        return dict(self.record.metrics)

    @property
    def history(self) -> "pd.DataFrame":
        """One row per epoch: "epoch" (from 0, as in MLflow), "train/loss", "val/accuracy", ...

        Without rows where no epoch was finished.
        """
        import pandas as pd

        rows = read_rows(self.folder / "history.csv")
        return pd.DataFrame(rows or {"epoch": []}).astype({"epoch": "int64"})

    def evaluate(self, out: Path | None = None, *, tta: int = 0) -> "Evaluation":
        """Measure the run on the test split, write its report, and add both to its record.

        Args:
            out: Folder for the results; the run's `report/` if None.
            tta: Augmented views to average each prediction over (test-time augmentation).

        Returns:
            `metrics` (such as "accuracy"; loss in nats or squared units) and `folder`, where
            `report.html`, `metrics.json` and `predictions.csv` are.

        Raises:
            CheckpointError: The checkpoint cannot be used.
            ConfigError: Views are asked for, and the run has no augmentation.
            DataError: The prepared data are not those that the run was trained on.
            EnvironmentFault: The results cannot be written.
        """
        from litlab.evaluation.evaluate import evaluate

        require(tta, int, "run.evaluate(tta)", "give a number of views: tta=8")
        out = None if out is None else Path(out)
        return evaluate(str(self.checkpoint), out, self.trust, tta, self.task)

    def predict(self, values: Any, *, resize: bool = False) -> "pd.DataFrame":
        """Return predictions for new data, one row per sample.

        Args:
            values: An array or tensor `(N, *shape)` in the units of the raw data (images: bytes
                from 0 to 255), a DataFrame with the feature or text column by name, a path of a
                file or folder, or a list of paths, of texts, or of arrays of one shape.
            resize: Whether to resize images that differ.

        Returns:
            For classes, the columns "input", "prediction", "confidence" (from 0 to 1) and a
            probability "p(CLASS)" for each class; for several labels, "input", the list "labels"
            and each one's probability "p(LABEL)"; else "input" and each target in its own unit.

        Raises:
            CheckpointError: The checkpoint cannot be used, or is of a language model.
            DataError: The values do not fit what the network was trained on.
        """
        from litlab.evaluation.predict import predictions

        return predictions(self.checkpoint, values, resize=resize, trust=self.trust, task=self.task)

    def generate(self, prompt: str = "", *, max_tokens: int = 500, **settings: Any) -> str:
        """Generate text with a language model.

        Args:
            prompt: What the text begins with.
            max_tokens: How many tokens to write.
            settings: `temperature` (0 takes the likeliest token), `top_k`, `top_p`, `seed`.

        Raises:
            CheckpointError: The run is of no language model.
            ConfigError: A setting is out of range.
        """
        from litlab.evaluation.language_model import generate

        require(prompt, str, "run.generate(prompt)", 'give a text: "It was"')
        require(max_tokens, int, "run.generate(max_tokens)", "give a number: max_tokens=100")
        return generate(
            str(self.checkpoint),
            prompt,
            max_tokens=max_tokens,
            trust=self.trust,
            task=self.task,
            **settings,
        )

    def facts(self) -> dict[str, Any]:
        """Return what `litlab train --json` prints."""
        names = ("run_id", "metrics", "seconds", "best_epoch", "epochs", "num_parameters")
        facts = {name: getattr(self.record, name) for name in (*names, "resumed")}
        return {**facts, "checkpoint": str(self.checkpoint), "folder": str(self.folder)}

    def __repr__(self) -> str:
        shown = [f"{k} {number(v)}" for k, v in self.metrics.items() if not k.startswith("train/")]
        parts = (self.name, self.record.status, *shown, short(self.folder))
        return f"Run({', '.join(parts)})"


class Runs(list[Run]):
    """What `litlab.runs` has found: a list that prints one run per line."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no runs"


def runs(query: str = "", *, uri: str | None = None, trust: Sequence[str] = ()) -> Runs:
    """Search the project's runs in MLflow, the newest first.

    Args:
        query: MLflow's own filter, such as "metrics.`val/accuracy` > 0.97" (the last epoch's),
            "metrics.`best/val/accuracy` > 0.97" (the best epoch's, which is what `Run.metrics`
            has), "params.`model._target_` LIKE '%CNN'", "attributes.status = 'FINISHED'", and
            several of them joined by "and". All runs if empty.
        uri: The tracking store, as `tracking.uri`; MLFLOW_TRACKING_URI, or the project's own, if
            None.
        trust: Packages of your own that checkpoints may name, besides those that the project's
            configuration trusts.

    Returns:
        A list of the runs whose folders are on this machine, trials of studies among them.

    Raises:
        ConfigError: MLflow does not understand the query.
        EnvironmentFault: The store cannot be reached.
    """
    from litlab.runs.tracking.mlflow_logger import MLflowLogger

    require(query, str, "litlab.runs(query)", QUERY)
    require_trust(trust)
    root, gone = store_root(), 0
    address = tracking_uri(uri, root)
    own = root / "mlflow.db"
    if address == f"sqlite:///{own}" and not own.is_file():
        return Runs()  # nothing was recorded yet, and a query would create the file
    client = MLflowLogger(address, "", root / "mlartifacts").client
    packages = tuple(trusted_packages(trust))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    here, matching = Runs(), 0
    for one in _search(client, experiments, query):
        matching += 1
        tag = one.data.tags.get("run.folder")
        run = _run_in(Path(tag), one.info.run_id, packages) if tag else None
        if run is not None:
            here.append(run)
        elif tag:
            gone += 1
    if not matching:
        for unknown in _unknown_names(client, experiments, query):
            warnings.warn(unknown, stacklevel=3)  # by litlab.runs(...)
    if gone:
        what = f"{gone} more runs match, but their folders are not here, or hold a later run"
        warnings.warn(what, stacklevel=2)
    return here


# A name in a query, with what it is of, before a comparison.
NAMED = re.compile(
    r"(?:\b(metrics?|params?|parameters?)\.)?(?:`([^`]+)`|\"([^\"]+)\"|([\w./-]+))"
    r"\s*(?:[<>=!]+|\b(?:not\s+)?(?:i?like|in)\b)",
    re.IGNORECASE,
)


def _search(client: Any, experiments: list[str], query: str) -> Iterator[Any]:
    """Yield MLflow's runs, the newest first.

    Raises:
        ConfigError: MLflow does not understand the query.
    """
    from mlflow.exceptions import MlflowException

    from litlab.runs.tracking.mlflow_logger import first_line

    page: str | None = None
    order = ["attributes.start_time DESC"]
    while True:
        try:
            found = client.search_runs(experiments, query, order_by=order, page_token=page)
        except MlflowException as error:
            what, where = first_line(error), f"litlab.runs({query!r})"
            bare = re.search(r"Invalid attribute key '([^']+)'", what)
            if bare is None:
                raise ConfigError(what, where, QUERY) from None
            metrics = _names(client, experiments)["metric"]
            ending = [name for name in metrics if name.endswith(f"/{bare.group(1)}")]
            meant = next((n for n in ending if n.startswith("best/val/")), "".join(ending[:1]))
            fix = f"write metrics.`{meant}`" if meant else QUERY
            what = f"'{bare.group(1)}' is not an attribute of a run"
            raise ConfigError(what, where, fix) from None
        yield from found
        page = found.token
        if not page:
            return


def _names(client: Any, experiments: list[str]) -> dict[str, list[str]]:
    """Return the metrics and parameters that the newest runs have."""
    found = client.search_runs(experiments, max_results=100)
    return {
        "metric": sorted({name for one in found for name in one.data.metrics}),
        "param": sorted({name for one in found for name in one.data.params}),
    }


def _unknown_names(client: Any, experiments: list[str], query: str) -> Iterator[str]:
    """Say which names of a query without a result no run has."""
    named = [(kind.lower(), a or b or c) for kind, a, b, c in NAMED.findall(query) if kind]
    known = _names(client, experiments) if named else {}
    for prefix, name in named:
        kind = "metric" if prefix.startswith("m") else "param"
        if known[kind] and name not in known[kind]:
            yield f"no run has the {kind} '{name}': {nearest(name, known[kind])}"


def _run_in(folder: Path, run_id: str, trust: tuple[str, ...]) -> Run | None:
    """Return the run of that id, None where the folder is gone or holds another one."""
    try:
        record = RunRecord.load(folder) if (folder / RUN_FILE).is_file() else None
    except CheckpointError:
        return None
    if record is None or record.run_id != run_id:
        return None
    return Run(folder, folder / BEST, record, trust=trust)
