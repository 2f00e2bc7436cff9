"""Webhook: a server on loopback that keeps what it is told, and may refuse some times."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any


class Webhook:
    """Where it listens, and what came."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        """Statuses of the first requests; then 200."""
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.trickles = 0
        """Bytes of its answers, one in a tenth of a second."""
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
            if 300 <= status < 400:
                self.send_header("Location", "/login")
            self.end_headers()
            for _ in range(hook.trickles):
                time.sleep(0.1)
                with contextlib.suppress(OSError):  # nobody listens any more
                    self.wfile.write(b".")

        def do_GET(self) -> None:
            self.send_response(200)
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
