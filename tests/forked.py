"""Python programs started by a fork of a process that has imported the libraries already.

Importing torch, Lightning and MLflow takes a new interpreter five to ten seconds of CPU time, and
a fork a hundredth of that. `Popen` and `run` are subprocess's for a command `[sys.executable, ...]`
that is a script, `-m module` or `-c code`; everything else about the process is its own: its id,
files, folder, environment, session and the signals it takes. A test of the start itself, or of
libraries that read the environment when they are imported, starts an interpreter.
"""

import atexit
import builtins
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "alembic.context",
    "dvc.cli",
    "dvc.repo",
    "lightning.pytorch",
    "matplotlib.pyplot",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "optuna.storages",
    "pandas",
    "sklearn.metrics",
    "torchmetrics.classification",
)
# The folder that holds the package `litlab`; a program's environment may name another, such as
# that of an installed wheel.
SOURCE_NAME = "LITLAB_FORK_SOURCE"
CHECKOUT = str(Path(__file__).resolve().parents[1] / "src")
SOURCE = os.environ.get(SOURCE_NAME, CHECKOUT)
SERVER = "LITLAB_FORK_SERVER"  # in the environment of a `python` that forks


class Popen(subprocess.Popen):
    """A subprocess whose interpreter is a fork."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[3:9]
        *_, start_new_session, _ = rest
        assert args[0] == sys.executable
        assert not preexec_fn
        assert not pass_fds
        order = {
            "argv": list(map(str, args[1:])),
            "cwd": str(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": bool(start_new_session),
            "group": os.getpgrp(),
        }
        files = [p2cread, c2pwrite, errwrite]
        own = [own if fd == -1 else fd for own, fd in enumerate(files)]
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(_server(order["env"].get(SOURCE_NAME, CHECKOUT)))
        text = json.dumps(order).encode()
        socket.send_fds(self._line, [len(text).to_bytes(8, "big")], own)
        self._line.sendall(text)
        self.pid = int.from_bytes(self._line.recv(8, socket.MSG_WAITALL), "big")
        self._child_created = True
        devnull = getattr(self, "_devnull", None)
        # As subprocess does: its own ends of pipes, not descriptors that were given.
        for theirs, ours in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if ours != -1 and theirs not in (-1, devnull):
                os.close(theirs)
        if devnull is not None:
            os.close(devnull)
        self._closed_child_pipe_fds = True

    def _try_wait(self, flags):
        ready = select.select([self._line], [], [], 0 if flags & os.WNOHANG else None)[0]
        if not ready:
            return 0, 0
        status = int.from_bytes(self._line.recv(8, socket.MSG_WAITALL), "big")
        self._line.close()
        return self.pid, status

    def _internal_poll(self, *_, **__):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(command: list[str], *, check: bool = False, timeout: float | None = None, **settings: Any):
    """As `subprocess.run`, without `input`."""
    if settings.pop("capture_output", False):
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **settings) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


@cache
def python_folder(source: str = CHECKOUT) -> str:
    """Return a folder with a `python`, `litlab` and `dvc` that are forks, for PATH."""
    folder = Path(_server(source)).parent
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    program += f"import os; os.environ[{SERVER!r}] = {_server(source)!r}\n"
    for name, before in {"python": [], "litlab": ["-m", "litlab"], "dvc": ["-m", "dvc"]}.items():
        last = f"import forked; forked.replace([*{before!r}, *sys.argv[1:]])\n"
        # Without `site`: it only has to pass on what it was given.
        (folder / name).write_text(f"#!{sys.executable} -IS\n{program}{last}")
        (folder / name).chmod(0o755)
    return str(folder)


def replace(arguments: list[str]) -> NoReturn:
    """Be `python src/litlab`, `python -m` or `python -c` by a fork, and others an interpreter."""
    if arguments[:1] not in (["src/litlab"], ["-m"], ["-c"]):
        os.execv(sys.executable, [sys.executable, *arguments])
    code = Popen([sys.executable, *arguments]).wait()
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@cache
def _server(source: str) -> str:
    """Start the process that forks, once in each process of pytest; return its socket."""
    if SERVER in os.environ:
        return os.environ[SERVER]
    folder = tempfile.TemporaryDirectory(prefix="litlab-fork-")
    path = f"{folder.name}/socket"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": source, SOURCE_NAME: source}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    program = "import sys, forked; forked.main(sys.argv[1])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", program, path]
    process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parent, **pipes)

    def end() -> None:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        folder.cleanup()

    atexit.register(end)
    assert process.stdout.readline() == b"ready\n"
    return path


# The process that forks


def serve(path: str) -> dict[str, Any]:
    """Fork whenever asked; return the order in each fork."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    os.write(1, b"ready\n")
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of their end
    while True:
        for fd in select.select([0, server, *children], [], [])[0]:
            if fd == 0:
                os._exit(0)
            if fd in children:
                pid, line = children.pop(fd)
                with suppress(OSError):  # nobody waits
                    line.sendall(os.waitpid(pid, 0)[1].to_bytes(8, "big"))
                line.close()
                os.close(fd)
                continue
            line, _ = server.accept()
            order, files = _order(line)
            pid = os.fork()
            if pid == 0:
                for place, number in enumerate(files):
                    os.dup2(number, place)
                server.close()
                line.close()
                for number, (_, other) in children.items():
                    os.close(number)
                    other.close()
                for number in files:
                    os.close(number)
                return order
            for number in files:
                os.close(number)
            children[os.pidfd_open(pid)] = pid, line
            line.sendall(pid.to_bytes(8, "big"))


