import os
import signal
import sys
import time
from pathlib import Path

import pytest

import forked
from litlab.config.compose import load
from litlab.data.prepare.open import open_or_prepare
from litlab.data.prepare.source_files import changed, fingerprints, staged_folder, user_path
from litlab.utils.errors import DataError, EnvironmentFault

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def photos(project: Path) -> Path:
    folder = project / "photos" / "cats"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(name.encode() * 100)
    return folder


def test_paths_are_seen_from_the_project(project, photos, monkeypatch) -> None:
    monkeypatch.chdir(photos)
    assert user_path("photos") == project / "photos"
    assert user_path(str(photos)) == photos
    with pytest.raises(EnvironmentFault, match="dvc pull") as caught:
        user_path("phots")
    assert (caught.value.exit_code, caught.value.where) == (5, "phots")


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")  # as long as before
    touch(path)


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (lambda f: None, False),
        (lambda f: touch(f / "a.png"), False),
        (lambda f: rewrite(f / "a.png"), True),
        (lambda f: (f / "c.png").write_bytes(b"new"), True),
        (lambda f: (f / "a.png").unlink(), True),
        (lambda f: (f / "a.png").rename(f / "z.png"), True),
    ],
    ids=["nothing", "only the time", "content", "a new file", "a lost file", "another name"],
)
def test_changes_are_noticed(project, photos, change, noticed) -> None:
    recorded = fingerprints([project / "photos"])
    assert list(recorded) == ["photos"]
    memo = project / "memo.json"
    assert changed(recorded, memo) is None
    change(photos)
    assert changed(recorded, memo) == ("photos" if noticed else None)
    assert changed(recorded, memo) == ("photos" if noticed else None)


def test_what_is_not_here_is_not_missed(project, photos) -> None:
    recorded = fingerprints([project / "photos"])
    (project / "photos").rename(project / "elsewhere")
    assert changed(recorded, project / "memo.json") is None


def test_unchanged_files_are_not_read_again(project, photos, monkeypatch) -> None:
    recorded, memo = fingerprints([project / "photos"]), project / "memo.json"
    changed(recorded, memo)
    monkeypatch.setattr(
        "litlab.data.prepare.source_files._content", lambda _: pytest.fail("read again")
    )
    assert changed(recorded, memo) is None


def test_a_run_refuses_data_whose_files_changed(project) -> None:
    (project / "table.csv").write_text(
        "a,b,y\n" + "".join(f"{i * 7 % 60},{i * i % 61},{i % 2}\n" for i in range(60))
    )
    config = load(["data=table", "data.path=table.csv", "data.source.target=y"]).data
    open_or_prepare(config, [])
    open_or_prepare(config, [])
    rewrite(project / "table.csv")
    with pytest.raises(DataError, match="changed since") as caught:
        open_or_prepare(config, [])
    assert caught.value.where == "table.csv"
    assert "litlab prepare" in caught.value.fix
    assert "dvc repro --force" in caught.value.fix  # DVC does not see it


def test_the_pipeline_sees_data_raw_alone(project, litlab) -> None:
    (project / "table.csv").write_text("a,y\n1,2\n")
    table = ("data=table", "data.source.target=y")
    code, _, error = litlab("params", *table, "data.path=data/raw/table.csv")
    assert (code, "outside" in error) == (0, False)
    code, _, error = litlab("params", *table, "data.path=table.csv")
    assert code == 0
    assert "data.path=table.csv lies outside data/raw: `dvc repro` does not notice" in error


def test_a_failure_leaves_nothing_and_what_was_killed_is_swept_away(tmp_path) -> None:
    folder = tmp_path / "made"
    for left in (".made~killed", ".made~old"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "spec.json").write_text(left)

    def interrupted() -> None:
        with staged_folder(folder) as (staged, scratch):
            (staged / "half").touch()
            (scratch / "spool").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    # Killed between the two renames: the old data are put back.
    assert os.listdir(tmp_path) == ["made"]
    assert (folder / "spec.json").read_text() == ".made~old"


def test_what_is_swept_away_is_not_of_another_data_set(tmp_path) -> None:
    with staged_folder(tmp_path / "made.small") as (staged, _):
        (staged / "spec.json").write_text("small")
        with staged_folder(tmp_path / "made"):
            pass
    assert (tmp_path / "made.small" / "spec.json").read_text() == "small"
    assert sorted(os.listdir(tmp_path)) == ["made", "made.small"]


SLOW_SOURCE = """
import time
from pathlib import Path
import numpy as np
from litlab.data.raw import Raw


class Slow:
    def __init__(self) -> None: pass

    def read(self) -> Raw:
        with open("reads", "a") as file:
            file.write("x")
        while not Path("go").exists():
            time.sleep(0.02)
        x = np.arange(40, dtype=np.float32)[:, None]
        return Raw(kind="tabular", task="classification", parts={"all": (x, np.arange(40) % 2)},
                   classes=["even", "odd"], features=["n"], licence="mine", origin="here")
"""


@pytest.fixture
def slow(project: Path):
    """Start a `litlab prepare` or `train` whose source waits for the file `go`."""
    (project / "slow_source.py").write_text(SLOW_SOURCE)
    (project / "conf" / "data" / "slow.yaml").write_text(
        "# @package _global_\n"
        "data:\n  name: slow\n  source: {_target_: slow_source.Slow}\n"
        "  val_fraction: 0.2\n  test_fraction: 0.2\n  split_seed: 0\n  stratify: true\n"
    )
    code = (
        "from litlab.config.compose import load\n"
        "from litlab.data.prepare.open import open_or_prepare\n"
        "c = load(['data=slow', 'trust=[slow_source]']); open_or_prepare(c.data, c.trust)"
    )
    started = []

    def start() -> tuple[forked.Popen, int]:
        before = len((project / "reads").read_text()) if (project / "reads").exists() else 0
        started.append(
            forked.Popen(
                [sys.executable, "-c", code],
                cwd=project,
                env={**os.environ, "PYTHONPATH": str(SRC)},
            )
        )
        return started[-1], before

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_prepare_leaves_no_half_and_starts_again_cleanly(project, slow) -> None:
    process, _ = slow()
    wait_for((project / "reads").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    prepared = project / "data" / "prepared"
    assert not (prepared / "slow").exists()
    assert len([p for p in prepared.iterdir() if p.is_dir()]) == 2  # staged and scratch
    (project / "go").touch()
    second, _ = slow()
    assert second.wait(timeout=60) == 0
    assert [p.name for p in prepared.iterdir() if p.is_dir()] == ["slow"]


def test_of_two_at_once_one_prepares_and_the_other_waits(project, slow) -> None:
    first, _ = slow()
    wait_for((project / "reads").exists)
    second, _ = slow()
    time.sleep(0.5)
    (project / "go").touch()
    assert first.wait(timeout=60) == 0
    assert second.wait(timeout=60) == 0
    assert (project / "reads").read_text() == "x"
