"""Passwords put into every place that takes one, and every byte that is left searched for them."""

import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import forked
from mlflow_stub import Stub
from run_helpers import SMALL, THIRD_PARTY

pytestmark = [*THIRD_PARTY, pytest.mark.slow, pytest.mark.timeout(600)]

ADDRESS, SPELT = "canary-add/ress", "canary-add%2Fress"
CANARIES = ("canary-add", "canary-environment", "canary-tag", "canary-config", "canary-typo")
SOURCE = '''
import logging
import os
import sys
import warnings

from litlab.data.sources.synthetic import Synthetic


class Store(Synthetic):
    """A source that says what it should not."""

    def __init__(self, *, token: str, address: str, num_samples: int) -> None:
        super().__init__(num_samples=num_samples)
        self.said = f"{token} {address}"

    def read(self):
        raw = super().read()
        print(self.said)
        warnings.warn(f"trying {self.said} with {os.environ['STORE_PASSWORD']}")
        logging.getLogger("store").error("trying %s", self.said)
        raw.origin = self.said
        return raw
'''
# A callback of a trial fails with what it should not say.
PROGRAM = """
import os, sys
from litlab.cli import main as cli
from litlab.training import run as train
from litlab.tasks.task import Task
begin = Task.on_train_epoch_start
def on_train_epoch_start(self):
    if os.environ.get("FAILS"):
        raise RuntimeError("no answer from http://me:%s@host" % os.environ["STORE_PASSWORD"])
    begin(self)
Task.on_train_epoch_start = on_train_epoch_start
for command in sys.argv[1:]:
    fails, _, command = command.partition("|")
    os.environ["FAILS"] = fails
    sys.argv = ["litlab", *command.split(" ")]
    try:
        cli.main()
    except SystemExit as end:
        print("ended with", end.code)
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
"""


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub("me", ADDRESS)
    yield server
    server.close()


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and those of what is packed into it."""
    yield name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for inner in archive.namelist():
                yield from unpacked(f"{name}:{inner}", archive.read(inner))


def test_no_password_is_printed_or_written(project: Path, stub: Stub) -> None:
    (project / "store.py").write_text(SOURCE)
    folder = project / "conf"
    choice = yaml.safe_load((folder / "data" / "synthetic.yaml").read_text())
    choice["data"]["source"] = {
        "_target_": "store.Store",
        "num_samples": 150,
        "token": "canary-config",
        "address": "s3://me:canary-config@bucket/x",
    }
    (folder / "data" / "store.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(choice)}")
    study = {"space": {"optimizer.lr": {"low": 0.001, "high": 0.1}}, "n_trials": 1, "finalists": 0}
    (folder / "study" / "tiny.yaml").write_text(yaml.safe_dump(study))
    kept = {*project.rglob("*")}
    small = [o for o in SMALL if not o.startswith("data")]
    settings = ["data=store", "trust=[store]", "trainer.max_epochs=2", *small]
    settings += ["+tracking.tags.password=canary-tag", "+tracking.tags.note=canary-environment"]
    uri = f"tracking.uri=http://me:{SPELT}@{stub.host}"
    typo = f"tracking.uri=http://me:canary-typo!@{stub.host}"
    commands = [
        ["|train", *settings],
        ["|evaluate", "last", "--json", "--trust", "store"],
        ["|tune", "study=tiny", uri, *settings],
        ["yes|tune", "study=tiny", "study.name=failing", uri, *settings],
        ["|train", "--debug", typo],
        ["|train", "--debug", *settings, f"tracking.uri=http://me:canary-typo@{stub.host}"],
        ["|params", *settings, uri],
        [
            "|tune",
            "study=tiny",
            "study.storage=postgresql://u:canary-typo@127.0.0.1:9/x",
            *settings,
        ],
    ]
    done = forked.run(
        [sys.executable, "-c", PROGRAM, *map(" ".join, commands)],
        cwd=project,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://me:{SPELT}@{stub.host}",
            "STORE_PASSWORD": "canary-environment",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        timeout=540,
    )
    told = (done.stdout + done.stderr).decode()
    codes = [line for line in done.stdout.decode().splitlines() if line.startswith("ended with")]
    assert codes == [f"ended with {code}" for code in (0, 0, 0, 5, 2, 5, 2, 5)], told
    assert f"at: http://{stub.host}/#/experiments/1/runs/" in told
    assert "RuntimeError: no answer from http://***@host" in told
    statuses = [run["info"]["status"] for run in stub.runs.values()]
    assert statuses.count("FINISHED") >= 3, statuses
    assert stub.refused > 0  # of the last training, whose password is another
    found = {"output": told.encode()}
    found |= {str(n): path.encode() + b" " + body for n, (path, body) in enumerate(stub.requests)}
    found |= {str(p): p.read_bytes() for p in project.rglob("*") if p.is_file() and p not in kept}
    names = {Path(name).name for name in found}
    assert {"spec.json", "last.ckpt", "report.html", "tiny.db", "tiny-best.yaml"} <= names
    assert any(name.startswith("trial-") and name.endswith(".log") for name in names)
    searched = dict(pair for item in found.items() for pair in unpacked(*item))
    assert len(searched) > len(found)
    leaks = {
        (name, canary)
        for name, content in searched.items()
        for canary in (*CANARIES, ADDRESS)
        if canary.encode() in content
    }
    assert not leaks
