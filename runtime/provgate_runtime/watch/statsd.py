"""Durations for a statsd server, over UDP. Nothing waits or fails if the server is away."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Self, TypeAlias

from statsd import StatsClient

logger = logging.getLogger(__name__)

Durations: TypeAlias = Callable[[str, float], None]
"""Takes the name of an operation and its duration in seconds. Thread-safe; never raises."""

_PORT: Final = "8125"


def statsd_address(setting: str, given: str | None, environment: Mapping[str, str]) -> str | None:
    """Returns the address of the statsd server, with its name resolved; None if there is none.

    A name that cannot be resolved is a warning; the program starts without durations.

    Args:
        setting: the path of the setting, for messages.
        given: the value of the setting: host and port.
        environment: STATSD_HOST and STATSD_PORT count if the setting is None.
    """
    address, source = given, setting
    if address is None and environment.get("STATSD_HOST"):
        source = "STATSD_HOST"
        address = _joined(environment["STATSD_HOST"], environment.get("STATSD_PORT") or _PORT)
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)
    # UnicodeError: a label of the name is too long or empty.
    except (OSError, UnicodeError, OverflowError) as error:
        text = "%s: no durations are sent, because %s cannot be resolved: %s"
        logger.warning(text, source, address, error, extra={"action": "statsd.resolve"})
        return None
    resolved = found[0][4]
    return _joined(str(resolved[0]), str(resolved[1]))


class DurationSender:
    """Sends durations to a statsd server, if there is one. Thread-safe. A context manager that closes the socket.

    Args:
        address: the result of `statsd_address`.
        prefix: the prefix of all names, without a dot at its end.
    """

    def __init__(self, address: str | None, prefix: str) -> None:
        self._client: StatsClient | None = None
        if address is not None:
            host, _, port = address.rpartition(":")
            self._client = StatsClient(host.strip("[]"), int(port), prefix=prefix, ipv6=host.startswith("["))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def send(self, name: str, duration_s: float) -> None:
        """Sends a duration, in milliseconds. Never raises."""
        if self._client is not None:
            # A call may end after the client was closed.
            with suppress(Exception):
                self._client.timing(name, duration_s * 1000)


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
