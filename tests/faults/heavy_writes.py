"""Heavy writes from a process of their own: `python -m tests.faults.heavy_writes ADDRESS LOAD CALLS TIMEOUT`.

Every call sends one message of its load and half-closes. How many calls ended in which way goes to standard output as
JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from provgate.v1 import provenance_storage_pb2 as pb2
from tests.integration.gateway_calls import contents

_CLONE: Final = Path(__file__).resolve().parent.parent.parent
_CHANNELS: Final = 10
_CONTENT_BYTES: Final = 24


def _full_contents() -> bytes:
    return contents(4 * 2**20 // _CONTENT_BYTES - 1).SerializeToString()


def _empty_paths() -> bytes:
    return pb2.LocationAddRequest(paths=[b""] * 2_000_000).SerializeToString()


LOADS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "contents": ("ContentAdd", _full_contents),
    "paths": ("LocationAdd", _empty_paths),
}
"""By name: the RPC, and what makes its message."""


class HeavyWrites:
    """The program, started. A context manager; at the end it is gone."""

    def __init__(self, address: str, load: str, call_count: int, timeout_s: float) -> None:
        command = [sys.executable, "-m", "tests.faults.heavy_writes", address, load, str(call_count), str(timeout_s)]
        self._process = subprocess.Popen(command, cwd=_CLONE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> HeavyWrites:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def outcomes(self) -> Counter[str]:
        """Returns how many calls ended in which way: "OK", or status code and reason."""
        return Counter(json.loads(self._process.communicate()[0]))


async def _main(address: str, load: str, call_count: int, timeout_s: float) -> None:
    method, make_body = LOADS[load]
    body = make_body()
    channels = [
        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(min(_CHANNELS, call_count))
    ]
    calls: list[Callable[..., Any]] = [
        channel.stream_stream(f"/provgate.v1.ProvenanceStorage/{method}") for channel in channels
    ]
    outcomes = await asyncio.gather(
        *(_outcome(calls[number % len(calls)], body, timeout_s) for number in range(call_count))
    )
    sys.stdout.write(json.dumps(Counter(outcomes)))


async def _outcome(call: Callable[..., Any], body: bytes, timeout_s: float) -> str:
    async def messages() -> AsyncIterator[bytes]:
        yield body

    try:
        async for _ in call(messages(), timeout=timeout_s):
            pass
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {_reason(error)}"
    return "OK"


def _reason(error: grpc.aio.AioRpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    found = status is not None and any(detail.Unpack(info) for detail in status.details)
    return info.reason if found else str(error.details())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
