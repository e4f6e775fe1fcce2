"""Debian's PostgreSQL, started by a test as an ordinary user, in a folder of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "s3cret-word"


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _as_user(*command: str | Path) -> list[str]:
    """The server refuses to run as root; Debian's package brings a user for it."""
    words = [str(word) for word in command]
    return ["runuser", "-u", "postgres", "--", *words] if os.geteuid() == 0 else words


@contextmanager
def server() -> Iterator[str]:
    """Run a server and yield the address of a database; skip the test where there is none."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (scripts/install-test-data.sh)")
    folder = Path(tempfile.mkdtemp(prefix="litlab-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    word = folder / "word"
    word.write_text(PASSWORD)
    word.chmod(0o644)
    data, log = folder / "data", folder / "log"
    initdb = (programs / "initdb", "--no-sync", "--auth=scram-sha-256", "-U", "tuner")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        subprocess.run(
            _as_user(*initdb, f"--pwfile={word}", "-D", data),
            check=True,
            capture_output=True,
            cwd=folder,
        )
        start = (programs / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        subprocess.run(_as_user(*start), check=True, stdout=subprocess.DEVNULL, cwd=folder)
        yield f"postgresql://tuner:{PASSWORD}@127.0.0.1:{port}/postgres"
        stop = (programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        subprocess.run(_as_user(*stop), check=False, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
