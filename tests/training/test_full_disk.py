"""A disk that fills up, or a limit of file sizes, wherever it is met: one line, no traceback."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import forked
from litlab.data.prepare.open import open_or_prepare
from run_helpers import SMALL, ready_store, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# One process imports all; each limit is met in a fork of it.
PROGRAM = """
import os, resource, sys
import torch
from litlab.cli import main as cli
from litlab.training import run as train
import litlab.data.sources.synthetic, litlab.models.simple
import litlab.report.preview, litlab.cli.summary
train.probe = lambda *_: None  # the disk was not full when the run began
limits, arguments = sys.argv[1].split(","), sys.argv[2:]
for limit in map(int, limits):
    if os.fork() == 0:
        os.chdir(str(limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = ["litlab", "train", *arguments]
        cli.main()
    print(limit, os.waitstatus_to_exitcode(os.wait()[1]), file=sys.stderr, flush=True)
"""


def test_a_limit_of_file_sizes_is_one_line_wherever_it_is_met(project: Path) -> None:
    ready_store(project)
    open_or_prepare(small().data, [])
    limits = (0, 10_000, 200_000)  # met by run.json, and by rows of the store
    for limit in limits:
        folder = project / str(limit)
        shutil.copytree(project / "conf", folder / "conf")
        shutil.copytree(project / "data", folder / "data")
        shutil.copy(project / "mlflow.db", folder)
    done = forked.run(
        [sys.executable, "-c", PROGRAM, ",".join(map(str, limits)), *SMALL],
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "sqlalche.me" not in done.stderr
    lines = done.stderr.splitlines()
    assert f"error: File too large | {project}/0/runs/" in done.stderr
    for limit in limits:
        end = lines.index(f"{limit} 5")
        assert lines[end - 1].startswith("error: "), lines
    assert len([line for line in lines if line.startswith("error: ")]) == len(limits), lines
