"""Durations for a statsd server: over UDP, and nobody waits or fails where it is away."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeAlias

from statsd import StatsClient

logger = logging.getLogger(__name__)

Durations: TypeAlias = Callable[[str, float], None]
"""Takes what something is called, and how many seconds it took. Thread-safe; never raises."""

_PORT: Final = "8125"


def statsd_address(setting: str, given: str | None, environment: Mapping[str, str]) -> str | None:
    """Returns the address of the statsd server, with its name resolved; None where there is none.

    A name that cannot be resolved is a warning: figures are no reason not to start.

    Args:
        setting: its path in the configuration, for messages.
        given: host and port, as they are set.
        environment: where STATSD_HOST and STATSD_PORT may be, for where they are not.
    """
    where, source = given, setting
    if where is None and environment.get("STATSD_HOST"):
        where, source = _joined(environment["STATSD_HOST"], environment.get("STATSD_PORT") or _PORT), "STATSD_HOST"
    if where is None:
        return None
    host, _, port = where.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)
    # UnicodeError: a label of the name is too long or empty.
    except (OSError, UnicodeError, OverflowError) as error:
        text = "%s: no durations are sent, since %s cannot be resolved: %s"
        logger.warning(text, source, where, error, extra={"action": "statsd.resolve"})
        return None
    address = found[0][4]
    return _joined(str(address[0]), str(address[1]))


class DurationSender:
    """Sends durations to a statsd server, or to nobody. Thread-safe. As a context manager it closes itself.

    Args:
        address: what `statsd_address` returned.
        prefix: of all names, without a dot at its end.
    """

    def __init__(self, address: str | None, prefix: str) -> None:
        self._client = None if address is None else _client_of(address, prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()

    def send(self, name: str, duration_s: float) -> None:
        """Sends how many seconds something took, as milliseconds. Never raises."""
        if self._client is not None:
            # A call may end after the client was closed.
            with suppress(Exception):
                self._client.timing(name, duration_s * 1000)


def _client_of(address: str, prefix: str) -> StatsClient:
    host, _, port = address.rpartition(":")
    return StatsClient(host.strip("[]"), int(port), prefix=prefix, ipv6=host.startswith("["))


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
