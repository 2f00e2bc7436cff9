"""Webhook: a server on loopback that keeps what it is told, and may refuse some times."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any


class Webhook:
    """Where it listens, and what came."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        """Statuses of the first requests; then 200."""
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.url = ""


@contextlib.contextmanager
def listening(*answers: int) -> Iterator[Webhook]:
    hook = Webhook(*answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.asked += 1
            status = hook.answers.pop(0) if hook.answers else 200
            if status == 200:
                hook.told.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/secret-part"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
