"""Processes that train together end together, and say which of them died."""

import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.utils import lightning_adapter
from litlab.utils.errors import STOPPED, EnvironmentFault, Interrupted, LitlabError
from litlab.utils.files import dumps
from litlab.utils.lightning_adapter import LauncherBase
from litlab.utils.signals import HANGUP

# Connections between the processes of a run, by which each learns that another has died.
#
# The first process (the hub) keeps one TCP connection to each of the others. The operating system
# closes a dead process's connections at once, whatever the training is doing at the time; that a
# machine is gone, keep-alive packets tell within `SILENCE` seconds. Nothing else is ever sent.


SILENCE = 6  # seconds after which a machine that answers no keep-alive packet counts as gone
CONNECT_SECONDS = 8.0  # they come from a collective operation, all at once
Message = dict[str, Any]
Hear = Callable[[int, Message], None]  # what rank said; {"gone": True} where it broke off


class HeartbeatServer:
    """The first process's end.

    Args:
        world: How many processes there are.
        host: The address to listen on; "" is all of this machine's.
        hear: Called, in the hub's own thread, with what a process says.
    """

    def __init__(self, world: int, host: str, hear: Hear) -> None:
        self.world, self._hear = world, hear
        self.token = secrets.token_hex(16)  # who does not know it is not of this run
        self._listener = socket.create_server((host, 0), backlog=world)
        self.port: int = self._listener.getsockname()[1]
        self._lines: dict[int, socket.socket] = {}
        self.names: dict[int, str] = {}  # what each process calls itself

    def start(self) -> None:
        """Wait until all are connected, then listen on.

        Raises:
            OSError: Some did not connect in time.
        """
        self._listener.settimeout(CONNECT_SECONDS)
        said: dict[int, list[Message]] = {}
        buffers: dict[int, _Buffer] = {}
        while len(self._lines) < self.world - 1:
            line, _ = self._listener.accept()
            line.settimeout(CONNECT_SECONDS)
            buffer = _Buffer()
            hello, *more = _messages(buffer, _receive(line)) or [{}]
            if secrets.compare_digest(str(hello.get("token")), self.token):
                _keep_alive(line)
                rank = int(hello["rank"])
                self._lines[rank], self.names[rank] = line, str(hello["name"])
                said[rank], buffers[rank] = more, buffer
            else:
                line.close()
        self._listener.close()
        _in_background(lambda: self._listen(said, buffers))

    def _listen(self, said: dict[int, list[Message]], buffers: dict[int, "_Buffer"]) -> None:
        for rank, messages in said.items():
            for message in messages:
                self._hear(rank, message)
        with selectors.DefaultSelector() as selector:
            for rank, line in self._lines.items():
                selector.register(line, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    rank, line = key.data, self._lines[key.data]
                    received = _receive(line)
                    for message in _messages(buffers[rank], received):
                        self._hear(rank, message)
                    if not received:
                        selector.unregister(line)
                        line.close()
                        self._hear(rank, {"gone": True})

    def say(self, message: Message) -> None:
        """Tell all other processes."""
        for line in self._lines.values():
            _send(line, message)

    def close(self) -> None:
        """Close the connection."""
        self._listener.close()
        for line in self._lines.values():
            _hang_up(line)


class HeartbeatClient:
    """Another process's end.

    Args:
        address: Of the hub.
        token: The hub's.
        rank: Of this process.
        name: What this process calls itself.
        hear: Called, in a thread of its own, with what the hub says.
    """

    def __init__(
        self, address: tuple[str, int], token: str, rank: int, name: str, hear: Hear
    ) -> None:
        self._hear = hear
        self._line = socket.create_connection(address, timeout=CONNECT_SECONDS)
        self._line.settimeout(None)
        _keep_alive(self._line)
        _send(self._line, {"token": token, "rank": rank, "name": name})

    def start(self) -> None:
        """Begin to listen."""
        _in_background(self._listen)

    def _listen(self) -> None:
        buffer, received = _Buffer(), b" "
        while received:
            received = _receive(self._line)
            for message in _messages(buffer, received):
                self._hear(0, message)
        self._line.close()
        self._hear(0, {"gone": True})

    def say(self, message: Message) -> None:
        """Tell the hub."""
        _send(self._line, message)

    def close(self) -> None:
        """Close the connection."""
        _hang_up(self._line)


class _Buffer:
    """What came of a line that is not complete."""

    rest = b""


def _messages(buffer: _Buffer, received: bytes) -> list[Message]:
    *lines, buffer.rest = (buffer.rest + received).split(b"\n")
    try:
        return [json.loads(line) for line in lines]
    except ValueError:  # a stranger's
        return []


def _send(line: socket.socket, message: Message) -> None:
    try:
        line.sendall(dumps(message).encode() + b"\n")
    except OSError:  # it is gone, which the listener hears
        return


def _receive(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except OSError:
        return b""


def _hang_up(line: socket.socket) -> None:
    """End a connection; its listener hears it and closes the line."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _in_background(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="heartbeat", daemon=True).start()


def _keep_alive(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", SILENCE - 2)):
        if hasattr(socket, name):  # macOS calls some of them otherwise
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


GRACE = 4.0  # seconds that the training has to end by itself once a process is gone
SETTLING = 1.0  # an error may be the consequence of a death of which the news is on its way
PARENT = "LITLAB_PARENT"  # the process id of the one that started this one


class RankDied(EnvironmentFault):
    """One of a run's processes ended without a message; the run can be resumed."""


class Watchdog(Callback):
    """Ends this process when another one of the run has died: around the fit, and within it.

    A process that is killed or raises leaves the others waiting for it, in a collective operation,
    for half an hour. Here each hears of it at once, has `GRACE` seconds to end by itself, and is
    ended if it does not.

    Args:
        on_failure: Called with the reason where the process is ended from outside the training.
    """

    def __init__(self, on_failure: Callable[[LitlabError], object] = lambda _: None) -> None:
        self._on_failure = on_failure
        self._rank, self._world = 0, 1
        self._line: HeartbeatServer | HeartbeatClient | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._well: set[int] = set()  # said goodbye
        self._failure: LitlabError | None = None
        self._dead, self._first = -1, "the process that started this one"
        self._once = threading.Lock()
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._known, self._left = threading.Event(), threading.Event()

    def attach(self, trainer: pl.Trainer) -> "Watchdog":
        """Take part in a Trainer's fit."""
        if trainer.world_size == 1:
            return self
        self._rank, self._world = trainer.global_rank, trainer.world_size
        trainer.callbacks.append(self)  # type: ignore[attr-defined]
        if lightning_adapter.starts_processes(trainer):
            launcher = _Launcher(trainer.strategy.launcher, self)
            lightning_adapter.replace_launcher(trainer, launcher)
        if self._rank and PARENT in os.environ:
            _start_thread(self._watch_parent)
        elif self._rank and threading.current_thread() is threading.main_thread():
            self._waker = socket.socketpair()
            self._waker[1].setblocking(False)
            signal.set_wakeup_fd(self._waker[1].fileno(), warn_on_full_buffer=False)
            _start_thread(self._watch_signals)
        return self

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect the processes: they have just found one another."""
        if self._world == 1 or self._line is not None:
            return
        host = trainer.strategy.cluster_environment.main_address  # type: ignore[attr-defined]
        try:
            self._connect(trainer, "127.0.0.1" if trainer.num_nodes == 1 else host)
        except OSError as error:
            raise EnvironmentFault(
                f"the processes cannot reach one another: {error}",
                f"{host}, rank {self._rank} of {self._world}",
                "let the machines connect to any port of each other",
            ) from error

    def _connect(self, trainer: pl.Trainer, host: str) -> None:
        hub: HeartbeatServer | None = None
        if self._rank == 0:
            hub = HeartbeatServer(self._world, host if trainer.num_nodes == 1 else "", self._hear)
        own = f"process {os.getpid()} on {socket.gethostname()}"
        where = (hub.port, hub.token, own) if hub else (0, "", "")
        port, token, self._first = trainer.strategy.broadcast(where)
        self._line = hub or HeartbeatClient((host, port), token, self._rank, own, self._hear)
        self._line.start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Say how the training ended.

        Raises:
            LitlabError: It ended because another process did.
        """
        self._left.set()
        if self._waker is not None:
            signal.set_wakeup_fd(-1)
            self._waker[1].close()  # which ends its thread
        if self._world == 1:
            return
        if error is None:
            self._well.update(range(self._world))
            self._tell({"bye": True})
            if self._line is not None:
                self._line.close()
            return
        failure = None if self._is_own(error) or not self._known.wait(SETTLING) else self._failure
        if isinstance(failure, Interrupted) and isinstance(error, Interrupted):
            failure = None  # all were signalled; each knows by what
        if failure is None:
            self._tell(_spoken(error))
        self._end_children()
        if failure is not None and self._rank == self._speaker():
            raise failure from error
        if failure is not None:
            raise SystemExit(failure.exit_code) from error
        if isinstance(error, LitlabError) and self._rank and self._line is not None:
            raise SystemExit(error.exit_code) from error  # the first process says it

    def _is_own(self, error: BaseException | None) -> bool:
        """Whether the error arose here: a signal may also be what ends all when one has died."""
        signalled = isinstance(error, Interrupted | KeyboardInterrupt)
        launched = bool(self._children)  # by this process, and nobody signals it but the user
        return launched if signalled else isinstance(error, LitlabError)

    def watch(self, children: list[subprocess.Popen[bytes]]) -> None:
        """Watch the processes that this one has started, until they are connected and after."""
        self._children = children
        _start_thread(self._watch_children)

    # What the background threads do

    def _hear(self, rank: int, message: Message) -> None:
        if "bye" in message:
            self._well.add(rank)
        elif "error" in message:  # it says so itself, if it is the first
            self._well.add(rank)
            failure = _repeated(message, rank, self._world) if rank else _error(*message["error"])
            self._fail(failure, -1)
        elif "failed" in message:  # the hub passes it on
            self._fail(_error(*message["failed"]), -1)
        elif rank not in self._well:
            self._died(rank)

    def _died(self, rank: int) -> None:
        child = self._children[rank - 1] if 0 < rank <= len(self._children) else None
        if child and child.poll() in STOPPED:  # by a signal to all, while this one could not look
            failure = Interrupted(f"rank {rank} was stopped", "training", "run it again")
            failure.exit_code = child.returncode
            self._fail(failure, rank)
            return
        how, fix = self._how(rank), "see its own output above"
        fix += "" if "exit code" in how else "; out of memory is the usual cause"
        self._fail(RankDied(f"rank {rank} of {self._world} died{how}", "training", fix), rank)

    def _fail(self, failure: LitlabError, dead: int) -> None:
        """Take note of the first failure, pass it on, and see to it that this process ends."""
        with self._once:
            if self._known.is_set():
                return
            self._failure, self._dead = failure, dead
            self._known.set()
        if isinstance(self._line, HeartbeatServer):
            said = [failure.what, failure.where, failure.fix, failure.exit_code]
            self._line.say({"failed": said})
        _start_thread(self._end)

    def _speaker(self) -> int:
        """Return the rank that prints the error: the first one that is left."""
        return 1 if self._dead == 0 else 0

    def _how(self, rank: int) -> str:
        """Say which process it was; of a child of this one, how it ended too."""
        if rank == 0:
            return f" ({self._first})"
        name = self._line.names.get(rank, "") if isinstance(self._line, HeartbeatServer) else ""
        if rank > len(self._children):
            return f" ({name})" if name else ""
        child = self._children[rank - 1]
        try:
            code = child.wait(1)
        except subprocess.TimeoutExpired:
            return f" (process {child.pid})"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f" (process {child.pid}, {how})"

    def _end(self) -> None:
        """End the process if the training does not."""
        assert self._failure is not None
        if self._left.wait(GRACE if self._line is not None else SETTLING):  # nothing has begun yet
            return
        code = self._failure.exit_code
        threading.Timer(GRACE, os._exit, [code]).start()
        try:
            if self._rank == self._speaker():
                print(self._failure, file=sys.stderr, flush=True)
            for child in self._children:
                child.kill()
            self._on_failure(self._failure)
        finally:
            os._exit(code)

    def _watch_children(self) -> None:
        while not self._left.wait(0.3):
            for rank, child in enumerate(self._children, 1):
                if child.poll() and rank not in self._well:
                    self._died(rank)
                    return

    def _watch_parent(self) -> None:
        while not self._left.wait(0.5):
            if os.getppid() != int(os.environ[PARENT]) and 0 not in self._well:
                self._died(0)
                return

    def _watch_signals(self) -> None:
        """End a process that is told to while it still waits for the others to appear.

        Python's own handlers wait for torch's rendezvous to return, which takes half an hour.
        """
        assert self._waker is not None
        waker, _ = self._waker
        while number := waker.recv(1):
            if number[0] not in (signal.SIGTERM, HANGUP) or self._line is not None:
                continue
            if not self._left.wait(GRACE) and self._line is None:
                os._exit(128 + number[0])
        waker.close()

    def _tell(self, message: Message) -> None:
        if self._line is not None:
            self._line.say({**message, "rank": self._rank})

    def _end_children(self) -> None:
        """Wait for the children, which have heard of the error, and end those that are stuck."""
        deadline = time.monotonic() + GRACE + 1
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()


class _Launcher(LauncherBase):
    """Lightning's, but its observer: that one kills this process, and no record would be left."""

    def __init__(self, given: Any, watchdog: Watchdog) -> None:
        super().__init__(given.cluster_environment, given.num_processes, given.num_nodes)
        self._watchdog = watchdog

    def launch(
        self, function: Any, *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any
    ) -> Any:
        """Start the other processes of this machine, then call the function."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            os.environ[PARENT] = str(os.getpid())
            lightning_adapter.start_children(self)
            self._watchdog.watch(self.procs)
        lightning_adapter.set_num_threads(num_processes=self.num_processes)
        return function(*args, **kwargs)


def _start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=f"watchdog{target.__name__}", daemon=True).start()


def _spoken(error: BaseException) -> Message:
    """Return an error as it is told to the other processes."""
    if isinstance(error, LitlabError):
        return {"error": [error.what, error.where, error.fix, error.exit_code]}
    if isinstance(error, KeyboardInterrupt):
        return {"error": ["stopped by Ctrl-C", "training", "run it again", 130]}
    what = f"{type(error).__name__}: {error}"
    return {"error": [what, "training", "its traceback is above", 1]}


def _repeated(message: Message, rank: int, world: int) -> LitlabError:
    what, where, fix, code = message["error"]
    return _error(f"rank {rank} of {world}: {what}", where, fix, code)


def _error(what: str, where: str, fix: str, code: int) -> LitlabError:
    kind = Interrupted if code in STOPPED else LitlabError
    error = kind(what, where, fix)
    error.exit_code = code
    return error
