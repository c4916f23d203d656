"""A program is watched while it runs: its port is opened where the settings say, and its loop's heartbeat noted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, disable_created_metrics

from provgate_runtime.addresses import OFF
from provgate_runtime.watch.port import Conditions, Heartbeat, WatchPort

logger = logging.getLogger(__name__)


class WatchPortError(Exception):
    """The address that the settings ask for cannot be served on."""


@dataclass(frozen=True, slots=True)
class WatchAddress:
    """Where a program is watched.

    Attributes:
        setting: its path in the configuration, for messages.
        given: host and port, or `OFF`; None where it is not set.
        default: the address where it is not set; None for no port.
    """

    setting: str
    given: str | None
    default: str | None


@asynccontextmanager
async def watched(
    address: WatchAddress, registry: CollectorRegistry, alive: Conditions, ready: Conditions
) -> AsyncIterator[None]:
    """Has the program watched for the time of a block, on whose loop a heartbeat is added to what must be alive.

    Raises:
        WatchPortError: the address that was given cannot be served on. A default one is done without then.
    """
    # When a series was made is of no use to anybody, and a sixth of the text.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    heartbeat = Heartbeat()
    port = _opened(address, registry, lambda: [*heartbeat.conditions(), *alive()], ready)
    beating = asyncio.create_task(heartbeat.run())
    try:
        yield
    finally:
        beating.cancel()
        if port is not None:
            port.close()


def _opened(
    address: WatchAddress, registry: CollectorRegistry, alive: Conditions, ready: Conditions
) -> WatchPort | None:
    where = address.given or address.default
    if where is None or where == OFF:
        return None
    host, _, number = where.rpartition(":")
    try:
        port = WatchPort(host.strip("[]"), int(number), registry, alive, ready)
    # Of a port beyond 65535 Python says OverflowError.
    except (OSError, OverflowError) as error:
        text = f"{address.setting}: {where} cannot be served on: {error}"
        if address.given is not None:
            raise WatchPortError(text) from error
        logger.warning("%s; the program goes on without", text, extra={"action": "watch.skip"})
        return None
    logger.info("metrics and health on http://%s", port.address, extra={"action": "watch.serve"})
    return port
