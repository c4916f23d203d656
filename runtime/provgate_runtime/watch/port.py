"""The watch port of a program: /metrics, /healthz and /readyz over HTTP.

Its own thread serves it, so that it answers, and reports the problem, while the program's event loop is blocked.

Python's HTTP server limits each line and each wait, but not a whole request nor the number of connections; this module
does. One connection too many ends the oldest one. A request takes milliseconds, so the oldest connection is one whose
request never ends, and health stays available.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.client import LineTooLong
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec
from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app

from provgate_runtime.addresses import OFF
from provgate_runtime.watch.conditions import Conditions, Heartbeat

logger = logging.getLogger(__name__)

# For a whole request, and again for its response.
_REQUEST_TIMEOUT_S: Final = 10.0
_REQUEST_MAX_BYTES: Final = 16 * 1024
_MAX_CONNECTIONS: Final = 32

# `shutdown` wakes the server up; this is the interval of its polls otherwise.
_POLL_S: Final = 3600.0


class WatchPortError(Exception):
    """The address in the settings cannot be listened on."""


@dataclass(frozen=True, slots=True)
class WatchAddress:
    """The address of a program's watch port.

    Attributes:
        setting: the path of the setting, for messages.
        given: the value of the setting: host and port, or `OFF`; None if it is not set.
        default: the address if it is not set; None for no port.
    """

    setting: str
    given: str | None
    default: str | None


@asynccontextmanager
async def watched(
    address: WatchAddress, registry: CollectorRegistry, alive: Conditions, ready: Conditions
) -> AsyncIterator[None]:
    """Opens the watch port for a block. A heartbeat of the running event loop is added to `alive`.

    Raises:
        WatchPortError: the given address cannot be listened on. Without the default address the program goes on.
    """
    # The creation time of a series is a sixth of the text, and nobody uses it.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    heartbeat = Heartbeat()
    port = _open(address, registry, lambda: [*heartbeat.conditions(), *alive()], ready)
    beating = asyncio.create_task(heartbeat.run())
    try:
        yield
    finally:
        beating.cancel()
        if port is not None:
            port.close()


def _open(address: WatchAddress, registry: CollectorRegistry, alive: Conditions, ready: Conditions) -> WatchPort | None:
    where = address.given or address.default
    if where is None or where == OFF:
        return None
    host, _, number = where.rpartition(":")
    try:
        port = WatchPort(host.strip("[]"), int(number), registry, alive, ready)
    # OverflowError: the port is beyond 65535.
    except (OSError, OverflowError) as error:
        text = f"{address.setting}: {where} cannot be served on: {error}"
        if address.given is not None:
            raise WatchPortError(text) from error
        logger.warning("%s; the program goes on without", text, extra={"action": "watch.skip"})
        return None
    logger.info("metrics and health on http://%s", port.address, extra={"action": "watch.serve"})
    return port


class WatchPort:
    """Serves metrics and health of a program until it is closed. Thread-safe.

    `/healthz` answers 200 while the program is alive and `/readyz` while it is ready, else 503. Both send a JSON object
    that lists every condition, with the reason if it does not hold.

    Args:
        host: the host to bind; an IPv6 address without brackets.
        port: the port to bind; 0 for a free one.
        registry: the metrics.
        alive: if one of these does not hold, the program should be restarted.
        ready: if one of these does not hold, the program should get no work.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, alive: Conditions, ready: Conditions) -> None:
        self._metrics = make_wsgi_app(registry)
        self._conditions = {"/healthz": alive, "/readyz": ready}
        self._server = _Server((host, port), _Handler)
        self._server.set_app(self._respond)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="watch-port")
        self._thread.daemon = True
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The host and port that are bound."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def close(self) -> None:
        """Stops serving. Idempotent."""
        # Wakes the server up; its socket may be closed already.
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()

    def _respond(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path, text = environ.get("PATH_INFO", ""), ("Content-Type", "text/plain; charset=utf-8")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [text, ("Allow", "GET, HEAD")])
            return [b"only GET\n"]
        if path == "/metrics":
            response: Iterable[bytes] = self._metrics(environ, start)
            return response
        if path not in self._conditions:
            start("404 Not Found", [text])
            return [b"there are /metrics, /healthz and /readyz\n"]
        conditions = self._conditions[path]()
        ok = all(condition.holds for condition in conditions)
        start("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "application/json")])
        listed = [{"name": each.name, "ok": each.holds, "problem": each.problem} for each in conditions]
        return [msgspec.json.format(msgspec.json.encode({"ok": ok, "conditions": listed}), indent=2) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    # A request that hangs blocks neither the others nor the end of the program.
    daemon_threads = True
    # Connections that wait to be accepted; the base has 5, and the system drops the others.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The base also looks the host's name up, which can take long.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def add(self, connection: socket.socket) -> None:
        """Counts a connection, and ends the oldest one if there are too many."""
        with self._lock:
            self._open[connection] = None
            while len(self._open) > _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                # Its thread sees the end of the request, and closes the socket.
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)

    def remove(self, connection: socket.socket) -> None:
        """Does not count a connection any more."""
        with self._lock:
            self._open.pop(connection, None)

    def handle_error(self, request: object, client_address: object) -> None:
        # The base prints a traceback if a client sends nothing or goes away.
        logger.debug("a request of %s failed", client_address, exc_info=True, extra={"action": "watch.request"})


class _Handler(WSGIRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.add(self.connection)
        self.rfile = io.BufferedReader(_Request(self.connection))

    def finish(self) -> None:
        self.server.remove(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is that of the base
        # A scrape every few seconds is not logged.
        pass


class _Request(io.RawIOBase):
    """The bytes of a request, limited in size (`LineTooLong`) and in time (`TimeoutError`)."""

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
