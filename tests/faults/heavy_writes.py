"""Heavy writes from a process of their own: `python -m tests.faults.heavy_writes ADDRESS LOAD CALLS`.

Every call sends one message of its load and half-closes. How many calls ended in which way goes to standard output as
JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import grpc

from provgate.v1 import provenance_storage_pb2 as pb2
from tests.support.gateway_calls import contents, outcome_of

_CLONE: Final = Path(__file__).resolve().parent.parent.parent
_CHANNELS: Final = 10
_CONTENT_BYTES: Final = 24


def _full_contents() -> bytes:
    return contents(4 * 2**20 // _CONTENT_BYTES - 1).SerializeToString()


def _long_paths() -> bytes:
    return pb2.LocationAddRequest(paths=[b"%04000d" % number for number in range(1040)]).SerializeToString()


def _empty_paths() -> bytes:
    return pb2.LocationAddRequest(paths=[b""] * 2_000_000).SerializeToString()


LOADS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "contents": ("ContentAdd", _full_contents),
    "long paths": ("LocationAdd", _long_paths),
    "empty paths": ("LocationAdd", _empty_paths),
}
"""By name: the RPC, and what makes its message."""


class HeavyWrites:
    """The program, started. A context manager; at the end it is gone."""

    def __init__(self, address: str, load: str, call_count: int) -> None:
        command = [sys.executable, "-m", "tests.faults.heavy_writes", address, load, str(call_count)]
        self._outcomes: Counter[str] | None = None
        self._process = subprocess.Popen(command, cwd=_CLONE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> HeavyWrites:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def outcomes(self) -> Counter[str]:
        """Waits for the end, and returns how many calls ended in which way: "OK", or status code and reason."""
        if self._outcomes is None:
            self._outcomes = Counter(json.loads(self._process.communicate()[0]))
        return self._outcomes


def _main(address: str, load: str, call_count: int) -> None:
    # A thread that waits for gRPC looks ten times a second whether it still has to: a thousand of them take two cores.
    waits: Any = import_module("grpc._common")
    waits.MAXIMUM_WAIT_TIMEOUT = 10.0
    method, make_body = LOADS[load]
    body = make_body()
    calls: list[Callable[..., Any]] = [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]).stream_stream(
            f"/provgate.v1.ProvenanceStorage/{method}"
        )
        for _ in range(min(_CHANNELS, call_count))
    ]
    with ThreadPoolExecutor(call_count) as threads:
        outcomes = threads.map(lambda number: _outcome(calls[number % len(calls)], body), range(call_count))
        sys.stdout.write(json.dumps(Counter(outcomes)))


def _outcome(call: Callable[..., Any], body: bytes) -> str:
    outcome = outcome_of(call(iter([body])))
    if outcome.ok:
        return "OK"
    return f"{outcome.code.name} {outcome.reason if outcome.details else outcome.message}"


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