def _order(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, files, *_ = socket.recv_fds(line, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += line.recv(2**16)
    return json.loads(text), files


def become(order: dict[str, Any]) -> None:
    """Make this process one that an interpreter has just begun."""
    if order["session"]:
        os.setsid()
    else:
        os.setpgid(0, order["group"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    tempfile.tempdir = None
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    first, argv = order["argv"][0], order["argv"]
    start = {"-c": "", "-m": order["cwd"]}.get(first, str(Path(first).resolve().parent))
    more = order["env"].get("PYTHONPATH", "").split(os.pathsep)
    known = [p for p in sys.path[1:] if p != SOURCE]
    sys.path[:] = [start, *(p for p in more if p), *known]
    if SOURCE not in sys.path:
        sys.path.append(SOURCE)  # as it is installed
    sys.argv[:] = ["-c", *argv[2:]] if first == "-c" else argv[1:] if first == "-m" else argv
    sys.orig_argv[:] = [sys.executable, *argv]
    import numpy
    import torch

    numpy.random.seed()  # noqa: NPY002 (what the libraries draw from)
    torch.set_num_threads(int(order["env"].get("OMP_NUM_THREADS", os.cpu_count())))


def execute(argv: list[str]) -> None:
    """Run a program as `python argv...` does."""
    if argv[0] == "-m":
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        return
    names = sys.modules["__main__"].__dict__
    names.clear()
    names.update({"__name__": "__main__", "__builtins__": builtins, "__spec__": None})
    if argv[0] == "-c":
        exec(compile(argv[1], "<string>", "exec"), names)
        return
    script = Path(argv[0])
    if script.is_dir():
        script /= "__main__.py"
    names["__file__"] = str(script)
    exec(compile(script.read_bytes(), str(script), "exec"), names)


def finish(argv: list[str]) -> NoReturn:
    """Run it, and end this process as an interpreter ends."""
    code: Any = 0
    try:
        try:
            execute(argv)
        except SystemExit as ended:
            code = ended.code or 0
            if not isinstance(code, int):
                print(code, file=sys.stderr)
                code = 1
        except BaseException as error:
            code = 130 if isinstance(error, KeyboardInterrupt) else 1
            traceback.print_exception(error)
        threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code & 0xFF)


def main(path: str) -> NoReturn:
    """Import what programs need; fork."""
    gc.disable()
    for library in LIBRARIES:
        importlib.import_module(library)
    import litlab

    for module in pkgutil.walk_packages(litlab.__path__, "litlab."):
        if "__main__" not in module.name:
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    gc.enable()
    order = serve(path)
    become(order)
    finish(order["argv"])
