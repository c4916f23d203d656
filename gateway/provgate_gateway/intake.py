"""From a message to packages: decoded, checked whole, then cut, and never long on the event loop."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from provgate_broker.topology import RangePolicy
from provgate_gateway import errors
from provgate_gateway.requests import MessageKind
from provgate_gateway.splitting import Package, split

M = TypeVar("M", bound=Message)

# A message up to this size is taken apart on the event loop; a larger one would keep the loop, and with it heartbeats
# and health, for tens of milliseconds and more.
_ON_LOOP_MAX_BYTES: Final = 256 * 1024


class Intake:
    """Makes packages of messages.

    Args:
        policy: the ranges.
        batch_size: the most entries of a package.
    """

    def __init__(self, policy: RangePolicy, batch_size: int) -> None:
        self._policy = policy
        self._batch_size = batch_size

    async def packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        """Returns the packages of an encoded message. Raises `CallError` where any of it cannot be kept."""
        if len(body) > _ON_LOOP_MAX_BYTES:
            return await asyncio.to_thread(self._packages, body, kind)
        return self._packages(body, kind)

    def _packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        try:
            request = kind.decode(body)
        except DecodeError as error:
            raise errors.malformed() from error
        return split(kind.operation(request), kind.rows(request), self._policy, self._batch_size)
