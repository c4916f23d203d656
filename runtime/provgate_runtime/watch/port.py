"""The port for those who watch a program: /metrics, /healthz and /readyz over HTTP.

It is served by a thread of its own, so that it answers also when the program's event loop does not, and says so.

Python's HTTP server bounds each line and each wait, but neither all of the headers, nor the whole of a request, nor the
connections; this module does. A connection too many ends the oldest one: a request takes milliseconds, so the oldest is
one that does not come to its end, and health answers whatever else is sent to the port.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http.client import LineTooLong
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from provgate_runtime.watch.conditions import Condition

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
LATE_AFTER_S: Final = 15.0
"""A loop that has not turned for so long is in trouble: heartbeats to the broker are being missed too."""


class Heartbeat:
    """Notes each second that its event loop turns. `conditions` may be called on any thread.

    Args:
        late_after_s: how long the loop may be silent.
    """

    def __init__(self, late_after_s: float = LATE_AFTER_S) -> None:
        self._late_after_s = late_after_s
        self._beaten_at = time.monotonic()

    async def run(self) -> None:
        """Beats until it is cancelled."""
        while True:
            self._beaten_at = time.monotonic()
            await asyncio.sleep(min(INTERVAL_S, self._late_after_s / 4))

    def conditions(self) -> list[Condition]:
        """Returns the one condition `event_loop`."""
        silent_s = time.monotonic() - self._beaten_at
        late = silent_s > self._late_after_s
        return [Condition("event_loop", f"it has not turned for {silent_s:.0f} s" if late else None)]


Conditions: TypeAlias = Callable[[], Sequence[Condition]]
"""Tells what must hold and whether it does; called on any thread."""


_Start: TypeAlias = Callable[[str, list[tuple[str, str]]], object]
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_JSON: Final = ("Content-Type", "application/json")

# For all of a request, and again for all of its answer.
_REQUEST_TIMEOUT_S: Final = 10.0
_REQUEST_MAX_BYTES: Final = 16 * 1024
_MAX_CONNECTIONS: Final = 32

# How often the server would look whether it is to end, if nobody woke it up.
_POLL_S: Final = 3600.0


class WatchPort:
    """Serves what is known of a program until it is closed. Thread-safe.

    `/healthz` answers 200 while the program lives, `/readyz` while it can do its work, else 503; both with a JSON
    object that names every condition and says why one does not hold.

    Args:
        host: to bind; an IPv6 address without brackets.
        port: to bind; 0 takes a free one.
        registry: what `/metrics` shows.
        alive: what must hold for the program not to be restarted.
        ready: what must hold for it to be given work.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, alive: Conditions, ready: Conditions) -> None:
        self._metrics = make_wsgi_app(registry)
        self._conditions = {"/healthz": alive, "/readyz": ready}
        self._server = make_server(host, port, self._answer, _server_for(host), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="watch-port")
        self._thread.daemon = True
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Host and port that are bound."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def close(self) -> None:
        """Stops serving. May be called again."""
        # Wakes the server up; its socket may be closed already.
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [_TEXT, ("Allow", "GET, HEAD")])
            return [b"only GET\n"]
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start)
            return answer
        if path in self._conditions:
            return _told(self._conditions[path](), start)
        start("404 Not Found", [_TEXT])
        return [b"there are /metrics, /healthz and /readyz\n"]


def _told(conditions: Sequence[Condition], start: _Start) -> Iterable[bytes]:
    holds = all(condition.holds for condition in conditions)
    start("200 OK" if holds else "503 Service Unavailable", [_JSON])
    told = {
        "ok": holds,
        "conditions": [{"name": each.name, "ok": each.holds, "problem": each.problem} for each in conditions],
    }
    return [msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    # A scrape that hangs holds up neither the others nor the end of the program.
    daemon_threads = True
    # Those that come while the thread that accepts is busy; the base has 5, and the system drops what does not fit.
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(*args)

    def server_bind(self) -> None:
        """Binds. The base would ask the name service for a name of the host, which can take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection on a thread of its own, and ends the oldest one where there are too many."""
        with self._lock:
            self._open[request] = None
            while len(self._open) > _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                # Its thread finds the end of the request, and closes the socket.
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing loud: a client that sends nothing, or goes away, is no event. The base prints a traceback."""
        logger.debug("a request of %s failed", client_address, exc_info=True, extra={"action": "watch.request"})


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _Request(io.RawIOBase):
    """What a client sends: so many bytes at most, and all of them in time. `TimeoutError` and `LineTooLong` else."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ends_at = time.monotonic() + _REQUEST_TIMEOUT_S
        self._left_bytes = _REQUEST_MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left_bytes == 0:
            raise LineTooLong("header")
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer, min(len(buffer), self._left_bytes))
        self._left_bytes -= count
        self._connection.settimeout(_REQUEST_TIMEOUT_S)
        return count


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Request(self.connection))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is that of the base
        """Says nothing: a scrape every few seconds is no event."""
