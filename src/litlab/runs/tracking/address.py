"""Where runs are recorded, and how MLflow gets the password without it standing in the address."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from litlab.utils.redact import MARK, credentials, redact, remember

URI, USER, PASSWORD = (f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD"))
SQLITE = re.compile(r"sqlite:///(?=[^/:])(?![A-Za-z]:)")  # and a relative path


# The server whose credentials stand in the environment, and what stood there before.
_lent: dict[str, dict[str, str | None]] = {}


def tracking_uri(configured: str | None, root: Path) -> str:
    """Return where runs are recorded: as configured, as `mlflow run` says, else root/mlflow.db.

    The address of a server has no password: MLflow would print and log it. The password is put into
    MLFLOW_TRACKING_USERNAME and _PASSWORD, which this process and those that it starts read.

    A recorded URI has lost its password. MLFLOW_TRACKING_URI gives it again where it names the same
    place; else it is left to MLFLOW_TRACKING_USERNAME and _PASSWORD.
    """
    given = os.environ.get(URI)
    if configured and f"://{MARK}@" in configured:
        same = given and redact(given) == configured
        return _lend(given if given and same else configured.replace(f"{MARK}@", ""))
    if configured:
        return _lend(SQLITE.sub(f"sqlite:///{root.as_posix()}/", configured))
    return _lend(given) if given else f"sqlite:///{root / 'mlflow.db'}"


def _lend(uri: str) -> str:
    """Put the credentials of a server's address where MLflow looks for them; return the rest."""
    remember(uri)
    if not uri.startswith(("http:", "https:")):
        return uri  # a database's driver takes its password from the address alone
    plain, user, password = credentials(uri)
    host = plain.partition("://")[2].partition("/")[0]
    if user or host not in _lent:
        _take_back()  # they are not for another server
    if user:
        _lent[host] = {name: os.environ.get(name) for name in (USER, PASSWORD)}
        os.environ[USER] = unquote(user)
        if password:
            os.environ[PASSWORD] = unquote(password)
        if os.environ.get(URI) == uri:
            os.environ[URI] = plain
    return plain


def _take_back() -> None:
    """Leave the environment as it was before credentials were lent."""
    while _lent:
        for name, value in _lent.popitem()[1].items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
