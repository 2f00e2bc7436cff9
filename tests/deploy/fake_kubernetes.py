"""A Kubernetes API server on loopback, as far as RayJobs of one namespace go: real HTTP, rights, names taken, ends."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "the-token-of-the-pod"


class Cluster:
    """What the server knows. `script` are the statuses that a RayJob has, one per time it is asked for."""

    def __init__(self, *script: dict[str, Any]) -> None:
        self.rayjobs: dict[str, dict[str, Any]] = {}
        self.scripts: dict[str, list[dict[str, Any]]] = {}
        self.default = list(script)
        self.requests: list[tuple[str, str]] = []
        self.broken: list[int] = []
        """Statuses that the next requests get in place of an answer; 0: the connection is cut."""
        self.forbidden: set[str] = set()
        """Verbs."""

    def answer(self, verb: str, path: str, token: str, body: Any) -> tuple[int, Any]:
        self.requests.append((verb, path))
        if self.broken:
            return self.broken.pop(0), {"message": "not now"}
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Unauthorized"}
        if verb in self.forbidden:
            return 403, {"message": f"rayjobs.ray.io is forbidden: cannot {verb}"}
        prefix = "/apis/ray.io/v1/namespaces/night/rayjobs"
        assert path.startswith(prefix), path
        name = path.removeprefix(prefix).strip("/")
        if verb == "POST":
            return self.create(body)
        if name not in self.rayjobs:
            return 404, {"message": "not found"}
        script = self.scripts.get(name)
        if script:
            self.rayjobs[name]["status"] = script.pop(0)
        return 200, self.rayjobs[name]

    def create(self, body: Any) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if name in self.rayjobs:
            return 409, {"message": f"rayjobs {name} already exists"}
        self.rayjobs[name] = body
        self.scripts.setdefault(name, list(self.default))
        return 201, body


@contextlib.contextmanager
def served(cluster: Cluster, port: int = 0) -> Iterator[str]:
    """The server's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply("GET", None)

        def do_POST(self) -> None:
            self.reply("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, verb: str, body: Any) -> None:
            status, said = cluster.answer(verb, self.path, self.headers.get("Authorization", ""), body)
            if status == 0:
                self.close_connection = True
                return
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def account(folder: Path) -> Path:
    """What Kubernetes mounts into a pod that has a service account."""
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("night")
    return folder
