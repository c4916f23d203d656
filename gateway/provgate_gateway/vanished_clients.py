"""What gRPC logs of clients that go away while they are answered: told as what it is, and by whom."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Final

logger = logging.getLogger(__name__)

peer: Final[ContextVar[str | None]] = ContextVar("peer", default=None)
"""Who makes the call of the current task, as gRPC names it: `ipv4:127.0.0.1:50814`."""


def log_vanished_clients_shortly() -> None:
    """Has a client that vanished logged at debug, with its address, instead of gRPC's error with a traceback."""
    # Where gRPC logs what a handler raised.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_client)


def _is_not_of_client(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    # Something could not be sent, since the call is over. The error has no public name.
    if kind is None or kind.__name__ != "ExecuteBatchError":
        return True
    address = peer.get()
    extra = {"action": "call.abandon", "peer": address}
    logger.debug("%s went away while it was answered", address or "a client", extra=extra)
    return False
