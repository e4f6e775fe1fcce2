"""Connections between the processes of a run, by which each learns that another has died.

The first process (the hub) keeps one TCP connection to each of the others. The operating system
closes a dead process's connections at once, whatever the training is doing at the time; that a
machine is gone, keep-alive packets tell within `SILENCE` seconds. Nothing else is ever sent.
"""

import json
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from litlab.utils.strict_json import dumps

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
