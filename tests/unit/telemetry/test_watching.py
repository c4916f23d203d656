"""Where the watch port is opened, and what is served there."""

from __future__ import annotations

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from provgate_runtime.watch.conditions import Condition
from provgate_runtime.watch.port import WatchPort
from provgate_runtime.watch.watching import WatchAddress, WatchPortError, watched
from tests.support.watch_port import probe, value


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def run(address: WatchAddress) -> None:
    async def main() -> None:
        async with watched(address, CollectorRegistry(), list, list):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_metrics_and_conditions_are_served(host: str) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    ready = [Condition("broker", "away"), Condition("storage")]
    with WatchPort(host, 0, registry, list, lambda: ready) as port:
        assert value(port.address, "things_total") == 3
        assert probe(port.address, "/healthz").ok
        assert not probe(port.address, "/readyz").ok
        assert probe(port.address, "/readyz").problems == {"broker": "away", "storage": None}


def test_other_paths_and_methods_are_refused() -> None:
    with WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list) as port:
        for request, status in ((f"http://{port.address}/", 404), (posted(port.address), 405)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            assert caught.value.code == status
            caught.value.close()


def posted(address: str) -> urllib.request.Request:
    return urllib.request.Request(f"http://{address}/metrics", data=b"", method="POST")


def test_it_may_be_closed_twice_and_its_address_is_free_then() -> None:
    port = WatchPort("127.0.0.1", 0, CollectorRegistry(), list, list)
    port.close()
    port.close()
    number = int(port.address.rpartition(":")[2])
    WatchPort("127.0.0.1", number, CollectorRegistry(), list, list).close()


def test_a_given_address_that_is_taken_is_an_error(taken: str) -> None:
    with pytest.raises(WatchPortError, match=rf"a\.setting: {taken} cannot be served on"):
        run(WatchAddress("a.setting", taken, None))


def test_a_port_that_there_is_not_is_an_error() -> None:
    with pytest.raises(WatchPortError, match="cannot be served on"):
        run(WatchAddress("a.setting", "127.0.0.1:70000", None))


def test_a_default_address_that_is_taken_is_a_warning(taken: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(WatchAddress("a.setting", None, taken))
    assert taken in caplog.text


@pytest.mark.parametrize("address", [WatchAddress("s", "off", "127.0.0.1:1"), WatchAddress("s", None, None)], ids=str)
def test_off_is_no_port(address: WatchAddress, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(address)
    assert not caplog.records
