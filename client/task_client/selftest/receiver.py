"""A receiver of callbacks with moods: some it refuses, some it takes and hangs up without a word. Those must come again."""

import json
import random
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

REFUSED, HUNG_UP = 0.05, 0.1  # chances, cumulated


class MoodyReceiver:
    """Listens on loopback while it is entered. `told`: by uid of a task, the webhook-ids and types that came."""

    def __init__(self, seed: int) -> None:
        self.told: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.requests = 0
        self._random = random.Random(seed)  # noqa: S311 - moods, no secrets
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="receiver")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def took(self, webhook_id: str, body: bytes) -> float:
        """Write down one delivery; a mood between 0 and 1."""
        found = json.loads(body)
        with self._lock:
            self.requests += 1
            self.told[found["data"]["task"]["uid"]].add((webhook_id, found["type"]))
            return self._random.random()

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the request's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                mood = receiver.took(self.headers.get("webhook-id", ""), body)
                if REFUSED <= mood < HUNG_UP:
                    self.close_connection = True
                    return
                self.send_response(500 if mood < REFUSED else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
                """Nobody reads it."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the daemon was killed meanwhile

        return Handler
