"""Where a study lies: a SQLite file of the project, or PostgreSQL for several machines."""

import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
import time
import warnings
import weakref
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from litlab.runs.lock import is_abandoned, running
from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.locks import locked_database
from litlab.utils.paths import runs_folder, store_root
from litlab.utils.redact import MARK, redact

# Who runs a trial, and when another may take it over.


OWNER = "owner"  # attribute of a trial
NEW = 60.0  # seconds in which a command has surely locked the folder that it has made
RELEASED = ""  # its owner was stopped, and has saved it


def owners_folder(study: str) -> Path:
    """Return where the commands that run a study have their folders."""
    return store_root() / ".litlab" / "studies" / f"{study}.owners"


class Owner:
    """One command that runs trials of a study, known by a word of its own.

    Beside the study lies a folder that the command holds locked while it lives, and its trainings
    after it: on the same machine the others know at once that it died, and need not wait for its
    silence.

    Attributes:
        word: What its trials are marked with.

    Args:
        study: Its name.
    """

    def __init__(self, study: str) -> None:
        self._folder = owners_folder(study)
        self.word = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._held = ExitStack()
        self._held.enter_context(running(self._place(self.word)))

    def _place(self, word: str) -> Path:
        return self._folder / word

    def owns(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is this command's."""
        return trial.user_attrs.get(OWNER) == self.word

    def may_take(self, trial: FrozenTrial, stale: set[int]) -> bool:
        """Return whether a running trial is nobody's.

        Args:
            trial: As the storage has it.
            stale: Trials that their owners have been silent about.
        """
        word = trial.user_attrs.get(OWNER, RELEASED)
        return word == RELEASED or trial._trial_id in stale or self._is_dead(word)

    def _is_dead(self, word: str) -> bool:
        """Whether a command of this machine has ended; of others nothing is known.

        A lock in a folder that several machines share may be known to one of them alone.
        """
        place, here = self._place(word), word.startswith(f"{socket.gethostname()}-")
        if place.parent != self._folder or ".." in place.parts:  # not a word of ours
            return False
        return here and word != self.word and is_abandoned(place)

    def sweep(self, needed: Collection[str]) -> None:
        """Remove what commands of this machine left that have ended.

        Args:
            needed: Owners of trials that are running.
        """
        for place in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another sweeps too
                old = time.time() - place.stat().st_mtime > NEW
                if old and place.name not in needed and self._is_dead(place.name):
                    shutil.rmtree(place, ignore_errors=True)

    def leave(self, *, keep: bool) -> None:
        """Give the folder up.

        Args:
            keep: Whether there are trials left, which others may know by it to be nobody's.
        """
        self._held.close()
        if not keep:
            shutil.rmtree(self._place(self.word), ignore_errors=True)


POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
FIX = "postgresql://user@host/database; the password in PGPASSWORD or ~/.pgpass"
BUSY = 60  # seconds that a write waits while another program holds the SQLite file
MOST_HELD = 30  # seconds after which a machine that hangs while it holds the study loses it


def study_file(name: str) -> Path:
    """Return where a study is stored that has no other storage."""
    return store_root() / ".litlab" / "studies" / f"{name}.db"


def rename_study(name: str) -> str:
    """Rename the file of a study and the folder of its runs; return the new name."""
    new = f"{name}-until-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    file, folder = study_file(name), runs_folder() / name
    if folder.exists():
        folder.rename(folder.with_name(new))
    file.rename(study_file(new))
    return new


class Storage:
    """Optuna's storage of a study, and a lock for what only one machine may do at a time.

    No connection is open when a trial is forked from this process: both would use it.

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
        self._held = max(1, min(MOST_HELD, stale_seconds // 2))
        if url is None:
            file = study_file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._address = make_url(f"sqlite:///{file}")
        else:
            self._address = address_of(url)
        self.url = shown(self._address)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        # Heartbeats are compared by the clock of the server, in one time zone.
        engine: dict[str, Any] = {"pool_size": 1, "pool_pre_ping": True}
        connect = {"options": "-c timezone=utc"} if self.shared else {"timeout": BUSY}
        engine["connect_args"] = connect
        with self.reached():
            self._engine = create_engine(self._address, **engine)
            _close_before_forks(self._engine)
            with self.alone():  # two that make the tables at once would be in each other's way
                self.backend = RDBStorage(
                    self._address.render_as_string(hide_password=False),
                    engine_kwargs=engine,
                    heartbeat_interval=max(1, stale_seconds // 6),
                    grace_period=stale_seconds,
                )
            _close_before_forks(self.backend.engine)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other machine begins, takes over or ends a trial of the study.

        On PostgreSQL an advisory lock of one transaction: it ends with the connection, whatever
        happens to this process.
        """
        if not self.shared:
            with locked_database(self._address.render_as_string()):
                yield
            return
        with self._engine.begin() as connection:
            limit = f"SET LOCAL idle_in_transaction_session_timeout = '{self._held}s'"
            connection.execute(text(limit))
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
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            words = str(error.__cause__ or error).strip() or type(error).__name__
            first = str(redact(words.splitlines()[0]))
            password = self._address.password
            first = first.replace(str(password), MARK) if password else first
            fix = "start it, or check the address; then run the same command to resume"
            what = f"the study's storage fails: {first}"
            raise EnvironmentFault(what, self.url, fix) from None

    def close(self) -> None:
        """Close its connections; it opens others if it is asked again."""
        self._engine.dispose()
        self.backend.engine.dispose()

    def beat(self, trial_id: int) -> None:
        """Note that a trial is in good hands, by the storage's own clock."""
        self.backend.record_heartbeat(trial_id)

    def stale(self, study_id: int) -> set[int]:
        """Return the ids of the running trials that nobody has cared for too long."""
        return set(self.backend._get_stale_trial_ids(study_id))


def _close_before_forks(engine: Engine) -> None:
    """Close an engine's connections whenever this process forks; it opens others when it needs."""
    kept = weakref.ref(engine)

    def close() -> None:
        held = kept()
        if held is not None:
            held.dispose()

    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(before=close)


def address_of(url: str) -> URL:
    """Return a PostgreSQL address as SQLAlchemy has it.

    What cannot be read is not shown: it may be a password with a sign that ends it.

    Raises:
        ConfigError: It is none.
        EnvironmentFault: There is no driver for it.
    """
    where = "study.storage"
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("not a database address", where, FIX) from None
    if address.drivername not in POSTGRES:
        raise ConfigError(f"{address.drivername} is not a PostgreSQL address", where, FIX)
    if "@" in (address.host or ""):
        what = "the password contains a reserved character, such as @"
        raise ConfigError(what, where, FIX) from None
    if importlib.util.find_spec("psycopg") is None:
        fix = "pip install 'litlab[postgresql]'"
        raise EnvironmentFault("psycopg is not installed", where, fix)
    return address.set(drivername="postgresql+psycopg")


def shown(address: URL) -> str:
    """Return an address without what is secret in it, as Optuna's tools take it."""
    plain = address.set(drivername=address.get_backend_name())
    secret = [key for key in plain.query if "pass" in key or "secret" in key]
    plain = plain.difference_update_query(secret)
    return URL.create(
        plain.drivername, plain.username, None, plain.host, plain.port, plain.database, plain.query
    ).render_as_string()
