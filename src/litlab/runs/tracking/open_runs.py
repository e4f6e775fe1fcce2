"""Which runs are open, so that a run whose process was killed does not stay RUNNING for ever.

A process that records a run holds a folder of its own in `.litlab/running` locked while it lives.
If it is killed, the folder stays behind, unlocked. The next command closes such a run: in
`run.json` at once, in MLflow as soon as it has the same store open for its own sake. So nobody
waits for a store that does not answer, and where no process was killed, all this costs is a look at
an empty folder.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.runs.folder import PROCESS, RUN_FILE, RunRecord
from litlab.runs.lock import is_abandoned, running
from litlab.utils.errors import LitlabError
from litlab.utils.files import read_json, write_json
from litlab.utils.paths import store_root
from litlab.utils.redact import redact

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

NEW = 60.0  # seconds after which a folder without an entry was left by a process that was killed
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # containers of one machine share it


def _folder() -> Path:
    return store_root() / ".litlab" / "running"


def _boot() -> str:
    with suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""


@dataclass(frozen=True)
class Entry:
    """What is known of an open run.

    Attributes:
        process: Name of the process, the value of the run's tag.
        host: Where it runs.
        boot: Identifies the kernel it runs on, until that is started again.
        uri: The tracking store, without credentials.
        folder: The run's; None for a study, which has no `run.json`.
        status: What the run is closed with, should the process not come to it.
    """

    process: str
    host: str
    boot: str
    uri: str
    folder: str | None
    status: str = "KILLED"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether the lock of its process can be judged here."""
        return self.host == socket.gethostname() or (bool(self.boot) and self.boot == _boot())


class OpenRun:
    """A run that this process records.

    Attributes:
        process: The value of the run's tag `PROCESS`, by which MLflow's run is found again.

    Args:
        uri: Tracking URI.
        folder: The run's; None for a study.
    """

    def __init__(self, uri: str, folder: Path | None) -> None:
        host = socket.gethostname()
        self.process = f"{host}-{secrets.token_hex(6)}"
        where = None if folder is None else str(folder)
        self._entry = Entry(self.process, host, _boot(), redact(uri), where)
        self._place = _folder() / self.process
        self._held = ExitStack()

    def begin(self) -> None:
        """Leave word of the run; a folder that cannot be written to is no reason not to train."""
        close_records()
        with suppress(OSError, LitlabError):
            self._held.enter_context(running(self._place))
            self._write(self._entry)

    def end(self, status: str, *, closed: bool) -> None:
        """Take it back.

        Args:
            status: What the run ended with.
            closed: Whether the store has it; else the next command tells it.
        """
        with self._held, suppress(OSError):
            if closed:
                shutil.rmtree(self._place, ignore_errors=True)
            elif self._place.is_dir():
                self._write(replace(self._entry, status=status))

    def _write(self, entry: Entry) -> None:
        write_json(self._place / RUN_FILE, asdict(entry))


def close_records() -> None:
    """Mark in their `run.json` the runs whose process was killed as KILLED."""
    for place, entry in _abandoned():
        with suppress(OSError):
            _close_record(entry, _last_change(place, entry))


def close_runs(client: "MlflowClient", uri: str) -> None:
    """Close in MLflow, too, the runs whose process was killed.

    What goes wrong is left to the next command: this is another run's business.

    Args:
        client: A store that has just answered.
        uri: Its address; runs of other stores are left alone.
    """
    for place, entry in _abandoned():
        with suppress(Exception):
            ended = _last_change(place, entry)
            _close_record(entry, ended)
            if entry.uri == redact(uri):
                _close_in_store(client, entry, ended)
                shutil.rmtree(place, ignore_errors=True)


def _close_record(entry: Entry, ended: float) -> None:
    if entry.folder is None:
        return
    folder = Path(entry.folder)
    try:
        record = RunRecord.load(folder)
    except LitlabError:  # removed, or damaged: nothing is to be closed
        return
    if record.status == "RUNNING" and record.process == entry.process:
        record.status = entry.status
        record.save(folder)
        os.utime(folder / RUN_FILE, (ended, ended))  # for MLflow, which may be told later


def _close_in_store(client: "MlflowClient", entry: Entry, ended: float) -> None:
    experiments = [e.experiment_id for e in client.search_experiments()]
    own = f"tags.`{PROCESS}` = '{entry.process}' and attributes.status = 'RUNNING'"
    for run in client.search_runs(experiments, own):
        client.set_terminated(run.info.run_id, entry.status, end_time=int(1000 * ended))


def close_runs_of(uri: str) -> None:
    """Do so for a command that does not open the store itself; MLflow is imported only if needed.

    Args:
        uri: The store's address.
    """
    close_records()
    if any(entry.uri == redact(uri) for _, entry in _abandoned()):
        from litlab.runs.tracking.mlflow_logger import MLflowLogger

        with suppress(LitlabError):
            close_runs(MLflowLogger(uri, "", store_root()).client, uri)


def _abandoned() -> Iterator[tuple[Path, Entry]]:
    """Yield folder and entry of each run of this machine whose process is gone."""
    with suppress(OSError):
        for place in sorted(_folder().iterdir()):
            entry = _read(place)
            if entry is not None and entry.is_of_this_machine and is_abandoned(place):
                yield place, entry


def _read(place: Path) -> Entry | None:
    try:
        if not (place / RUN_FILE).is_file():
            raise FileNotFoundError
        return Entry(**read_json(place / RUN_FILE))
    except (OSError, ValueError, TypeError):
        with suppress(OSError):  # killed before it had written it, or taken back just now
            if time.time() - place.stat().st_mtime > NEW and is_abandoned(place):
                shutil.rmtree(place, ignore_errors=True)
        return None


def _last_change(place: Path, entry: Entry) -> float:
    """Return when the run was last heard of, as a timestamp."""
    files = [place / RUN_FILE]
    if entry.folder is not None:
        folder = Path(entry.folder)
        files += [folder / RUN_FILE, folder / "history.csv", folder / "last.ckpt"]
    times = (file.stat().st_mtime for file in files if file.is_file())
    return max(times, default=time.time())
