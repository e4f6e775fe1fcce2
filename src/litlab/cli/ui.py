"""MLflow's pages, served until litlab is ended; nothing of the server is left then."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from litlab.utils import output
from litlab.utils.errors import ConfigError, EnvironmentFault

GRACE = 1.0  # seconds that the server has to end by itself
POLL_SECONDS = 0.1


def serve(store: str, host: str, port: int) -> None:
    """Run `mlflow ui`; return when it has ended by itself.

    MLflow starts processes of its own, which outlive it. All are in one process group, which a
    supervisor ends as soon as litlab has gone, in whatever way: it then reads the end of a pipe.

    Args:
        store: Address of the tracking store.
        host: To listen on.
        port: To listen on.

    Raises:
        ConfigError: The host is not an address of this machine.
        EnvironmentFault: The port cannot be used, or the server ended with an error.
    """
    _check(host, port)
    output.say(f"MLflow's pages: http://{host}:{port}   (Ctrl-C ends them)")
    command = _command(store, host, port)
    if not hasattr(os, "fork"):  # Windows, where a closed window ends what runs in it
        _report(subprocess.run(command).returncode)
        return
    ours, theirs = os.pipe()
    supervisor = os.fork()
    if not supervisor:
        os.close(theirs)
        _supervise(command, ours)
    os.close(ours)
    try:
        code = _wait(supervisor)
    except BaseException:
        os.close(theirs)
        _wait(supervisor)
        raise
    os.close(theirs)
    _report(code)


def _report(code: int) -> None:
    """Turn an exit code of the server into an error."""
    if code:
        fix = "see its own output above"
        raise EnvironmentFault(f"mlflow ui ended with exit code {code}", "litlab ui", fix)


def _command(store: str, host: str, port: int) -> list[str]:
    mlflow = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    return [*mlflow, "--host", host, "--port", str(port)]


def _wait(supervisor: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])


def _check(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, in one line instead of MLflow's many."""
    try:
        if not host:  # would be all networks
            raise OSError
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        fix = "use 127.0.0.1, or 0.0.0.0 for every network of this machine"
        raise ConfigError("unknown host", f"--host {host}", fix) from None
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                what, fix = (
                    "the address does not belong to this machine",
                    "use 127.0.0.1 or 0.0.0.0",
                )
                raise ConfigError(what, f"--host {host}", fix) from None
            what = "the port is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
            fix = f"choose another: {output.command('ui', '--port', str(max(port, 5000) + 1))}"
            raise EnvironmentFault(what, f"--port {port}", fix) from None


def _supervise(command: Sequence[str], line: int) -> NoReturn:
    """Run the server until it ends or the pipe does; end all of its processes, and this one."""
    code = 1
    try:
        os.setsid()  # what the terminal sends is for litlab
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which the server would inherit
        server = subprocess.Popen(command, process_group=0)
        try:
            while server.poll() is None and not select.select([line], [], [], POLL_SECONDS)[0]:
                pass
        finally:
            _end(server)
        code = abs(server.returncode)
    finally:
        os._exit(code)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server's process group: ask it to, then kill what is left."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            server.poll()
            os.killpg(server.pid, 0)  # raises when none is left
            time.sleep(POLL_SECONDS / 2)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
