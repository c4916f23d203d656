"""From a message to packages: checked whole, then cut, and never long on the event loop."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from google.protobuf.message import Message

from provgate_broker.topology import RangePolicy
from provgate_gateway import errors
from provgate_gateway.decoding import Undecodable
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

    async def packages(self, request: M | Undecodable, kind: MessageKind[M]) -> list[Package]:
        """Returns the packages of a message. Raises `CallError` where any of it cannot be kept."""
        if isinstance(request, Undecodable):
            raise errors.malformed()
        if request.ByteSize() > _ON_LOOP_MAX_BYTES:
            return await asyncio.to_thread(self._packages, request, kind)
        return self._packages(request, kind)

    def _packages(self, request: M, kind: MessageKind[M]) -> list[Package]:
        return split(kind.operation(request), kind.entries(request), self._policy, self._batch_size)
