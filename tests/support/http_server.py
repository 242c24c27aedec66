"""A small HTTP server in a thread, whose answers a test gives: for what speaks to servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as the server read it."""

    method: str
    path: str
    body: Any  # what the JSON says; None for another kind of body
    raw: bytes
    headers: dict[str, str]
    number: int  # 0, 1, … by arrival
    at: float  # by the monotonic clock


@dataclass(frozen=True)
class Reply:
    """What the server sends; `wait_s` before it."""

    status: int = 200
    body: Any = b""  # bytes, or what becomes JSON
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    broken: bool = False  # the connection ends in the middle


class Running:
    """A running server: its address, what it was asked, and how many requests it worked on at a time."""

    def __init__(self, answer: Callable[[Asked], Reply], port: int) -> None:
        self.asked: list[Asked] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                outer._serve(self, answer)

            def do_GET(self) -> None:
                outer._serve(self, answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _serve(self, handler: BaseHTTPRequestHandler, answer: Callable[[Asked], Reply]) -> None:
        data = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        with self._lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            body = json.loads(data) if headers.get("content-type") == "application/json" else None
            asked = Asked(handler.command, handler.path, body, data, headers, len(self.asked), time.monotonic())
            self.asked.append(asked)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            reply = answer(asked)
            self._over.wait(reply.wait_s)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(content) + (100 if reply.broken else 0)))
            handler.end_headers()
            handler.wfile.write(content)
            handler.close_connection = handler.close_connection or reply.broken
        except OSError:
            handler.close_connection = True  # the client went away
        finally:
            with self._lock:
                self._now -= 1

    def close(self) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serving(answer: Callable[[Asked], Reply], *, port: int = 0) -> Iterator[Running]:
    """A server that answers by `answer` until the block ends; `port` 0 is any free one."""
    running = Running(answer, port)
    try:
        yield running
    finally:
        running.close()
