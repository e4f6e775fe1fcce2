"""A tracking server with basic authentication, which keeps every byte that it is sent."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Stub:
    """As much of MLflow's REST interface as a run needs.

    Attributes:
        requests: What was asked: path and query, then the body.
        refused: How many requests had not the right password.
        runs: Id to run.
    """

    def __init__(self, user: str, password: str) -> None:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.wanted = f"Basic {token}"
        self.requests: list[tuple[str, bytes]] = []
        self.refused = 0
        self.runs: dict[str, dict[str, Any]] = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stub.requests.append((self.path, body))
                code, answer = stub.answer(self.path, body, self.headers.get("Authorization"))
                text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = _do

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, body: bytes, sent: str | None) -> tuple[int, dict[str, Any]]:
        if sent != self.wanted:
            self.refused += 1
            return 401, {"error_code": "PERMISSION_DENIED", "message": "who are you?"}
        url = urlsplit(path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "/mlflow-artifacts/" in path:
            return 200, {}
        asked |= json.loads(body) if body else {}
        match url.path.rpartition("/mlflow/")[2]:
            case "experiments/get-by-name" | "experiments/get":
                return 200, {"experiment": {"experiment_id": "1", "name": "litlab"}}
            case "runs/create":
                info = {"run_id": f"{len(self.runs):032x}", "experiment_id": "1"}
                info |= {"status": "RUNNING", "artifact_uri": "mlflow-artifacts:/1/artifacts"}
                info["run_name"] = asked.get("run_name", "")
                self.runs[info["run_id"]] = {"info": info, "data": {}}
                return 200, {"run": self.runs[info["run_id"]]}
            case "runs/get":
                return 200, {"run": self.runs[asked["run_id"]]}
            case "runs/update":
                info = self.runs[asked["run_id"]]["info"]
                info["status"] = asked["status"]
                return 200, {"run_info": info}
            case "runs/log-batch" | "runs/set-tag" | "runs/log-metric":
                return 200, {}
        return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is none"}
