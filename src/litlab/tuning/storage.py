"""Where a study lies: a SQLite file of the project, or PostgreSQL for several machines."""

import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from litlab.errors import ConfigError, EnvironmentFault
from litlab.paths import store_root
from litlab.tracking.redact import redact

POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
HOLD = "30s"  # a machine that stands still while it holds the study alone loses it after that


def study_file(name: str) -> Path:
    """Return where a study is stored that has no other storage."""
    return store_root() / ".litlab" / "studies" / f"{name}.db"


class Storage:
    """Optuna's storage of a study, and a lock for what only one machine may do at a time.

    No connection outlives its use: trials are forked from this process, and would share it.

    Attributes:
        url: For Optuna's own tools, without a password.
        shared: Whether other machines can reach it.
        backend: Optuna's.

    Args:
        name: The study's.
        url: A PostgreSQL address; None is a file of the project.
        stale_seconds: Silence after which a trial is taken over by another machine.

    Raises:
        ConfigError: Another kind of address.
        EnvironmentFault: It cannot be reached.
    """

    def __init__(self, name: str, url: str | None, stale_seconds: int) -> None:
        self.shared = url is not None
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        if url is None:
            file = study_file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{file}"
        else:
            url = _checked(url)
        self.url = str(redact(url.replace("+psycopg", "")))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for category in (optuna.exceptions.ExperimentalWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module="optuna")
        with self.reached():
            self._engine = create_engine(url, poolclass=NullPool)
            with self.alone():  # two that make the tables at once would be in each other's way
                self.backend = RDBStorage(
                    url,
                    engine_kwargs={"poolclass": NullPool},
                    heartbeat_interval=max(1, stale_seconds // 6),
                    grace_period=stale_seconds,
                )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other machine begins or takes over a trial of the study.

        On PostgreSQL an advisory lock of one transaction: it ends with the connection, whatever
        happens to this process. The file has one user at a time as it is.
        """
        if not self.shared:
            yield
            return
        with self._engine.begin() as connection:
            connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{HOLD}'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Explain a storage that fails.

        Raises:
            EnvironmentFault: It cannot be reached, or not any more.
        """
        try:
            yield
        except ArgumentError:
            what, fix = "not an address", "postgresql://user@host/database"
            raise ConfigError(what, "study.storage", fix) from None
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            first = str(error.__cause__ or error).strip().splitlines()[0]
            fix = "start it, or check the address; then the same command goes on"
            raise EnvironmentFault(
                f"the study's storage fails: {redact(first)}", self.url, fix
            ) from error

    def beat(self, trial_id: int) -> None:
        """Note that a trial is in good hands, by the storage's own clock."""
        self.backend.record_heartbeat(trial_id)

    def stale(self, study_id: int) -> set[int]:
        """Return the ids of the running trials that nobody has cared for too long."""
        return set(self.backend._get_stale_trial_ids(study_id))


def _checked(url: str) -> str:
    scheme = next((s for s in POSTGRES if url.startswith(s)), None)
    if scheme is None:
        raise ConfigError(
            f"'{redact(url)}' is no PostgreSQL address",
            "study.storage",
            "postgresql://user@host/database, or leave it out: a file of the project",
        )
    if importlib.util.find_spec("psycopg") is None:
        fix = "pip install 'litlab[postgresql]'"
        raise EnvironmentFault("psycopg is not installed", "study.storage", fix)
    return "postgresql+psycopg://" + url.removeprefix(scheme)
