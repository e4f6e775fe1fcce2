"""Does everything work on this machine? Tried for real, on made-up data, in a temporary folder."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from litlab.utils.errors import Interrupted, LitlabError
from litlab.utils.output import say
from litlab.utils.signals import cleaning_up

QUICK = (
    "data=synthetic",
    "data.source.num_samples=900",
    "trainer.progress=none",
    "trainer.max_epochs=8",
    "loader.batch_size=32",
)
# With a third as many samples, half as many epochs or four layers, a text's accuracy is chance on
# some seeds. With these the lowest of 20 seeds is far above it (docs/log.md).
SMALLER = {"transformer": ("model.depth=1",)}
LEARNED = 0.5  # the least accuracy; with three classes, a third is chance


@dataclass(frozen=True)
class Check:
    """What was tried, whether it worked, and what was seen. An optional one may fail."""

    name: str
    ok: bool
    detail: str
    seconds: float
    optional: bool = False


class _NotSo(Exception):
    """A check found otherwise."""


def selftest() -> list[Check]:
    """Run every check, say what came of each as it ends, and return them."""
    checks = []
    with cleaning_up(), _temporary_project() as root:
        for name, function, optional in _plan(root):
            checks.append(_run(name, function, optional))
            mark = "ok  " if checks[-1].ok else "--  " if optional else "FAIL"
            say(f"{mark} {name:<32} {checks[-1].detail}")
    failed = sum(not check.ok and not check.optional for check in checks)
    total = sum(check.seconds for check in checks)
    say(f"{'all required checks passed' if not failed else f'{failed} failed'}, {total:.0f} s")
    return checks


def _plan(root: Path) -> list[tuple[str, Callable[[], str], bool]]:
    """What to try, in order; later checks use what earlier ones made."""
    return [
        ("python, torch, lightning", _versions, False),
        ("accelerator", _accelerator, True),
        ("git", lambda: _program("git"), True),
        ("dvc", lambda: _program("dvc"), True),
        ("train mlp on a table", lambda: _train(root, "mlp", "tabular"), False),
        ("train cnn on images", lambda: _train(root, "cnn", "image"), False),
        ("train transformer on text", lambda: _train(root, "transformer", "text"), False),
        ("bfloat16 mixed precision", lambda: _train(root, "mlp", "image", "bf16-mixed"), True),
        ("evaluate and report", lambda: _evaluate(root), False),
        ("predict new data", lambda: _predict(root), False),
        ("detect an altered file", lambda: _altered(root), False),
        ("runs recorded in MLflow", lambda: _recorded(root), False),
    ]


def _run(name: str, function: Callable[[], str], optional: bool) -> Check:
    began = time.monotonic()
    try:
        detail, ok = function(), True
    except Interrupted:
        raise
    except (LitlabError, _NotSo) as error:
        detail, ok = str(error), False
    except Exception as error:  # whatever it is, the user wants to read which check it broke
        detail, ok = f"{type(error).__name__}: {error}", False
    return Check(name, ok, detail, time.monotonic() - began, optional)


@contextlib.contextmanager
def _temporary_project() -> Iterator[Path]:
    """A folder without a conf/ of its own: litlab's is tried, and no project is touched."""
    before = Path.cwd()
    outside = {name: os.environ.pop(name, None) for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT")}
    with tempfile.TemporaryDirectory(prefix="litlab-selftest-") as folder:
        root = Path(folder).resolve()
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(before)
            os.environ.update({name: value for name, value in outside.items() if value})


def _versions() -> str:
    from litlab.runs.environment import describe

    found = describe()
    return ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "lightning"))


def _accelerator() -> str:
    from litlab.evaluation.inference import device
    from litlab.runs.environment import describe

    kind = device().type
    if kind == "cpu":
        raise _NotSo(f"none; training runs on the CPU ({describe()['cpu']})")
    return describe().get("gpu", kind)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise _NotSo("not on the PATH; `dvc repro` needs it")
    return path


def _train(root: Path, model: str, kind: str, precision: str = "32-true") -> str:
    from litlab.config.compose import load
    from litlab.training.run import train

    name = f"{kind}-{model}-{precision}"
    overrides = (
        f"model={model}",
        f"data.source.kind={kind}",
        f"data.name={kind}",
        f"trainer.precision={precision}",
    )
    with _silent():
        result = train(load([*QUICK, *SMALLER.get(model, ()), *overrides]), root / "runs" / name)
    accuracy = result.record.metrics["val/accuracy"]
    if accuracy < LEARNED:
        raise _NotSo(f"trained, but learned nothing: val/accuracy {accuracy:.2f}")
    return f"val/accuracy {accuracy:.2f} in {result.record.seconds:.1f} s"


def _evaluate(root: Path) -> str:
    from litlab.evaluation.evaluate import evaluate

    done = evaluate(str(root / "runs" / "image-cnn-32-true"))
    size = (done.folder / "report.html").stat().st_size
    return f"test accuracy {done.metrics['accuracy']:.2f}, report of {size / 1024:.0f} KiB"


def _predict(root: Path) -> str:
    import numpy as np

    from litlab.evaluation.predict import predict

    rows = np.random.default_rng(0).normal(size=(5, 6))
    np.save(root / "new.npy", rows)
    number = predict(
        str(root / "runs" / "tabular-mlp-32-true"), root / "new.npy", root / "labels.csv"
    )
    lines = (root / "labels.csv").read_text().splitlines()
    if len(lines) != len(rows) + 1:
        raise _NotSo(f"{len(lines) - 1} rows for {len(rows)} inputs")
    return f"{number} rows labelled"


def _altered(root: Path) -> str:
    from litlab.utils.errors import DataError

    path = root / "data" / "prepared" / "text" / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    try:
        _train(root, "mlp", "text")
    except DataError as error:
        return error.what
    raise _NotSo("an altered file was not detected")


def _recorded(root: Path) -> str:
    from litlab.runs.tracking.address import tracking_uri
    from litlab.runs.tracking.mlflow_logger import MLflowLogger

    client = MLflowLogger(tracking_uri(None, root), "litlab", root / "mlartifacts").client
    experiment = client.get_experiment_by_name("litlab")
    if experiment is None:
        raise _NotSo("there is no experiment in the store")
    statuses = [run.info.status for run in client.search_runs([experiment.experiment_id])]
    if set(statuses) != {"FINISHED"}:
        raise _NotSo(f"statuses {statuses}")
    return f"{len(statuses)} runs, all FINISHED"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the training's own lines out of the list of checks."""
    from litlab.utils.output import console

    quiet = console.quiet
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = quiet
