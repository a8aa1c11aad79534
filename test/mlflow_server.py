"""A stand-in for an MLflow tracking server: it keeps what clients send, and can fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class TrackedRun:
    """The only run on the server. metrics: (step, value) by name."""

    name: str = ""
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    experiment: str | None = None
    is_created: bool = False
    fails: bool = False  # after the run was created, all answers are errors


class _Handler(BaseHTTPRequestHandler):
    run: TrackedRun

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    do_PATCH = do_POST

    def _answer(self, body: dict[str, Any]) -> None:
        call, run = urlsplit(self.path).path.rpartition("/mlflow/")[2], self.run
        if run.fails and run.is_created:
            self._send(400, {"error_code": "INVALID_STATE", "message": "the server is full\nask its owner"})
            return
        if call == "experiments/get-by-name" and run.experiment is None:
            self._send(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"})
            return
        if call == "experiments/get-by-name":
            self._send(200, {"experiment": {"experiment_id": "1", "name": run.experiment}})
            return
        self._keep(call, body)
        info = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": run.status}
        self._send(200, {"experiment_id": "1", "run": {"info": info, "data": {}}, "run_info": info})

    def _keep(self, call: str, body: dict[str, Any]) -> None:
        run = self.run
        if call == "experiments/create":
            run.experiment = body["name"]
        elif call == "runs/create":
            run.name, run.is_created = body.get("run_name", ""), True
        elif call == "runs/set-tag":
            run.tags[body["key"]] = body["value"]
        elif call == "runs/update":
            run.status = body["status"]
        elif call == "runs/log-batch":
            run.params |= {each["key"]: each["value"] for each in body.get("params", ())}
            run.tags |= {each["key"]: each["value"] for each in body.get("tags", ())}
            for each in body.get("metrics", ()):
                run.metrics.setdefault(each["key"], []).append((int(each.get("step", 0)), float(each["value"])))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def mlflow_server(*, fails: bool = False) -> Iterator[tuple[str, TrackedRun]]:
    """Yield the address of a new server, and the run that clients create there. fails: see `TrackedRun`."""
    run = TrackedRun(fails=fails)
    handler = type("Handler", (_Handler,), {"run": run})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", run
        finally:
            server.shutdown()
            thread.join()
