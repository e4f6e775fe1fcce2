"""A hub of one's own: as much of huggingface.co's API as fetching a data set takes."""

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

SHA = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class HubStub:
    """Serves folders as data sets, `repositories` by their full names, and counts what it is asked.

    `answers` are statuses with an error code to give instead, by name: (403, "GatedRepo"). While it
    `fails` it gives no other answer than 503; `breaks` are the files for which it does.
    """

    repositories: dict[str, Path]
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fails: bool = False
    breaks: str = ""

    def __enter__(self) -> "HubStub":
        stub = self

        class Handler(_Handler):
            hub = stub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.fails or (self.hub.breaks and self.hub.breaks in path):
            return self._reply(503)
        api = path.startswith("/api/datasets/")
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if parts[0] not in {known.split("/")[0] for known in self.hub.repositories}:
            owned = [known for known in self.hub.repositories if known.endswith(f"/{parts[0]}")]
            name, rest = (owned[0] if owned else parts[0]), parts[1:]  # the hub's old short names
        if name in self.hub.answers:
            status, code = self.hub.answers[name]
            return self._reply(status, headers={"X-Error-Code": code})
        if name not in self.hub.repositories:
            return self._reply(401, headers={"X-Error-Code": "RepoNotFound"})
        folder = self.hub.repositories[name]
        if len(rest) > 1 and rest[1] not in ("main", SHA):
            return self._reply(404, headers={"X-Error-Code": "RevisionNotFound"})
        if not api:
            return self._file(folder / "/".join(rest[2:]))
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        if rest[:1] == ["tree"]:
            return self._json([_entry(file, name) for file, name in zip(files, names, strict=True)])
        return self._json({"id": name, "sha": SHA, "siblings": [{"rfilename": n} for n in names]})

    def _json(self, content: Any) -> None:
        self._reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._reply(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})
            return
        headers = {"ETag": f'"{_digest(path)}"', "X-Repo-Commit": SHA}
        self._reply(200, path.read_bytes(), headers)

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(path: Path, name: str) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
