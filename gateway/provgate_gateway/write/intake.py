"""From a message to packages: counted, decoded, checked whole, then cut, and never long on the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from provgate_broker.topology.policy import RangePolicy
from provgate_gateway import errors
from provgate_gateway.rpc.requests import MessageKind, entry_count
from provgate_gateway.write.splitting import Package, split

M = TypeVar("M", bound=Message)

# A message up to this size is taken apart on the event loop; a larger one would keep the loop, and with it heartbeats
# and health, for tens of milliseconds and more.
_ON_LOOP_MAX_BYTES: Final = 256 * 1024

ENTRIES_MAX: Final = 200_000
"""The most entries of a message: no fewer than fit into 4 MiB with ids of 20 bytes."""

# An entry takes two bytes at least: a smaller message cannot have more.
_UNCOUNTED_MAX_BYTES: Final = 2 * ENTRIES_MAX


class Intake:
    """Makes packages of messages.

    Args:
        policy: the ranges.
        batch_size: the most entries of a package.
    """

    def __init__(self, policy: RangePolicy, batch_size: int) -> None:
        self._policy = policy
        self._batch_size = batch_size
        # One alone: while a message is taken apart it takes up to 80 MiB, and Python would not do two of them sooner.
        # Flow control bounds those that wait.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")

    def close(self) -> None:
        """Gives the thread back."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        """Returns the packages of an encoded message. Raises `CallError` where any of it cannot be kept."""
        if len(body) > _ON_LOOP_MAX_BYTES:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._packages, body, kind)
        return self._packages(body, kind)

    def _packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        if len(body) > _UNCOUNTED_MAX_BYTES and entry_count(body, kind.columns_field, ENTRIES_MAX) > ENTRIES_MAX:
            raise errors.too_many_entries(ENTRIES_MAX)
        try:
            request = kind.decode(body)
        except DecodeError as error:
            raise errors.malformed() from error
        return split(kind.operation(request), kind.rows(request), self._policy, self._batch_size)
